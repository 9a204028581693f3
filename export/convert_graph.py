"""Write an imported graph in fp16 or bf16, after a comparison of its logits with those in fp32."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ..core.artifacts.graph import load_graph, set_card
from ..core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ..core.errors import ArtifactError
from ..core.files import write_whole
from ..core.machine import this_machine
from ..core.probe import probe_images
from .half_graph import half_graph
from .reduced_precision import CHECKED, HALVES, UNCHECKED, rounded_after_every_layer
from .to_onnx import PROBE_IMAGES, Exported, check_closeness

OF = "the imported graph's logits"


def converted_from_graph(source: Path, path: Path, *, precision: str) -> Exported:
    """Write an imported fp32 graph in fp16 or bf16.

    Its logits are computed in fp32 arithmetic with the result of every operator rounded, as those of rtk's own graphs
    are. Raises ArtifactError, and writes no file, if an operator or the logits do not allow it.
    """
    graph, card = load_graph(source)
    images_NHWC = probe_images(PROBE_IMAGES, card.input)
    try:
        converted = half_graph(graph, HALVES[precision], precision=precision)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: not written: {error}") from error
    logits_NK = logits_of(rounded_after_every_layer(converted, HALVES[precision]), images_NHWC)
    largest, relative = check_closeness(logits_NK, logits_of(graph, images_NHWC), precision, path, of=OF)
    note = {
        "opset": converted.opset_import[0].version,
        "images": len(images_NHWC),
        "largest_logit_difference": largest,
        "relative_logit_error": relative,
        "checked": CHECKED.format(precision=precision),
        "unchecked": UNCHECKED.format(precision=precision),
        "libraries": this_machine().libraries,
    }
    set_card(converted, replace(card, precision=precision, notes={**card.notes, "export": note}))
    write_whole(path, converted.SerializeToString())
    return Exported(path, largest, relative)


def logits_of(graph: onnx.ModelProto, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits of a graph in ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits_NK: NDArray[np.float32] = session.run([OUTPUT_NAME], {INPUT_NAME: images_NHWC})[0]
    return logits_NK
