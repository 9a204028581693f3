"""Open the reference of parity on the file that find_reference found."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.library_errors import translated_errors
from .models import GRAPH

if TYPE_CHECKING:
    from ..infer.backend import Backend, BackendOptions


def open_reference(path: Path, options: "BackendOptions") -> "Backend":
    """PyTorch on a checkpoint; an imported graph in ONNX Runtime, on the CPU. Raises what open_backend raises."""
    from ..infer.open_backend import open_backend

    if path.suffix != GRAPH:
        return open_backend("torch", path, options)
    from .graph_reference import GraphReference

    with translated_errors(f"onnx: {path}"):
        return GraphReference(path, options)


def reference_text(path: Path) -> str:
    """What the reference is, in words."""
    return "the imported graph in ONNX Runtime, fp32" if path.suffix == GRAPH else "PyTorch fp32"
