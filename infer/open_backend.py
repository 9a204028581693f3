"""Open a backend by its name. Each backend is imported only when it is opened."""

from importlib.util import find_spec
from pathlib import Path

from ..core.errors import BackendError, UnknownNameError
from ..core.library_errors import translated_errors
from .backend import BACKENDS, Backend, BackendOptions


def open_backend(name: str, artifact: Path, options: BackendOptions | None = None) -> Backend:
    """Load `artifact` into that backend: a checkpoint for torch, a graph for onnx and openvino, an engine for trt.

    Raises UnknownNameError for an unknown name, ArtifactError for a file of another kind, and BackendError if the
    backend cannot run on this machine.
    """
    with translated_errors(f"{name}: {artifact}"):
        return _opened(name, artifact, options or BackendOptions())


def _opened(name: str, artifact: Path, options: BackendOptions) -> Backend:
    match name:
        case "torch":
            from .torch_backend import TorchBackend

            return TorchBackend(artifact, options)
        case "onnx":
            from .onnx_backend import OnnxBackend

            return OnnxBackend(artifact, options)
        case "trt":
            from .trt.backend import TrtBackend

            return TrtBackend(artifact, options)
        case "openvino":
            if find_spec("openvino") is None:
                raise BackendError("openvino is not installed: pip install openvino")
            from .openvino_backend import OpenVinoBackend

            return OpenVinoBackend(artifact, options)
    raise UnknownNameError("backend", name, BACKENDS)
