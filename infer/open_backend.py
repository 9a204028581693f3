"""Open a backend by its name. Each backend is imported only when it is opened."""

from collections.abc import Callable
from pathlib import Path

from ..core.errors import BackendError, UnknownNameError
from ..core.library_errors import cleaned, translated_errors
from .backend import BACKENDS, Backend, BackendOptions

PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino", "trt": "numpy"}
"""The package that each backend imports; trt loads its libraries later."""


def open_backend(name: str, artifact: Path, options: BackendOptions | None = None) -> Backend:
    """Load `artifact` into that backend: a checkpoint for torch, a graph for onnx and openvino, an engine for trt.

    Raises UnknownNameError for an unknown name, ArtifactError for a file of another kind, and BackendError if the
    backend cannot run on this machine.
    """
    with translated_errors(f"{name}: {artifact}"):
        return _backend(name)(artifact, options or BackendOptions())


def _backend(name: str) -> Callable[[Path, BackendOptions], Backend]:
    """Import a backend. Raises BackendError if its library is missing or cannot be loaded."""
    try:
        match name:
            case "torch":
                from .torch_backend import TorchBackend

                return TorchBackend
            case "onnx":
                from .onnx_backend import OnnxBackend

                return OnnxBackend
            case "trt":
                from .trt.backend import TrtBackend

                return TrtBackend
            case "openvino":
                from .openvino_backend import OpenVinoBackend

                return OpenVinoBackend
    except ModuleNotFoundError as error:
        package = (error.name or PACKAGES[name]).partition(".")[0]
        raise BackendError(f"{name}: {package} is not installed: pip install {package}") from error
    except (ImportError, OSError) as error:  # a shared library that is missing or was built for another system
        package = PACKAGES[name]
        raise BackendError(
            f"{name}: {package} cannot be loaded ({cleaned(str(error))}); install it again: "
            f"pip install --force-reinstall {package}"
        ) from error
    raise UnknownNameError("backend", name, BACKENDS)
