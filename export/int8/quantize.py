"""int8: static post-training quantisation with ONNX Runtime's quantiser, in two flavours, and the best of few methods.

`tensorrt`: QuantizeLinear and DequantizeLinear around what is to run in int8, symmetric, weights per channel, biases
left in fp32, on both inputs of every residual addition. `cpu`: activations in uint8, and weights in seven bits, so that
processors without VNNI, whose int8 kernels saturate at 16 bits, answer like all others. Only what a layer reads is
quantised, never what it gives out: that goes through its activation first.

The ranges' method is chosen on images of the training split that were held out, by both of the limits that parity is
judged by: clipping rare peaks may lower the error of all logits together and ruin a few images' answers. Correcting
biases for the mean shift of every layer, two rounds for all layers at once, was tried on a trained network and made its
logits worse; ONNX Runtime's entropy ranges came out as min-max's. Both are left out.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.base_quantizer import TensorData
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

from ...core.artifacts.checkpoint import Checkpoint
from ...core.artifacts.graph import set_card
from ...core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ...core.errors import ArtifactError, UnknownNameError
from ...core.files import write_whole
from ...core.machine import this_machine
from ...core.tolerances import differences, largest_share, precision_named
from ..to_onnx import graph_of
from .calibration import Calibration
from .ranges import BATCH, METHODS, QUANTISED, Histogram, Method, Range, histograms, range_of, session_as_written

Int8Flavor = Literal["tensorrt", "cpu"]
FLAVORS: tuple[Int8Flavor, ...] = ("tensorrt", "cpu")


def int8_flavor_named(name: str) -> Int8Flavor:
    """The flavour of that name. Raises UnknownNameError."""
    for known in FLAVORS:
        if known == name:
            return known
    raise UnknownNameError("int8 flavor", name, FLAVORS)


@dataclass(frozen=True)
class Int8Config:
    """How a checkpoint is quantised."""

    flavor: Int8Flavor = "tensorrt"
    method: Method | Literal["auto"] = "auto"
    """minmax, percentile or mse; auto takes the best on the held-out images."""
    keep_fp32: tuple[str, ...] = ()
    """Layers that stay in fp32, by the names that `explain` lists."""

    def __post_init__(self) -> None:
        if self.flavor not in FLAVORS:
            raise UnknownNameError("int8 flavor", self.flavor, FLAVORS)
        if self.method not in ("auto", *METHODS):
            raise UnknownNameError("calibration method", self.method, ("auto", *METHODS))


@dataclass(frozen=True)
class Closeness:
    """How far logits are from PyTorch's; see core/closeness.py."""

    relative_error: float
    largest_difference: float
    largest_share: float

    @classmethod
    def of(cls, logits_NK: NDArray[np.float32], reference_NK: NDArray[np.float32]) -> "Closeness":
        """Of these logits to those."""
        largest, relative = differences(logits_NK, reference_NK)
        return cls(relative, largest, largest_share(logits_NK, reference_NK))

    @property
    def of_limits(self) -> float:
        """The larger of what is used up of the two limits of int8; above 1 it is not close enough."""
        limits = precision_named("int8")
        return max(self.relative_error / limits.relative_error, self.largest_share / limits.largest_share)


@dataclass(frozen=True)
class Int8Exported:
    """An int8 graph on disk, and how it was made."""

    path: Path
    method: Method
    tried: dict[Method, Closeness]
    """Every method, on the held-out images."""
    agreeing: int
    """Of the held-out images, those with PyTorch's answer."""
    images: int


def int8_from_checkpoint(
    checkpoint: Checkpoint, path: Path, *, calibration: Calibration, config: Int8Config | None = None
) -> Int8Exported:
    """Write the checkpoint as an int8 graph that is close enough to PyTorch on the held-out images.

    Raises ArtifactError, and leaves no file, when it is not; UnknownNameError for a layer that there is not.
    """
    config = config or Int8Config()
    graph = graph_of(checkpoint)
    kept = _nodes_named(graph, config.keep_fp32)
    counted = histograms(graph, calibration.images_NHWC)
    reference_NK = reference_logits(checkpoint, calibration.held_out_NHWC)

    tried: dict[Method, Closeness] = {}
    candidates: dict[Method, tuple[onnx.ModelProto, NDArray[np.float32]]] = {}
    for method in METHODS if config.method == "auto" else (config.method,):
        candidate = quantised(graph, ranges_by(method, counted, config), config, kept=kept)
        logits_NK = logits_as_written(candidate, calibration.held_out_NHWC)
        candidates[method] = candidate, logits_NK
        tried[method] = Closeness.of(logits_NK, reference_NK)
    method = min(tried, key=lambda name: tried[name].of_limits)
    (best, logits_NK), found = candidates[method], tried[method]
    if not found.of_limits <= 1:
        limits = precision_named("int8")
        raise ArtifactError(
            f"{path}: not written: its logits differ from PyTorch's by {found.relative_error:.2%} of their spread and "
            f"by {found.largest_share:.0%} in the worst, expected at most {limits.relative_error:.2%} and "
            f"{limits.largest_share:.0%} in int8; see which layers cost most, and keep those in fp32"
        )
    agreeing = int((logits_NK.argmax(axis=1) == reference_NK.argmax(axis=1)).sum())
    note = {
        "flavor": config.flavor,
        "weights": "int8 per channel" + (" in 7 bits" if config.flavor == "cpu" else ""),
        "activations": "int8 symmetric" if config.flavor == "tensorrt" else "uint8",
        "method": method,
        "kept_fp32": list(config.keep_fp32),
        "calibration": calibration.note(),
        "relative_logit_errors": {name: round(one.relative_error, 5) for name, one in tried.items()},
        "largest_logit_shares": {name: round(one.largest_share, 4) for name, one in tried.items()},
        "held_out_agreeing": agreeing,
        "checked": "as written, in fp32 arithmetic between quantised values",
        "unchecked": "integer kernels of the device that runs it",
        "libraries": this_machine().libraries,
    }
    set_card(best, replace(checkpoint.card, precision="int8", notes={**checkpoint.card.notes, "export": note}))
    best.producer_name, best.producer_version = "rtk", ""
    write_whole(path, best.SerializeToString())
    return Int8Exported(path, method, tried, agreeing, len(logits_NK))


def layer_names(graph: onnx.ModelProto) -> dict[str, str]:
    """For people's names of layers, such as network.blocks.0.conv1, the nodes' own."""
    names = {}
    for node in graph.graph.node:
        if node.op_type in QUANTISED:
            weight = next((name for name in node.input if name.endswith(".weight")), "")
            names[weight.removesuffix(".weight") or node.name.removeprefix("node_")] = node.name
    return names


def quantised(
    graph: onnx.ModelProto, ranges: dict[str, Range], config: Int8Config, *, kept: list[str]
) -> onnx.ModelProto:
    """The graph with QuantizeLinear and DequantizeLinear of these ranges, everywhere but at the nodes `kept`."""
    on_cpu = config.flavor == "cpu"
    tensors = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    with tempfile.TemporaryDirectory(prefix="rtk-") as folder, _quiet():
        cache, out = Path(folder) / "ranges.json", Path(folder) / "int8.onnx"
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, tensors), cache)
        quantize_static(
            graph,
            out,
            None,
            calibration_cache_path=cache,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8 if on_cpu else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=on_cpu,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=kept,
            extra_options={
                "ActivationSymmetric": not on_cpu,
                "WeightSymmetric": True,
                "QuantizeBias": on_cpu,
                "OpTypesToExcludeOutputQuantization": list(QUANTISED),
                "QDQKeepRemovableActivations": True,
            },
        )
        result: onnx.ModelProto = onnx.load(out)
    onnx.checker.check_model(result)
    return result


def ranges_by(method: Method, counted: dict[str, Histogram], config: Int8Config) -> dict[str, Range]:
    """Every activation's range by that method, for that flavour."""
    symmetric = config.flavor == "tensorrt"
    return {name: range_of(histogram, method, symmetric=symmetric) for name, histogram in counted.items()}


def _nodes_named(graph: onnx.ModelProto, layers: tuple[str, ...]) -> list[str]:
    known = layer_names(graph)
    for layer in layers:
        if layer not in known:
            raise UnknownNameError("layer", layer, known)
    return [known[layer] for layer in layers]


def reference_logits(checkpoint: Checkpoint, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """PyTorch's logits."""
    model = checkpoint.model()
    with torch.inference_mode():
        return np.concatenate(
            [model(torch.from_numpy(images_NHWC[i : i + BATCH])).numpy() for i in range(0, len(images_NHWC), BATCH)]
        )


def logits_as_written(graph: onnx.ModelProto, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The graph's logits, as `session_as_written` computes them."""
    session = session_as_written(graph)
    starts = range(0, len(images_NHWC), BATCH)
    return np.concatenate([session.run([OUTPUT_NAME], {INPUT_NAME: images_NHWC[i : i + BATCH]})[0] for i in starts])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
