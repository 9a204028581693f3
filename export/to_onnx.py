"""From a checkpoint to a graph that proves itself before it is written.

The graph takes uint8 `images` [N, H, W, C] and returns float32 `logits` [N, K]; only N is dynamic. Preprocessing is in
it, batch norm is folded, the card is in its metadata.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ..core.checkpoint import Checkpoint
from ..core.errors import ArtifactError
from ..core.files import write_whole
from ..core.graph import set_card
from ..core.graph_card import INPUT_NAME, OUTPUT_NAME
from ..core.machine import this_machine
from ..core.models.model import Model
from ..core.probe import probe_images
from .fold import folded

OPSET = 20
EQUAL_LOGITS = 1e-4
"""Largest absolute difference at which two fp32 logits are called equal."""
RELATIVE = 1e-6
"""The same as a share of the largest logit; counts where logits are in the hundreds, as in untrained deep networks."""
PROBE_IMAGES = 48

RunGraph = Callable[[bytes, NDArray[np.uint8]], NDArray[np.float32]]
"""Runs a serialised graph on images N x H x W x C and returns logits N x K; comes from the room that can do it."""


@dataclass(frozen=True)
class Exported:
    """A graph on disk, and how far its answers were from the reference's."""

    path: Path
    largest_difference: float


def onnx_from_checkpoint(checkpoint: Checkpoint, path: Path, *, run_graph: RunGraph) -> Exported:
    """Write the checkpoint as a graph, after it passed ONNX's checker and `run_graph` gave the reference's logits.

    Raises ArtifactError, and leaves no file, when it does not; OutputError when `path` cannot be written.
    """
    model = checkpoint.model()
    images_NHWC = probe_images(PROBE_IMAGES, checkpoint.card.input)
    graph = _traced(folded(model), images_NHWC)
    onnx.checker.check_model(graph, full_check=True)
    with torch.inference_mode():
        reference_NK = model(torch.from_numpy(images_NHWC)).numpy()
    logits_NK = run_graph(graph.SerializeToString(), images_NHWC)
    largest = float(np.abs(logits_NK - reference_NK).max())
    allowed = max(EQUAL_LOGITS, RELATIVE * float(np.abs(reference_NK).max()))
    if not largest <= allowed:
        raise ArtifactError(
            f"{path}: not written: its logits differ from PyTorch's by up to {largest:.2g}, "
            f"expected at most {allowed:.2g}"
        )
    check = {"images": len(images_NHWC), "largest_logit_difference": largest, "libraries": this_machine().libraries}
    set_card(graph, replace(checkpoint.card, precision="fp32", notes={**checkpoint.card.notes, "export": check}))
    write_whole(path, graph.SerializeToString())
    return Exported(path, largest)


def _traced(model: Model, images_NHWC: NDArray[np.uint8]) -> onnx.ModelProto:
    """The model as ONNX, without what tracing leaves of this machine's paths."""
    with _quiet():
        program = torch.onnx.export(
            model,
            (torch.from_numpy(images_NHWC[:2]),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    graph.producer_name, graph.producer_version, graph.doc_string = "rtk", "", ""
    graph.graph.doc_string, graph.graph.name = "", "rtk"
    del graph.metadata_props[:], graph.graph.metadata_props[:]
    for node in graph.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter and its warnings about its own insides off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
