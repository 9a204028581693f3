"""Choose the best backend for a model on this machine, and open the model on it."""

import contextlib
from typing import TYPE_CHECKING

from ..core.artifacts.parity_cache import parity_is_known
from ..core.errors import RtkError
from ..core.nvidia.driver import gpu_count
from .artifacts import artifact_for, cached_graph_path
from .models import ModelFiles, find_model

if TYPE_CHECKING:
    from ..infer.backend import Backend, BackendOptions


def choose_backend(found: ModelFiles, *, on_cpu: bool = False) -> str:
    """Return the best backend for a model on this machine: trt if it can run, else openvino or onnx.

    openvino is chosen only if this graph has shown parity on it on this machine.
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


def open_model(name: str, *, backend: str = "auto", options: "BackendOptions | None" = None) -> "Backend":
    """Open a model by its name on a backend. Raises the errors of find_model, artifact_for and open_backend."""
    from ..infer.open_backend import open_backend

    found = find_model(name)
    on_cpu = options is not None and options.device == "cpu"
    chosen = choose_backend(found, on_cpu=on_cpu) if backend == "auto" else backend
    return open_backend(chosen, artifact_for(chosen, found), options)
