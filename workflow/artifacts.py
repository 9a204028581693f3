"""The file that a backend runs: graphs and engines, exported and built into the cache if they are missing."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..core.artifacts.engine import other_model, read_engine_info
from ..core.artifacts.graph_card import INPUT_NAME
from ..core.errors import ArtifactError, UnknownNameError
from ..core.files import made_by_one
from ..core.library_errors import translated_errors
from ..core.paths import cache_path
from ..core.text import wrapped
from .models import NAME_IT, ModelFiles, file_sha256, find_reference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core.artifacts.checkpoint import Checkpoint
    from ..core.data.datasets import Dataset
    from ..export.config import Int8Flavor
    from ..export.int8.quantize import Int8Exported
    from ..export.to_onnx import Exported

_log = logging.getLogger(__name__)


def export_graph(checkpoint: "Checkpoint", path: Path, *, precision: str = "fp32") -> "Exported":
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
        return onnx_from_checkpoint(checkpoint, path, run_graph=run_graph, precision=precision)


def cached_graph_path(checkpoint: Path, *, suffix: str = "") -> Path:
    """Return the path of the checkpoint's graph in the cache; the graph may not exist yet.

    `suffix`: the part of the file name that stands for the precision; see cached_graph. Raises ArtifactError if there
    is no such checkpoint.
    """
    if not checkpoint.is_file():
        raise ArtifactError(f"{checkpoint}: no such checkpoint")
    return cache_path("graphs", f"{file_sha256(checkpoint)[:32]}{suffix}.onnx")


def cached_graph(
    checkpoint: Path,
    *,
    precision: str = "fp32",
    int8_flavor: str = "cpu",
    dataset: "Dataset | None" = None,
) -> Path:
    """Return the checkpoint's graph in the cache; if it is missing, export it and log that.

    int8 needs a data set, whose training split calibrates it. Raises the errors of onnx_from_checkpoint and
    int8_from_checkpoint.
    """
    calibration = ""
    if precision == "int8" and dataset:
        from ..export.config import Int8Config

        bits = Int8Config(flavor=cast("Int8Flavor", int8_flavor)).bits  # a cache may be shared with other processors
        calibration = f"-{int8_flavor}-{bits}bit-{dataset.name}"
    suffix = "" if precision == "fp32" else f".{precision}{calibration}"
    path = cached_graph_path(checkpoint, suffix=suffix)
    if path.is_file():
        return path
    with made_by_one(path):
        if path.is_file():  # another process has just made it
            return path
        from ..core.artifacts.checkpoint import load_checkpoint

        loaded = load_checkpoint(checkpoint)
        format_text = f"ONNX{f' in {precision}' if suffix else ''}"
        _log.info(wrapped(f"{checkpoint}: exporting to {format_text} into the cache: {path}"))
        if precision == "int8":
            assert dataset is not None
            export_int8_graph(loaded, path, dataset=dataset, flavor=int8_flavor)
        else:
            export_graph(loaded, path, precision=precision)
    return path


def export_int8_graph(checkpoint: "Checkpoint", path: Path, *, dataset: "Dataset", flavor: str) -> "Int8Exported":
    """Calibrate on the data set's training split and export in int8. Raises the errors of int8_from_checkpoint."""
    from ..export.config import Int8Config
    from ..export.int8.calibration import draw_calibration
    from ..export.int8.quantize import int8_from_checkpoint

    config = Int8Config(flavor=cast("Int8Flavor", flavor))  # it checks the name
    calibration = draw_calibration(dataset, checkpoint.card)
    with translated_errors(f"{path}: not written: the export fails"):
        return int8_from_checkpoint(checkpoint, path, calibration=calibration, config=config)


def artifact_for(backend: str, found: ModelFiles, *, max_batch: int = 1, device: str = "auto") -> Path:
    """Return the file that this backend runs; if it is missing, make it in the cache.

    Engines take `max_batch` or more, and are built on the GPU that `device` names.

    Raises ArtifactError if the backend cannot run the files of this model.
    """
    match backend:
        case "torch":
            if found.checkpoint is None:
                return find_reference(found, advice=NAME_IT)
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

    Raises BackendError, before any export or build, if this machine cannot run engines.
    """
    from ..export.config import EngineConfig
    from ..export.trt.build import engine_in_cache
    from ..infer.trt.preflight import check_machine

    gpu, flavor = check_machine(device=device)
    graph = artifact_for("onnx", found)
    largest = max(max_batch, EngineConfig.max_batch)
    built = engine_in_cache(EngineConfig(graph, flavor=flavor.name, max_batch=largest, device=gpu.index))
    origin = "from the cache" if built.cached else f"built in {built.info.build_s:.1f} s"
    _log.info(wrapped(f"{built.path}: {origin}"))
    return built.path
