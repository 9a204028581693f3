"""int8 by static post-training quantisation, for three target runtimes.

placement.py says what is quantised for each of them. `tensorrt` has symmetric int8 activations and biases in fp32,
which is what TensorRT takes. `cpu` and `openvino` have uint8 activations. Weights have a scale per output channel, and
eight bits. They have seven for x86 processors without VNNI: the int8 kernels of those add two products in 16 bits,
which overflow with larger weights.

weights.py rounds the weights. The ranges of the activations are chosen from several methods on held-out images of the
training split, by the error of the margin: the difference of the two largest logits of PyTorch. An answer changes only
if that difference changes its sign. The error counts on the half of the images with the smallest margins, because a
network is surer of images that it was trained on than of new ones, and a range that clips the peaks of the surest
images does no harm. The number of changed answers itself says too little: it is one or two in a thousand images.

Tried and left out, each on a trained resnet20v1: correcting the biases by the mean error of each layer, in sequence,
and fitting the weights to the quantised inputs of their layer. Both made the error of the logits larger by a tenth.
ONNX Runtime's entropy method gives the same graphs as minmax.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ...core.artifacts.checkpoint import Checkpoint
from ...core.artifacts.graph import load_graph, set_card
from ...core.card import ModelCard
from ...core.errors import ArtifactError, UnknownNameError
from ...core.files import write_whole
from ...core.machine import this_machine
from ...core.text import wrapped
from ...core.tolerances import differences, largest_share, precision_named
from ..config import METHODS, Int8Config, Method
from ..to_onnx import graph_from_checkpoint
from .calibration import Calibration
from .placement import activations, layer_names, not_quantised, quantised_places
from .qdq import with_quantisation
from .ranges import BATCH, Histogram, histograms, logits_as_written, range_of
from .weights import RoundedWeights, rounded_weights

_log = logging.getLogger(__name__)

LOWEST_OPSET = 13
"""The first opset in which a scale for each channel can be written."""


@dataclass(frozen=True)
class Closeness:
    """How far logits are from PyTorch's; core/tolerances.py defines the first three numbers."""

    relative_error: float
    largest_difference: float
    largest_share: float
    margin_error: float
    """See `margin_error`."""

    @classmethod
    def of(cls, logits_NK: NDArray[np.float32], reference_NK: NDArray[np.float32]) -> "Closeness":
        """Compare logits with those of the reference."""
        largest, relative = differences(logits_NK, reference_NK)
        return cls(relative, largest, largest_share(logits_NK, reference_NK), margin_error(logits_NK, reference_NK))

    @property
    def share_of_limits(self) -> float:
        """The larger of the two errors, each over its int8 limit; above 1 the logits are not close enough."""
        limits = precision_named("int8")
        return max(self.relative_error / limits.relative_error, self.largest_share / limits.largest_share)


def margin_error(logits_NK: NDArray[np.float32], reference_NK: NDArray[np.float32]) -> float:
    """Return the root mean square error of the difference between the two classes with the largest reference logits.

    It counts on the half of the images for which that difference is smallest. It is 0 for one class, or no images.
    """
    if reference_NK.shape[0] == 0 or reference_NK.shape[1] < 2:
        return 0.0
    second_N, first_N = np.argsort(reference_NK, axis=1)[:, -2:].T
    rows_N = np.arange(len(reference_NK))
    margins_N, found_N = (
        one_NK[rows_N, first_N].astype(np.float64) - one_NK[rows_N, second_N] for one_NK in (reference_NK, logits_NK)
    )
    unsure = np.argsort(margins_N, kind="stable")[: (len(margins_N) + 1) // 2]
    return float(np.sqrt(np.mean((found_N - margins_N)[unsure] ** 2)))


@dataclass(frozen=True)
class Quantiser:
    """A graph with all that its quantisation by any method needs."""

    graph: onnx.ModelProto
    config: Int8Config
    counted: Mapping[str, Histogram]
    weights: Mapping[str, RoundedWeights]

    @classmethod
    def of(cls, graph: onnx.ModelProto, config: Int8Config, images_NHWC: NDArray[np.uint8]) -> "Quantiser":
        """Measure the activations of the graph and round its weights."""
        places = quantised_places(graph, config.flavor, keep_fp32=not_quantised(graph))
        counted = histograms(graph, activations(graph, places), images_NHWC)
        return cls(
            graph, config, counted, rounded_weights(graph, {n for n, _ in places}, images_NHWC, bits=config.bits)
        )

    def quantised(self, method: Method, *, keep_fp32: Collection[str]) -> onnx.ModelProto:
        """Return the graph quantised by that method, except at the nodes of keep_fp32."""
        symmetric = self.config.flavor == "tensorrt"
        places = quantised_places(self.graph, self.config.flavor, keep_fp32=keep_fp32)
        ranges = {
            name: range_of(self.counted[name], method, symmetric=symmetric) for name in activations(self.graph, places)
        }
        return with_quantisation(
            self.graph,
            places,
            ranges,
            self.weights,
            symmetric=symmetric,
            quantise_biases=self.config.flavor == "cpu",  # ONNX Runtime needs them
        )


@dataclass(frozen=True)
class Int8Exported:
    """An int8 graph on disk, and how it was made."""

    path: Path
    method: Method
    tried: dict[Method, Closeness]
    """Every method that was tried, on the held-out images."""
    agreeing: int
    """Number of held-out images with the same prediction as PyTorch."""
    images: int
    """Number of held-out images."""


def int8_from_checkpoint(
    checkpoint: Checkpoint,
    path: Path,
    *,
    calibration: Calibration,
    config: Int8Config | None = None,
    opset: int | None = None,
) -> Int8Exported:
    """Write the checkpoint as an int8 graph whose logits are close to PyTorch's on the held-out images.

    `opset`: see `opset_of`. Raises ArtifactError, and writes no file, if they are not; UnknownNameError for an unknown
    layer in keep_fp32; UsageError for an opset that does not fit.
    """
    graph = graph_from_checkpoint(checkpoint, opset=opset)
    reference_NK = reference_logits(checkpoint, calibration.held_out_NHWC)
    return _quantised(graph, checkpoint.card, reference_NK, path, calibration=calibration, config=config)


def int8_from_graph(
    source: Path, path: Path, *, calibration: Calibration, config: Int8Config | None = None
) -> Int8Exported:
    """Write an imported fp32 graph as an int8 graph whose logits are close to its own on the held-out images.

    Raises the errors of int8_from_checkpoint, and ArtifactError if no layer of the graph can be quantised.
    """
    graph, card = quantisable_graph(source, config)
    reference_NK = logits_as_written(graph, calibration.held_out_NHWC)
    return _quantised(graph, card, reference_NK, path, calibration=calibration, config=config)


def quantisable_graph(source: Path, config: Int8Config | None = None) -> tuple[onnx.ModelProto, ModelCard]:
    """Load an imported fp32 graph, without its card in it. Raises ArtifactError if int8 cannot quantise any of it."""
    graph, card = load_graph(source)
    del graph.metadata_props[:]
    if graph.opset_import[0].version < LOWEST_OPSET:
        raise ArtifactError(
            f"{source}: not quantised: opset {graph.opset_import[0].version}, and quantisation by channel begins in "
            f"opset {LOWEST_OPSET}"
        )
    if not quantised_places(graph, (config or Int8Config()).flavor, keep_fp32=not_quantised(graph)):
        raise ArtifactError(
            f"{source}: has no layer with weights (Conv, Gemm, MatMul) that int8 could quantise; use fp16 or bf16"
        )
    return graph, card


def _quantised(
    graph: onnx.ModelProto,
    card: ModelCard,
    reference_NK: NDArray[np.float32],
    path: Path,
    *,
    calibration: Calibration,
    config: Int8Config | None,
) -> Int8Exported:
    config = config or Int8Config()
    keep_fp32 = {*_nodes_named(graph, config.keep_fp32), *not_quantised(graph)}
    _log_weight_bits(config)
    quantiser = Quantiser.of(graph, config, calibration.images_NHWC)

    tried: dict[Method, Closeness] = {}
    candidates: dict[Method, tuple[onnx.ModelProto, NDArray[np.float32]]] = {}
    for method in METHODS if config.method == "auto" else (config.method,):
        candidate = quantiser.quantised(method, keep_fp32=keep_fp32)
        logits_NK = logits_as_written(candidate, calibration.held_out_NHWC)
        candidates[method] = candidate, logits_NK
        tried[method] = Closeness.of(logits_NK, reference_NK)
    method = min(tried, key=lambda name: (not tried[name].share_of_limits <= 1, tried[name].margin_error))
    best, logits_NK = candidates[method]
    _check_closeness(tried[method], path)

    agreeing = int((logits_NK.argmax(axis=1) == reference_NK.argmax(axis=1)).sum())
    places = {name for name, _ in quantised_places(graph, config.flavor, keep_fp32=keep_fp32)}
    in_fp32 = [layer for layer, node in layer_names(graph).items() if node not in places]
    note = {"opset": graph.opset_import[0].version} | _note(config, calibration, method, tried, agreeing, in_fp32)
    set_card(best, replace(card, precision="int8", notes={**card.notes, "export": note}))
    best.producer_name, best.producer_version = "rtk", ""
    write_whole(path, best.SerializeToString())
    return Int8Exported(path, method, tried, agreeing, len(logits_NK))


def _check_closeness(found: Closeness, path: Path) -> None:
    """Raise ArtifactError if the logits are farther from the reference's than int8 allows, or not finite."""
    if not found.share_of_limits <= 1:
        limits = precision_named("int8")
        raise ArtifactError(
            f"{path}: not written: relative RMS error of the logits {found.relative_error:.2%}, expected at most "
            f"{limits.relative_error:.2%} in int8; largest logit error {found.largest_share:.0%} of their standard "
            f"deviation, expected at most {limits.largest_share:.0%}; list the error of each layer with --explain, "
            "and keep the costliest in fp32 with --keep-fp32 LAYER"
        )


def _note(
    config: Int8Config,
    calibration: Calibration,
    method: Method,
    tried: dict[Method, Closeness],
    agreeing: int,
    in_fp32: list[str],
) -> dict[str, Any]:
    """Return the export entry of the card's notes."""
    return {
        "flavor": config.flavor,
        "weights": f"int8 per channel in {config.bits} bits, rounded by GPTQ",
        "weight_bits": config.bits,
        "activations": "int8 symmetric" if config.flavor == "tensorrt" else "uint8",
        "method": method,
        "kept_fp32": in_fp32,
        "calibration": calibration.note(),
        "relative_logit_errors": {name: round(one.relative_error, 5) for name, one in tried.items()},
        "largest_logit_shares": {name: round(one.largest_share, 4) for name, one in tried.items()},
        "margin_errors": {name: round(one.margin_error, 5) for name, one in tried.items()},
        "held_out_agreeing": agreeing,
        "checked": "as written, in fp32 arithmetic between quantised values",
        "unchecked": "integer kernels of the device that runs it",
        "libraries": this_machine().libraries,
    }


def _nodes_named(graph: onnx.ModelProto, layers: tuple[str, ...]) -> list[str]:
    """Return the nodes of these layers. Raises UnknownNameError."""
    known = layer_names(graph)
    for layer in layers:
        if layer not in known:
            raise UnknownNameError("layer", layer, known)
    return [known[layer] for layer in layers]


def _log_weight_bits(config: Int8Config) -> None:
    """Log the number of bits of the weights where it depends on the processor, and why."""
    if config.flavor == "tensorrt":
        return
    saturates = this_machine().int8_saturates
    if config.bits == 8 and saturates:
        reason = "this processor has no VNNI: only ONNX Runtime computes them right here, and slowly"
    elif config.bits == 8:
        reason = "for processors with VNNI or its like, as this one has; for others: --int8-weight-bits 7"
    else:
        reason = "for x86 processors without VNNI" + (", as this one is" if saturates else "")
    _log.info(wrapped(f"weights in {config.bits} bits: {reason}"))


def reference_logits(checkpoint: Checkpoint, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return PyTorch's logits."""
    model = checkpoint.model()
    with torch.inference_mode():
        return np.concatenate(
            [model(torch.from_numpy(images_NHWC[i : i + BATCH])).numpy() for i in range(0, len(images_NHWC), BATCH)]
        )
