"""The rooms put together: from what a user names to a backend that is open. Commands and the Python API use this.

Rooms do not import each other, so what needs several of them is composed here; each is imported where it is needed.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.artifacts.engine import read_engine_info
from ..core.artifacts.graph_card import INPUT_NAME
from ..core.artifacts.parity_cache import parity_is_known
from ..core.card import ModelCard
from ..core.errors import ArtifactError, RtkError, UnknownNameError
from ..core.files import make_folder, sha256_of
from ..core.nvidia.driver import gpu_count
from ..core.paths import cache_dir
from ..core.zoo import zoo_card, zoo_file, zoo_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core.artifacts.checkpoint import Checkpoint
    from ..core.data.datasets import Dataset
    from ..export.int8.quantize import Int8Exported
    from ..export.to_onnx import Exported
    from ..infer.backend import Backend, BackendOptions

Say = Callable[[str], None]
KINDS = {".pt": "checkpoint", ".onnx": "graph", ".engine": "engine"}


@dataclass(frozen=True)
class Found:
    """The files behind a model's name; those that are not there are None."""

    name: str
    checkpoint: Path | None = None
    graph: Path | None = None
    engine: Path | None = None

    @property
    def in_zoo(self) -> bool:
        """Whether it is a model of the zoo, by its name."""
        return self.checkpoint == zoo_file(self.name, ".pt")

    @property
    def given(self) -> Path:
        """The file that was named; for a model of the zoo, its checkpoint."""
        path = self.checkpoint or self.graph or self.engine
        assert path is not None
        return path


def find_model(name: str) -> Found:
    """A file of rtk's, by path, or a model of the zoo, by name.

    Raises ArtifactError for a missing file or another kind of file, UnknownNameError for a name of nothing.
    """
    path = Path(name)
    in_zoo = path.stem if path == zoo_file(path.stem, ".pt") else name
    if in_zoo in zoo_names():
        return Found(in_zoo, checkpoint=zoo_file(in_zoo, ".pt"), graph=zoo_file(in_zoo, ".onnx"))
    if path.suffix in KINDS:
        if not path.is_file():
            raise ArtifactError(f"{path}: no such {KINDS[path.suffix]}")
        return Found(path.stem, **{KINDS[path.suffix]: path})
    if path.exists():
        raise ArtifactError(f"{path}: not a model; expected a checkpoint (.pt), a graph (.onnx) or an engine (.engine)")
    raise UnknownNameError("model", name, zoo_names(), hint=f"expected a file, or one of: {', '.join(zoo_names())}")


def read_card(found: Found) -> ModelCard:
    """The card of whatever was found; a checkpoint's needs torch, a graph's needs onnx."""
    if found.in_zoo:
        return zoo_card(found.name)
    if found.checkpoint:
        from ..core.artifacts.checkpoint import load_checkpoint

        return load_checkpoint(found.checkpoint).card
    if found.graph:
        from ..core.artifacts.graph import load_graph

        return load_graph(found.graph)[1]
    return read_engine_info(found.given).card


def export_graph(checkpoint: "Checkpoint", path: Path, *, precision: str = "fp32") -> "Exported":
    """Export to ONNX in fp32, fp16 or bf16 and prove it with ONNX Runtime on the CPU.

    Raises as onnx_from_checkpoint does.
    """
    from ..export.to_onnx import onnx_from_checkpoint
    from ..infer.backend import BackendOptions
    from ..infer.onnx_backend import open_session

    def run_graph(graph: bytes, images_NHWC: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        session = open_session(graph, BackendOptions(device="cpu"))
        logits_NK: NDArray[np.float32] = session.run(None, {INPUT_NAME: images_NHWC})[0]
        return logits_NK

    return onnx_from_checkpoint(checkpoint, path, run_graph=run_graph, precision=precision)


def cached_graph_path(checkpoint: Path, *, suffix: str = "") -> Path:
    """Where the checkpoint's graph is kept, if it is. Raises ArtifactError when there is no such checkpoint.

    `suffix`: of another precision than fp32, as cached_graph has it.
    """
    if not checkpoint.is_file():
        raise ArtifactError(f"{checkpoint}: no such checkpoint")
    return cache_dir() / "graphs" / f"{sha256_of(checkpoint)[:32]}{suffix}.onnx"


def cached_graph(
    checkpoint: Path,
    *,
    say: Say,
    precision: str = "fp32",
    int8_flavor: str = "cpu",
    dataset: "Dataset | None" = None,
) -> Path:
    """The checkpoint's graph in the cache; exported when it is not there yet, which `say` is told.

    int8 needs the data set whose training split it is calibrated on. Raises as onnx_from_checkpoint does.
    """
    calibrated = f"-{int8_flavor}-{dataset.name}" if precision == "int8" and dataset else ""
    suffix = "" if precision == "fp32" else f".{precision}{calibrated}"
    path = cached_graph_path(checkpoint, suffix=suffix)
    if not path.is_file():
        from ..core.artifacts.checkpoint import load_checkpoint

        loaded = load_checkpoint(checkpoint)
        make_folder(path.parent)
        say(f"{checkpoint}: exporting to ONNX{f' in {precision}' if suffix else ''} into the cache: {path}")
        if precision == "int8":
            assert dataset is not None
            export_int8_graph(loaded, path, dataset=dataset, flavor=int8_flavor)
        else:
            export_graph(loaded, path, precision=precision)
    return path


def export_int8_graph(checkpoint: "Checkpoint", path: Path, *, dataset: "Dataset", flavor: str) -> "Int8Exported":
    """Calibrate on the data set's training split and export in int8. Raises as int8_from_checkpoint does."""
    from ..export.int8.calibration import draw_calibration
    from ..export.int8.quantize import Int8Config, int8_flavor_named, int8_from_checkpoint

    config = Int8Config(flavor=int8_flavor_named(flavor))
    return int8_from_checkpoint(checkpoint, path, calibration=draw_calibration(dataset, checkpoint.card), config=config)


def find_reference(found: Found, *, explicit: Path | None = None) -> Path:
    """The checkpoint that a model answers to: itself, or looked up by its sha256 beside the file, then in the zoo.

    Raises ArtifactError when there is none, or when `explicit` has another sha256 than the card says.
    """
    if explicit is not None:
        if not explicit.is_file():
            raise ArtifactError(f"{explicit}: no such checkpoint")
        return explicit
    if found.checkpoint:
        return found.checkpoint
    wanted = read_card(found).checkpoint_sha256
    beside = sorted(found.given.parent.glob("*.pt"))
    for path in (*beside, *(zoo_file(name, ".pt") for name in zoo_names())):
        if path.is_file() and sha256_of(path) == wanted:
            return path
    raise ArtifactError(
        f"{found.given}: its checkpoint (sha256 {wanted[:12]}...) is neither beside it nor in the zoo; "
        "name it with --reference FILE"
    )


def artifact_for(backend: str, found: Found, *, say: Say, max_batch: int = 1) -> Path:
    """The file that this backend runs, made in the cache where it is not there; an engine for at least `max_batch`.

    Raises ArtifactError when the backend cannot run what was found.
    """
    match backend:
        case "torch":
            if found.checkpoint is None:
                return find_reference(found)
            return found.checkpoint
        case "onnx" | "openvino":
            if found.graph:
                return found.graph
            if found.checkpoint:
                return cached_graph(found.checkpoint, say=say)
            raise ArtifactError(f"{found.given}: an engine; the {backend} backend runs checkpoints and graphs")
        case "trt":
            return found.engine or built_engine(found, max_batch=max_batch, say=say)
    from ..infer.backend import BACKENDS

    raise UnknownNameError("backend", backend, BACKENDS)


def built_engine(found: Found, *, max_batch: int, say: Say) -> Path:
    """An engine for this machine, from the cache or built into it, which `say` is told.

    Raises BackendError, before anything is exported or built, when no engine could run here.
    """
    from ..export.config import EngineConfig
    from ..export.trt.build import engine_from_onnx
    from ..infer.trt.preflight import check_machine

    _, flavor = check_machine()
    graph = artifact_for("onnx", found, say=say)
    largest = max(max_batch, EngineConfig.max_batch)
    folder = cache_dir() / "opened" / f"{sha256_of(graph)[:32]}-{largest}"
    config = EngineConfig(graph, out=folder, flavor=flavor.name, max_batch=largest)
    built = engine_from_onnx(config)
    say(f"{built.path}: {'from the cache' if built.cached else f'built in {built.info.build_s:.1f} s'}")
    return built.path


def choose_backend(found: Found, *, on_cpu: bool = False) -> str:
    """The best backend that can run this here: trt where it can, else the faster of those for CPUs that may be trusted.

    That is openvino where this very graph has shown parity on it, here; else onnx.
    """
    from ..infer.trt.preflight import check_machine

    if found.engine:
        return "trt"
    if not on_cpu:
        with contextlib.suppress(RtkError):
            check_machine()
            return "trt"
    graph = found.graph or (cached_graph_path(found.checkpoint) if found.checkpoint else None)
    gpu_for_onnx = not on_cpu and gpu_count() > 0
    if graph and graph.is_file() and not gpu_for_onnx and parity_is_known(graph, "openvino"):
        return "openvino"
    return "onnx"


def open_model(
    name: str, *, backend: str = "auto", options: "BackendOptions | None" = None, say: Say = print
) -> "Backend":
    """Open a model by name on a backend. Raises as find_model, artifact_for and open_backend do."""
    from ..infer.backend import open_backend

    found = find_model(name)
    on_cpu = options is not None and options.device == "cpu"
    chosen = choose_backend(found, on_cpu=on_cpu) if backend == "auto" else backend
    return open_backend(chosen, artifact_for(chosen, found, say=say), options)
