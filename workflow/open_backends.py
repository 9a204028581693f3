"""What takes part in rtk bench: every backend in every precision, exported and opened, and the baselines."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ArtifactError, BackendError, UnknownNameError
from ..core.tolerances import precision_named

if TYPE_CHECKING:
    from ..bench.config import BenchConfig
    from ..bench.measure.contenders import Contender
    from ..core.data.datasets import Dataset
    from ..infer.backend import Backend, BackendOptions
    from .models import ModelFiles


@dataclass
class Opened:
    """Who takes part, and who cannot and why."""

    contenders: "list[Contender]" = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)


def open_contenders(
    found: "ModelFiles",
    answers_to: "Backend",
    *,
    backends: Sequence[str],
    precisions: Sequence[str],
    baselines: bool,
    config: "BenchConfig",
    options: "BackendOptions",
    dataset: "Dataset",
    reference: Path,
    given: bool,
    stack: ExitStack,
) -> Opened:
    """Open every backend in every precision; `stack` closes them.

    `backends` and `precisions` are those that the user named, or empty; `given`: whether the reference was named too.
    A backend that was named and cannot run is an error, unless several precisions were: then it is noted, as always
    for those that nobody named. Raises BackendError, ArtifactError, UnknownNameError.
    """
    from ..bench.measure.contenders import Contender
    from ..infer.backend import BACKENDS
    from ..infer.open_backend import open_backend

    for unknown in (name for name in backends if name not in BACKENDS):
        raise UnknownNameError("backend", unknown, BACKENDS)
    for name in precisions:
        precision_named(name)
    opened = Opened()
    for precision in precisions or (None,):
        for name in backends or BACKENDS:
            started_at = time.perf_counter()
            label = name if precision in (None, "fp32") else f"{name} {precision}"
            try:
                if name == "torch" and not given and precision in (None, "fp32"):
                    backend, for_files = answers_to, answers_to
                else:
                    artifact, hint = artifact_in(
                        precision, name, found, reference=reference, dataset=dataset, config=config, options=options
                    )
                    chosen = replace(options, hint=hint)
                    backend = stack.enter_context(open_backend(name, artifact, chosen))
                    for_files = backend
                    if "files" in config.scopes:
                        sharing = open_backend(name, artifact, replace(chosen, shares_cores=True))
                        for_files = stack.enter_context(sharing)
            except (BackendError, ArtifactError) as error:
                if backends and len(precisions) < 2:
                    raise
                opened.unusable[label] = str(error)
                continue
            ready_s = time.perf_counter() - started_at
            opened.contenders.append(Contender(backend, ready_s=ready_s, for_files=for_files))
    if baselines:
        _add_baselines(opened, answers_to, reference, config, options, stack)
    return opened


def artifact_in(
    precision: str | None,
    backend: str,
    found: "ModelFiles",
    *,
    reference: Path | None,
    dataset: "Dataset",
    config: "BenchConfig",
    options: "BackendOptions",
) -> tuple[Path, str | None]:
    """The file that a backend runs in a precision, exported and built into the cache where needed; and its hint.

    None is the precision of what was found; `reference`: its checkpoint, looked for where it is needed and None.
    Raises BackendError where there is no such thing, ArtifactError.
    """
    from ..core.nvidia.driver import gpu_count
    from .artifacts import artifact_for, built_engine, cached_graph
    from .models import ModelFiles, find_reference, read_card

    own = read_card(found).precision
    largest = max(config.batches)
    if precision in (None, own):
        return artifact_for(backend, found, max_batch=largest), None
    if backend == "torch":
        raise BackendError(f"torch: {precision}: it is the reference here, in fp32 only")
    if found.engine:
        raise ArtifactError(f"{found.engine}: an engine in {own}; for {precision} name the checkpoint")
    checkpoint = find_reference(found, explicit=reference)
    if backend == "openvino" and precision == "bf16":
        return (found.graph if found.graph and own == "fp32" else cached_graph(checkpoint)), "bf16"
    on_cpu = backend == "openvino" or (backend == "onnx" and (options.device == "cpu" or not gpu_count()))
    flavor = "cpu" if on_cpu else "tensorrt"
    if backend == "trt":
        from ..infer.trt.preflight import check_machine

        check_machine()  # before an export that would have been for nothing
    graph = cached_graph(checkpoint, precision=str(precision), int8_flavor=flavor, dataset=dataset)
    if backend == "trt":
        return built_engine(ModelFiles(found.name, graph=graph), max_batch=largest), None
    return graph, None


def _add_baselines(
    opened: Opened,
    answers_to: "Backend",
    reference: Path,
    config: "BenchConfig",
    options: "BackendOptions",
    stack: ExitStack,
) -> None:
    """Eager PyTorch, where it does not take part anyway, torch.compile and the plain loop."""
    import numpy as np

    from ..bench.baselines.inference import BASELINES
    from ..bench.measure.contenders import Contender

    if not any(one.label == "torch" for one in opened.contenders):
        opened.contenders.insert(0, Contender(answers_to, baseline=True))
    for kind in BASELINES:
        started_at = time.perf_counter()
        try:
            backend = stack.enter_context(kind(reference, options))
            backend(np.zeros((config.batches[0], *backend.card.input.shape), np.uint8))  # compiles
        except BackendError as error:
            opened.unusable[kind.name] = str(error)
            continue
        opened.contenders.append(Contender(backend, baseline=True, ready_s=time.perf_counter() - started_at))
