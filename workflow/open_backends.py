"""The contenders of rtk bench: every backend in every precision, exported and opened, and the baselines."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ArtifactError, BackendError, UnknownNameError, noted
from ..core.library_errors import reason_of, translated_errors
from ..core.models.code_sources import codes_in
from ..core.text import wrapped
from ..core.tolerances import precision_named

if TYPE_CHECKING:
    from ..bench.config import BenchConfig
    from ..bench.measure.contenders import Contender
    from ..core.card import ModelCard
    from ..core.data.datasets import Dataset
    from ..infer.backend import Backend, BackendOptions
    from .models import ModelFiles

_log = logging.getLogger(__name__)


class BenchModel:
    """The model of a benchmark. Its card, its checkpoint and its graphs are looked up once and then kept."""

    def __init__(self, found: "ModelFiles", *, reference: Path | None = None, force: bool | None = None) -> None:
        """`reference`: the checkpoint that the user named; None: the model's own. `force`: see find_reference.

        Raises ArtifactError if the named one is not the model's.
        """
        if reference is not None:
            from .models import find_reference

            find_reference(found, explicit=reference, force=force)
        self.found, self._reference = found, reference
        self._graphs: dict[tuple[str, str], Path] = {}

    @cached_property
    def card(self) -> "ModelCard":
        """The card of the files that were found."""
        from .models import read_card

        return read_card(self.found)

    @cached_property
    def checkpoint(self) -> Path:
        """The reference's checkpoint. Raises ArtifactError if it is missing."""
        from .models import find_reference

        return self._reference or find_reference(self.found)

    @cached_property
    def reference_is_own(self) -> bool:
        """Whether the reference is the model's own checkpoint: always, except with `force`."""
        from .models import is_checkpoint

        return self._reference is None or is_checkpoint(self._reference, self.card.checkpoint_sha256)

    @cached_property
    def own_checkpoint(self) -> Path:
        """The checkpoint that was named, or that the named file was exported from. Raises ArtifactError."""
        from .models import NAME_IT, find_reference

        return self.checkpoint if self.reference_is_own else find_reference(self.found, advice=NAME_IT)

    @cached_property
    def own_graph(self) -> Path:
        """The graph that was found, or that of the checkpoint that was found. Raises ArtifactError for an engine."""
        from .artifacts import artifact_for

        self._graphs[self.card.precision, ""] = graph = artifact_for("onnx", self.found)
        return graph

    @cached_property
    def fp32_graph(self) -> Path:
        """The fp32 graph of the model's own checkpoint. Raises ArtifactError."""
        from .artifacts import artifact_for
        from .models import find_model

        if self.found.checkpoint:
            return self.own_graph
        graph = artifact_for("onnx", find_model(str(self.own_checkpoint)))
        return self._another_graph("fp32", "", graph)

    def graph_in(self, precision: str, *, flavor: str, dataset: "Dataset | None") -> Path:
        """The checkpoint's graph in another precision, from the cache or exported. Raises ArtifactError."""
        from .artifacts import cached_graph

        flavor = flavor if precision == "int8" else ""
        if (precision, flavor) in self._graphs:
            return self._graphs[precision, flavor]
        if precision == "int8" and dataset is None:
            raise ArtifactError("int8: needs images to calibrate with; name a data set: --dataset NAME|DIR")
        graph = cached_graph(self.own_checkpoint, precision=precision, int8_flavor=flavor, dataset=dataset)
        return self._another_graph(precision, flavor, graph)

    def _another_graph(self, precision: str, flavor: str, graph: Path) -> Path:
        """Keep the graph, and log it if the user named another graph or an engine."""
        from .models import named_file

        self._graphs[precision, flavor] = graph
        if not self.found.checkpoint:
            what = f"{self.found.given}: is in {self.card.precision}"
            _log.info(wrapped(f"{what}; in {precision} its checkpoint's graph is used instead: {named_file(graph)}"))
        return graph

    def counted_graph(self) -> tuple[Path | None, str]:
        """The graph whose operations are counted for the ceiling, or why no graph can be counted; exports nothing."""
        from .artifacts import cached_fp32_graph

        if self.found.graph:
            return self.found.graph, ""
        if self.found.engine:
            return None, "the operations of an engine cannot be counted; to get one name its graph"
        assert self.found.checkpoint is not None
        in_use = (self._graphs[key] for key in sorted(self._graphs, key=lambda key: key[0] != self.card.precision))
        graph = next(in_use, None) or cached_fp32_graph(self.found.checkpoint)
        return (
            graph,
            "" if graph else "no backend ran a graph whose operations could be counted, and the cache has none",
        )


def check_names(backends: Sequence[str], precisions: Sequence[str]) -> None:
    """Raise UnknownNameError for a name of a backend or a precision that does not exist."""
    from ..infer.backend import BACKENDS

    for name in backends:
        if name not in BACKENDS:
            raise UnknownNameError("backend", name, BACKENDS)
    for name in precisions:
        precision_named(name)


@dataclass
class Opened:
    """The contenders, and why others cannot run."""

    contenders: "list[Contender]" = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)


def open_contenders(
    model: BenchModel,
    reference: "Backend | None",
    *,
    backends: Sequence[str],
    precisions: Sequence[str],
    baselines: bool,
    config: "BenchConfig",
    options: "BackendOptions",
    dataset: "Dataset | None",
    stack: ExitStack,
) -> Opened:
    """Open every backend in every precision; `stack` closes them.

    `backends` and `precisions` are those that the user named, and passed `check_names`; empty: all backends, the
    model's precision. A named backend that cannot run is an error, unless several precisions were named: then it is
    noted as unusable, like every backend that the user did not name. Raises BackendError, ArtifactError.

    `reference` None: the model has no checkpoint here, so torch and the baselines cannot run. `dataset` None: int8 has
    no images to calibrate with.
    """
    from ..infer.backend import BACKENDS

    opened = Opened()
    for precision in precisions or (None,):
        for name in backends or BACKENDS:
            label = name if precision in (None, "fp32") else f"{name} {precision}"
            try:
                with translated_errors(label):
                    contender = _open_contender(
                        name, precision, model, reference, config=config, options=options, dataset=dataset, stack=stack
                    )
            except (BackendError, ArtifactError) as error:
                if backends and len(precisions) < 2:
                    raise
                opened.unusable[label] = noted(error)
            else:
                opened.contenders.append(contender)
    _add_rounded_graphs(opened, options, stack)
    if baselines and reference is not None and not model.card.from_graph:
        _add_baselines(opened, reference, model.checkpoint, config, options, stack)
    return opened


def _open_contender(
    name: str,
    precision: str | None,
    model: BenchModel,
    reference: "Backend | None",
    *,
    config: "BenchConfig",
    options: "BackendOptions",
    dataset: "Dataset | None",
    stack: ExitStack,
) -> "Contender":
    from ..bench.measure.contenders import Contender, RanFile
    from ..infer.open_backend import open_backend

    started_at = time.perf_counter()
    if (
        name == "torch"
        and reference is not None
        and not model.card.from_graph
        and model.reference_is_own
        and precision in (None, "fp32")
    ):
        backend, for_files, file = reference, reference, RanFile.of(model.checkpoint)
    else:
        artifact, hint = artifact_and_hint(
            name, precision, model, dataset=dataset, max_batch=max(config.batches), options=options
        )
        hinted, file = replace(options, hint=hint), RanFile.of(artifact)
        backend = for_files = stack.enter_context(open_backend(name, artifact, hinted))
        if "files" in config.scopes:
            for_files = stack.enter_context(open_backend(name, artifact, replace(hinted, shares_cores=True)))
    return Contender(backend, ready_s=time.perf_counter() - started_at, for_files=for_files, file=file)


def artifact_and_hint(
    backend: str,
    precision: str | None,
    model: BenchModel,
    *,
    dataset: "Dataset | None",
    max_batch: int,
    options: "BackendOptions",
) -> tuple[Path, str | None]:
    """The file that a backend runs in a precision, and the backend's precision hint, if it needs one.

    A missing file is exported and built into the cache. `precision` None: the model's own. Raises BackendError for a
    combination that does not exist, ArtifactError.
    """
    from .artifacts import artifact_for

    found, own = model.found, model.card.precision
    if backend == "torch":
        if model.card.from_graph:
            from .models import NO_NETWORK

            raise BackendError(NO_NETWORK)
        if precision not in (None, "fp32"):
            raise BackendError("torch: it is the reference here, so it runs in fp32 only")
        return model.own_checkpoint, None
    if precision in (None, own):
        if backend in ("onnx", "openvino"):
            return model.own_graph, None
        if backend == "trt" and not found.engine:
            return _engine_of(model, None, dataset=dataset, max_batch=max_batch, device=options.device), None
        return artifact_for(backend, found, max_batch=max_batch, device=options.device), None
    assert precision is not None
    if found.engine:
        raise ArtifactError(f"{found.engine}: an engine in {own}; for {precision} name its checkpoint instead of it")
    if backend == "trt":
        return _engine_of(model, precision, dataset=dataset, max_batch=max_batch, device=options.device), None
    if backend == "openvino" and precision == "bf16":
        return (found.graph if found.graph and own == "fp32" else model.fp32_graph), "bf16"
    return model.graph_in(precision, flavor=_int8_flavor(backend, options), dataset=dataset), None


def _engine_of(
    model: BenchModel, precision: str | None, *, dataset: "Dataset | None", max_batch: int, device: str
) -> Path:
    """An engine in the model's own or another precision. Raises BackendError before any export if none could run."""
    from ..infer.trt.preflight import check_machine
    from .artifacts import built_engine
    from .models import ModelFiles

    check_machine(device=device)
    graph = model.own_graph if precision is None else model.graph_in(precision, flavor="tensorrt", dataset=dataset)
    return built_engine(ModelFiles(model.found.name, graph=graph), max_batch=max_batch, device=device)


def _add_rounded_graphs(opened: Opened, options: "BackendOptions", stack: ExitStack) -> None:
    """Add each fp16 and bf16 graph that a contender runs, rounded after every layer: it is judged and not timed."""
    from ..bench.measure.contenders import Contender
    from ..export.reduced_precision import HALVES
    from .rounded_graph import NAME, open_rounded

    graphs = {
        one.file.path: (one.file, one.backend.card.precision)
        for one in opened.contenders
        if one.file and one.backend.name in ("onnx", "openvino") and one.backend.card.precision in HALVES
    }
    for file, precision in graphs.values():
        label = f"{NAME} {precision}"
        try:
            with translated_errors(label):
                backend = open_rounded(Path(file.path), stack, device=options.device)
        except (BackendError, ArtifactError) as error:
            opened.unusable[label] = noted(error)
        else:
            assert backend is not None  # it is in one of HALVES
            opened.contenders.append(Contender(backend, timed=False, file=file))


def _int8_flavor(backend: str, options: "BackendOptions") -> str:
    from ..core.nvidia.driver import gpu_count

    if backend == "openvino":
        return "openvino"
    on_cpu = options.device == "cpu" or not gpu_count()
    return "cpu" if on_cpu else "tensorrt"


def _add_baselines(
    opened: Opened,
    reference: "Backend",
    checkpoint: Path,
    config: "BenchConfig",
    options: "BackendOptions",
    stack: ExitStack,
) -> None:
    """Add eager PyTorch unless it is a contender already, torch.compile and the plain loop."""
    import numpy as np

    from ..bench.baselines.inference import BASELINES
    from ..bench.measure.contenders import Contender, RanFile

    file = RanFile.of(checkpoint)
    if not any(one.label == "torch" for one in opened.contenders):
        opened.contenders.insert(0, Contender(reference, baseline=True, file=file))
    for kind in BASELINES:
        started_at = time.perf_counter()
        try:
            with translated_errors(kind.name):
                backend = stack.enter_context(kind(checkpoint, options))
            backend(np.zeros((config.batches[0], *backend.card.input.shape), np.uint8))  # compiles
        except BackendError as error:
            opened.unusable[kind.name] = noted(error)
            continue
        except Exception as error:  # a compiler may raise anything about code that it was not made for
            if not codes_in(reference.card.arch):
                raise
            failure = BackendError(f"{kind.name}: {type(error).__name__}: {reason_of(error)}")
            failure.__cause__ = error  # for --debug
            opened.unusable[kind.name] = noted(failure)
            continue
        ready_s = time.perf_counter() - started_at
        opened.contenders.append(Contender(backend, baseline=True, ready_s=ready_s, file=file))
