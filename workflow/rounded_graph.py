"""A graph in fp16 or bf16, run in fp32 arithmetic with the result of every layer rounded: the same on every processor.

Some processors compute in 16 bits, others compute the same graph in fp32 and so hide, for example, an overflow of fp16.
"""

from contextlib import ExitStack
from pathlib import Path

from ..core.files import temporary_folder, write_whole
from ..infer.backend import Backend, BackendOptions
from ..infer.open_backend import open_backend

NAME = "rounded"
"""The name of its backend in tables and verdicts."""


def open_rounded(graph: Path, stack: ExitStack, *, device: str = "cpu") -> Backend | None:
    """Open the rounded copy of a graph on ONNX Runtime; `stack` closes it. None for a graph in fp32 or int8.

    Raises ArtifactError or BackendError.
    """
    from ..core.artifacts.graph import load_graph
    from ..export.reduced_precision import CHECKED, HALVES, rounded_after_every_layer

    loaded, card = load_graph(graph)
    if card.precision not in HALVES:
        return None
    rounded = stack.enter_context(temporary_folder(None)) / graph.name
    write_whole(rounded, rounded_after_every_layer(loaded, HALVES[card.precision]).SerializeToString())
    backend = stack.enter_context(open_backend("onnx", rounded, BackendOptions(device=device)))
    backend.name = NAME
    backend.runs_on = f"{backend.runs_on}: {CHECKED.format(precision=card.precision)}"
    return backend
