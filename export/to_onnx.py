"""Export a checkpoint to an ONNX graph whose logits are compared with PyTorch's before the file is written.

The graph takes uint8 `images` [N, H, W, C] and returns float32 `logits` [N, K]; only N is dynamic. It contains the
preprocessing, batch norm is folded into the convolutions, and its metadata hold the card.
"""

import contextlib
import copy
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
from torch import nn
from torch.export import ExportedProgram
from torch.nn.utils import fuse_conv_bn_eval

from ..core.artifacts.checkpoint import Checkpoint
from ..core.artifacts.graph import set_card
from ..core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ..core.errors import ArtifactError, UsageError
from ..core.files import write_whole
from ..core.machine import this_machine
from ..core.models.model import Model, exact_logits
from ..core.models.own_code import has_other_code
from ..core.probe import probe_images
from ..core.tolerances import differences, largest_share, precision_named, rounding_limit
from .half_graph import in_half
from .opset import IR_VERSIONS, opset_of
from .own_code_graph import Marked, traced_program, without_mark
from .reduced_precision import CHECKED, HALVES, UNCHECKED, LowerPrecision, rounded_after_every_layer

PROBE_IMAGES = 48

RunGraph = Callable[[bytes, NDArray[np.uint8]], NDArray[np.float32]]
"""Runs a serialised graph on images [N, H, W, C] and returns logits [N, K]. The caller passes it, because export/ does
not import the inference backends."""


@dataclass(frozen=True)
class Exported:
    """A graph on disk, and how far its logits were from PyTorch's."""

    path: Path
    largest_difference: float
    relative_error: float = 0.0
    """Root mean square of the differences over the standard deviation of PyTorch's logits."""


def onnx_from_checkpoint(
    checkpoint: Checkpoint, path: Path, *, run_graph: RunGraph, precision: str = "fp32", opset: int | None = None
) -> Exported:
    """Write the checkpoint as a graph in fp32, fp16 or bf16 that has passed ONNX's checker and a comparison of logits.

    `opset`: see `opset_of`; its IR version is that of IR_VERSIONS.

    `run_graph` computes the logits that are compared with PyTorch's, on synthetic images. For fp16 and bf16 it runs the
    graph in fp32 arithmetic with the result of every layer rounded, and the card says so.

    Raises ArtifactError, and writes no file, if the logits differ by more than the precision allows; UsageError for
    int8, which needs calibration images, and for an opset that does not fit; OutputError if `path` cannot be written.
    """
    precision_named(precision)
    if precision == "int8":
        raise UsageError("--precision int8: needs images of the training split to calibrate with")
    model = checkpoint.model()
    images_NHWC = probe_images(PROBE_IMAGES, checkpoint.card.input)
    graph = graph_from_checkpoint(checkpoint, precision, opset=opset)
    with torch.inference_mode():
        reference_NK = model(torch.from_numpy(images_NHWC)).numpy()
    exact_NK = exact_logits(model, images_NHWC) if precision == "fp32" else None
    runnable = rounded_after_every_layer(graph, HALVES[precision]) if precision in HALVES else graph
    logits_NK = run_graph(runnable.SerializeToString(), images_NHWC)
    largest, relative = check_closeness(logits_NK, reference_NK, precision, path)
    if exact_NK is not None:
        _check_rounding(logits_NK, reference_NK, exact_NK, path)
    check = {
        "opset": opset_of(precision, opset),
        "images": len(images_NHWC),
        "largest_logit_difference": largest,
        "libraries": this_machine().libraries,
    }
    if precision in HALVES:
        check |= {
            "relative_logit_error": relative,
            "checked": CHECKED.format(precision=precision),
            "unchecked": UNCHECKED.format(precision=precision),
        }
    set_card(graph, replace(checkpoint.card, precision=precision, notes={**checkpoint.card.notes, "export": check}))
    write_whole(path, graph.SerializeToString())
    return Exported(path, largest, relative)


def check_closeness(
    logits_NK: NDArray[np.float32],
    reference_NK: NDArray[np.float32],
    precision: str,
    path: Path,
    *,
    of: str = "PyTorch's logits",
) -> tuple[float, float]:
    """Return the largest and the relative difference. Raises ArtifactError if the precision does not allow them.

    fp32 has its own limit, see `_check_rounding`. `of`: whose logits the reference's are, for the message.
    """
    limits = precision_named(precision)
    if logits_NK.shape != reference_NK.shape:
        raise ArtifactError(
            f"{path}: not written: its logits have the shape {logits_NK.shape}, expected {reference_NK.shape}"
        )
    largest, relative = differences(logits_NK, reference_NK)
    if not np.isfinite(largest):
        raise ArtifactError(f"{path}: not written: some of its logits are not finite in {precision}")
    share = largest_share(logits_NK, reference_NK)
    if not share <= limits.largest_share:
        raise ArtifactError(
            f"{path}: not written: largest logit error {share:.2g} standard deviations of {of}, "
            f"expected at most {limits.largest_share:.2g} in {precision}"
        )
    if precision in HALVES and not relative <= limits.relative_error:
        raise ArtifactError(
            f"{path}: not written: relative RMS error of the logits {relative:.2%}, "
            f"expected at most {limits.relative_error:.2%} in {precision}"
        )
    return largest, relative


def _check_rounding(
    logits_NK: NDArray[np.float32], reference_NK: NDArray[np.float32], exact_NK: NDArray[np.float64], path: Path
) -> None:
    """Raise ArtifactError if the logits are further from those in fp64 than rounding explains in this network."""
    off, rounding = (float(np.abs(found_NK - exact_NK).max()) for found_NK in (logits_NK, reference_NK))
    allowed = rounding_limit(float(np.abs(exact_NK).max()), rounding=rounding, spread=float(exact_NK.std()))
    if not off <= allowed:
        raise ArtifactError(
            f"{path}: not written: its logits differ from PyTorch's in fp64 by up to {off:.2g}, expected at most "
            f"{allowed:.2g} (PyTorch's own in fp32 differ by {rounding:.2g})"
        )


def graph_from_checkpoint(
    checkpoint: Checkpoint, precision: str = "fp32", *, opset: int | None = None
) -> onnx.ModelProto:
    """Return the checkpoint as a graph in fp32, fp16 or bf16, without a card; ONNX's checker has accepted it.

    `opset`: see `opset_of`. Raises UsageError if it does not fit, ArtifactError if PyTorch's exporter writes another.
    """
    chosen = opset_of(precision, opset)
    model = folded(checkpoint.model())
    images_NHWC = probe_images(2, checkpoint.card.input)
    if has_other_code(model.network):
        graph = _graph_of_own_code(model, images_NHWC, precision, arch=checkpoint.card.arch, opset=chosen)
    else:
        runnable = LowerPrecision(model, HALVES[precision]) if precision in HALVES else model
        graph = _traced(runnable, images_NHWC, opset=chosen)
    written = next(entry.version for entry in graph.opset_import if entry.domain == "")
    if written != chosen:
        raise ArtifactError(
            f"{checkpoint.card.name}: PyTorch's exporter wrote opset {written} instead of {chosen}; "
            "choose another --opset"
        )
    graph.ir_version = IR_VERSIONS[chosen]
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _graph_of_own_code(
    model: Model, images_NHWC: NDArray[np.uint8], precision: str, *, arch: str, opset: int
) -> onnx.ModelProto:
    """Return a model whose network has code outside of rtk as a graph; a 16-bit graph is made from one in fp32.

    It is traced with channels as planes, as graphs have them: of a pooling to 1 x 1 whose images have their channels
    last, PyTorch traces steps through memory too, which become a Gather at computed places.
    """
    model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # torch's stubs lack it
    model.takes_contiguous = True
    half = HALVES.get(precision)
    if half is None:
        return _traced(traced_program(model, images_NHWC, arch=arch), images_NHWC, opset=opset)
    program = traced_program(Marked(model, half), images_NHWC, arch=arch)
    graph, start = without_mark(_traced(program, images_NHWC, opset=opset), half)
    return in_half(graph, half, start=start)


def _traced(model: nn.Module | ExportedProgram, images_NHWC: NDArray[np.uint8], *, opset: int) -> onnx.ModelProto:
    """Return the model, or its trace, as ONNX, without the paths of this machine that tracing writes into it."""
    with _quiet():
        program = torch.onnx.export(
            model,
            (torch.from_numpy(images_NHWC),),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    _read_pixels_by_cast_alone(graph.graph)
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


def _read_pixels_by_cast_alone(graph: onnx.GraphProto) -> None:
    """Let all other nodes that read the uint8 input read its cast: TensorRT's parser accepts nothing but a cast there.

    Some versions of the exporter take the size of the batch from the input.
    """
    cast = next(node for node in graph.node if node.op_type == "Cast" and node.input[0] == INPUT_NAME)
    nodes = [cast, *(node for node in graph.node if node is not cast)]
    for node in nodes[1:]:
        node.input[:] = [cast.output[0] if name == INPUT_NAME else name for name in node.input]
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(ordered)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's output and its warnings about its own code off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def folded(model: Model) -> Model:
    """Return a copy in evaluation mode; batch norms that a block lists in CONV_NORM are folded into convolutions."""
    copied = copy.deepcopy(model).eval()
    for block in copied.modules():
        for conv_name, norm_name in getattr(block, "CONV_NORM", ()):
            conv, norm = block.get_submodule(conv_name), block.get_submodule(norm_name)
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            block.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
            block.set_submodule(norm_name, nn.Identity())
    return copied
