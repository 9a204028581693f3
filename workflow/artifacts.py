"""The file that a backend runs: graphs and engines, exported and built into the cache if they are missing."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..core.artifacts.engine import other_model, read_engine_info
from ..core.artifacts.graph_cache import graph_file, graph_problem, record_graph, sound_graph
from ..core.artifacts.graph_card import INPUT_NAME
from ..core.errors import ArtifactError, BackendError, UnknownNameError
from ..core.files import made_by_one
from ..core.library_errors import translated_errors
from ..core.machine import this_machine
from ..core.models.allowed_code import check_allowed
from ..core.models.code_sources import codes_in
from ..core.own_sources import sources_sha256, version_of
from ..core.text import wrapped
from .models import GRAPH, NAME_IT, NO_NETWORK, ModelFiles, check_card, file_sha256, find_reference, named_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core.artifacts.checkpoint import Checkpoint
    from ..core.data.datasets import Dataset
    from ..export.config import Int8Config, Int8Flavor
    from ..export.int8.calibration import Calibration
    from ..export.to_onnx import Exported

_log = logging.getLogger(__name__)

EXPORTER, QUANTISER = ("torch", "onnx", "onnxscript"), ("onnxruntime",)
"""The libraries that make a graph, and those that make it int8."""


def export_graph(
    checkpoint: "Checkpoint", path: Path, *, precision: str = "fp32", opset: int | None = None
) -> "Exported":
    """Export to ONNX in fp32, fp16 or bf16, with ONNX Runtime on the CPU to check the logits.

    Raises the errors of onnx_from_checkpoint.
    """
    from ..export.to_onnx import onnx_from_checkpoint
    from ..infer.backend import BackendOptions
    from ..infer.onnx_backend import open_session

    def run_graph(graph: bytes, images_NHWC: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        session = open_session(graph, BackendOptions(device="cpu"))
        logits_NK: NDArray[np.float32] = session.run(None, {INPUT_NAME: images_NHWC})[0]
        return logits_NK

    with translated_errors(f"{path}: not written: the export fails"):
        return onnx_from_checkpoint(checkpoint, path, run_graph=run_graph, precision=precision, opset=opset)


def graph_parts(checkpoint: Path, *, precision: str = "fp32", int8: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return everything that decides what a checkpoint's graph is, as values of JSON: they are its key in the cache.

    `int8`: see int8_parts. No model and no data set is loaded. Raises ArtifactError if there is no such checkpoint.
    """
    if not checkpoint.is_file():
        raise ArtifactError(f"{checkpoint}: no such checkpoint")
    libraries = (*EXPORTER, *(QUANTISER if precision == "int8" else ()))
    return {
        "checkpoint": file_sha256(checkpoint),
        "precision": precision,
        "rtk": sources_sha256("export", "core"),
        "libraries": {name: version_of(name) for name in libraries},
        **({"int8": int8} if int8 else {}),
    }


def int8_parts(config: "Int8Config", calibration: "Calibration") -> dict[str, Any]:
    """Return what an int8 graph depends on besides its checkpoint, as values of JSON: every field of both, and the CPU.

    Of images, the SHA-256 stands for the pixels.
    """
    drawn = {one.name: getattr(calibration, one.name) for one in fields(calibration)}
    return {
        "config": asdict(config),
        "calibration": {name: _content(value) for name, value in drawn.items()},
        "processor": this_machine().features,
    }


def _content(value: Any) -> Any:
    """A value of JSON as it is; of an array, its type, its shape and the SHA-256 of its bytes."""
    if not hasattr(value, "tobytes"):
        return value
    return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]


def cached_fp32_graph(checkpoint: Path) -> Path | None:
    """Return the checkpoint's fp32 graph if the cache has it and it is undamaged. Loads no model."""
    return sound_graph(graph_parts(checkpoint))


def cached_graph(
    checkpoint: Path,
    *,
    precision: str = "fp32",
    int8_flavor: str = "cpu",
    dataset: "Dataset | None" = None,
) -> Path:
    """Return the checkpoint's graph in the cache; if it is missing or damaged, export it and log that.

    int8 needs a data set, whose training split calibrates it. `checkpoint` may be an imported graph. Raises the errors
    of onnx_from_checkpoint and int8_from_checkpoint.
    """
    if checkpoint.suffix == GRAPH:
        return _cached_from_graph(checkpoint, precision=precision, int8_flavor=int8_flavor, dataset=dataset)
    if precision == "int8":
        from ..core.artifacts.checkpoint import load_checkpoint
        from ..export.config import Int8Config
        from ..export.int8.calibration import draw_calibration

        assert dataset is not None
        config = Int8Config(flavor=cast("Int8Flavor", int8_flavor))  # it checks the name
        loaded = load_checkpoint(checkpoint)
        calibration = draw_calibration(dataset, loaded.card, images=config.calibration_images)
        parts = graph_parts(checkpoint, precision=precision, int8=int8_parts(config, calibration))
        return _made_once(
            checkpoint,
            parts,
            lambda path: _export_int8_graph(loaded, path, calibration=calibration, config=config),
            check=lambda: _check_code(loaded),
        )

    @cache
    def whole() -> "Checkpoint":
        from ..core.artifacts.checkpoint import load_checkpoint

        return load_checkpoint(checkpoint)

    def export(path: Path) -> None:
        export_graph(whole(), path, precision=precision)

    parts = graph_parts(checkpoint, precision=precision)
    return _made_once(checkpoint, parts, export, check=lambda: _check_code(whole()))


def _check_code(checkpoint: "Checkpoint") -> None:
    """Raises ArtifactError if its network needs code that was not allowed."""
    for code in codes_in(checkpoint.card.arch):
        check_allowed(code)


def _cached_from_graph(graph: Path, *, precision: str, int8_flavor: str, dataset: "Dataset | None" = None) -> Path:
    """An imported graph in a precision, from the cache or made."""
    from ..export.config import Int8Config

    if precision == "fp32":
        return graph
    if precision != "int8":
        parts = graph_parts(graph, precision=precision)
        return _made_once(graph, parts, lambda path: _convert(graph, path, precision=precision))
    from ..core.artifacts.graph import load_graph
    from ..export.int8.calibration import draw_calibration

    assert dataset is not None
    config = Int8Config(flavor=cast("Int8Flavor", int8_flavor))  # it checks the name
    calibration = draw_calibration(dataset, load_graph(graph)[1], images=config.calibration_images)
    parts = graph_parts(graph, precision=precision, int8=int8_parts(config, calibration))
    return _made_once(graph, parts, lambda path: _quantise(graph, path, calibration=calibration, config=config))


def _convert(graph: Path, path: Path, *, precision: str) -> None:
    from ..export.convert_graph import converted_from_graph

    with translated_errors(f"{path}: not written: the conversion fails"):
        converted_from_graph(graph, path, precision=precision)


def _quantise(graph: Path, path: Path, *, calibration: "Calibration", config: "Int8Config") -> None:
    from ..export.int8.quantize import int8_from_graph

    with translated_errors(f"{path}: not written: the conversion fails"):
        int8_from_graph(graph, path, calibration=calibration, config=config)


def _made_once(
    checkpoint: Path,
    parts: Mapping[str, Any],
    export: Callable[[Path], None],
    *,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """Return the graph of these parts in the cache; `export` writes it there if it is missing or damaged.

    `check` raises what prevents the export, before the export is announced.
    """
    found = sound_graph(parts)
    if found is not None:
        return found
    path = graph_file(parts)
    with made_by_one(path):
        if path.is_file():
            problem = graph_problem(path)
            if not problem:  # another process has just made it
                return path
            _log.warning(wrapped(f"{path}: {problem}; it is not used, and made again"))
        check()
        format_text = "ONNX" if parts["precision"] == "fp32" else f"ONNX in {parts['precision']}"
        _log.info(wrapped(f"{checkpoint}: exporting to {format_text} into the cache: {path}"))
        export(path)
        record_graph(path, parts)
    return path


def _export_int8_graph(
    checkpoint: "Checkpoint", path: Path, *, calibration: "Calibration", config: "Int8Config"
) -> None:
    from ..export.int8.quantize import int8_from_checkpoint

    with translated_errors(f"{path}: not written: the export fails"):
        int8_from_checkpoint(checkpoint, path, calibration=calibration, config=config)


def artifact_for(backend: str, found: ModelFiles, *, max_batch: int = 1, device: str = "auto") -> Path:
    """Return the file that this backend runs; if it is missing, make it in the cache.

    Engines take `max_batch` or more, and are built on the GPU that `device` names.

    Raises ArtifactError if the backend cannot run the files of this model.
    """
    match backend:
        case "torch":
            if found.card.from_graph:
                raise BackendError(NO_NETWORK)
            if found.checkpoint is None:
                checkpoint = find_reference(found, advice=NAME_IT)
                _log.info(wrapped(f"{found.given}: torch runs its checkpoint instead: {named_file(checkpoint)}"))
                return checkpoint
            return found.checkpoint
        case "onnx" | "openvino":
            if found.graph:
                return found.graph
            if found.checkpoint:
                return cached_graph(found.checkpoint)
            raise ArtifactError(
                f"{found.given}: an engine; the {backend} backend runs checkpoints and graphs: "
                f"{other_model(found.given, read_engine_info(found.given))}"
            )
        case "trt":
            return found.engine or built_engine(found, max_batch=max_batch, device=device)
    from ..infer.backend import BACKENDS

    raise UnknownNameError("backend", backend, BACKENDS)


def built_engine(found: ModelFiles, *, max_batch: int, device: str = "auto") -> Path:
    """Return an engine for the GPU that `device` names, from the cache or built into it, and log which.

    Raises BackendError, before any export or build, if this machine cannot run engines; ArtifactError for a graph
    whose card contradicts its checkpoint.
    """
    from ..export.config import EngineConfig
    from ..export.trt.build import engine_in_cache
    from ..infer.trt.preflight import check_machine

    gpu, flavor = check_machine(device=device)
    check_card(found)
    graph = artifact_for("onnx", found)
    largest = max(max_batch, EngineConfig.max_batch)
    built = engine_in_cache(EngineConfig(graph, flavor=flavor.name, max_batch=largest, device=gpu.index))
    origin = "from the cache" if built.cached else f"built in {built.info.build_s:.1f} s"
    _log.info(wrapped(f"{built.path}: {origin}"))
    return built.path
