"""int8 by static post-training quantisation with ONNX Runtime's quantiser, for two target runtimes.

`tensorrt`: QuantizeLinear and DequantizeLinear before every layer that runs in int8 and on both inputs of every
residual addition; symmetric, weights per channel, biases in fp32. `cpu`: activations in uint8, weights in seven bits,
so that processors without VNNI, whose int8 kernels saturate at 16 bits, compute the same logits as all others. Only the
inputs of a layer are quantised, never its output, because the output goes through the activation function first.

The range method is chosen on held-out images of the training split by both limits of parity: a method that clips rare
peaks may lower the error of all logits together and still spoil the predictions of a few images.

Two methods were tried and are left out. Bias correction for the mean shift of every layer, two rounds for all layers at
once, made the logits of a trained network worse. ONNX Runtime's entropy ranges were the same as those of minmax.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.base_quantizer import TensorData
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

from ...core.artifacts.checkpoint import Checkpoint
from ...core.artifacts.graph import set_card
from ...core.errors import ArtifactError, UnknownNameError
from ...core.files import temporary_folder, write_whole
from ...core.machine import this_machine
from ...core.tolerances import differences, largest_share, precision_named
from ..config import METHODS, Int8Config, Method
from ..to_onnx import graph_from_checkpoint
from .calibration import Calibration
from .ranges import BATCH, QUANTISED, Histogram, Range, histograms, logits_as_written, range_of


@dataclass(frozen=True)
class Closeness:
    """How far logits are from PyTorch's; core/tolerances.py defines the three numbers."""

    relative_error: float
    largest_difference: float
    largest_share: float

    @classmethod
    def of(cls, logits_NK: NDArray[np.float32], reference_NK: NDArray[np.float32]) -> "Closeness":
        """Compare logits with those of the reference."""
        largest, relative = differences(logits_NK, reference_NK)
        return cls(relative, largest, largest_share(logits_NK, reference_NK))

    @property
    def share_of_limits(self) -> float:
        """The larger of the two errors, each over its int8 limit; above 1 the logits are not close enough."""
        limits = precision_named("int8")
        return max(self.relative_error / limits.relative_error, self.largest_share / limits.largest_share)


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
    checkpoint: Checkpoint, path: Path, *, calibration: Calibration, config: Int8Config | None = None
) -> Int8Exported:
    """Write the checkpoint as an int8 graph whose logits are close to PyTorch's on the held-out images.

    Raises ArtifactError, and writes no file, if they are not; UnknownNameError for an unknown layer in keep_fp32.
    """
    config = config or Int8Config()
    graph = graph_from_checkpoint(checkpoint)
    excluded = _nodes_named(graph, config.keep_fp32)
    counted = histograms(graph, calibration.images_NHWC)
    reference_NK = reference_logits(checkpoint, calibration.held_out_NHWC)

    tried: dict[Method, Closeness] = {}
    candidates: dict[Method, tuple[onnx.ModelProto, NDArray[np.float32]]] = {}
    for method in METHODS if config.method == "auto" else (config.method,):
        candidate = quantised(graph, ranges_by(method, counted, config), config, excluded=excluded)
        logits_NK = logits_as_written(candidate, calibration.held_out_NHWC)
        candidates[method] = candidate, logits_NK
        tried[method] = Closeness.of(logits_NK, reference_NK)
    method = min(tried, key=lambda name: tried[name].share_of_limits)
    best, logits_NK = candidates[method]
    _check_closeness(tried[method], path)

    agreeing = int((logits_NK.argmax(axis=1) == reference_NK.argmax(axis=1)).sum())
    note = _note(config, calibration, method, tried, agreeing)
    set_card(best, replace(checkpoint.card, precision="int8", notes={**checkpoint.card.notes, "export": note}))
    best.producer_name, best.producer_version = "rtk", ""
    write_whole(path, best.SerializeToString())
    return Int8Exported(path, method, tried, agreeing, len(logits_NK))


def _check_closeness(found: Closeness, path: Path) -> None:
    """Raise ArtifactError if the logits are farther from PyTorch's than int8 allows, or not finite."""
    if not found.share_of_limits <= 1:
        limits = precision_named("int8")
        raise ArtifactError(
            f"{path}: not written: relative RMS error of the logits {found.relative_error:.2%}, expected at most "
            f"{limits.relative_error:.2%} in int8; largest logit error {found.largest_share:.0%} of their standard "
            f"deviation, expected at most {limits.largest_share:.0%}; list the error of each layer with --explain, "
            "and keep the costliest in fp32 with --keep-fp32 LAYER"
        )


def _note(
    config: Int8Config, calibration: Calibration, method: Method, tried: dict[Method, Closeness], agreeing: int
) -> dict[str, Any]:
    """Return the export entry of the card's notes."""
    return {
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


def layer_names(graph: onnx.ModelProto) -> dict[str, str]:
    """Map readable layer names, such as network.blocks.0.conv1, to the names of the graph's nodes."""
    names = {}
    for node in graph.graph.node:
        if node.op_type in QUANTISED:
            weight = next((name for name in node.input if name.endswith(".weight")), "")
            names[weight.removesuffix(".weight") or node.name.removeprefix("node_")] = node.name
    return names


def _nodes_named(graph: onnx.ModelProto, layers: tuple[str, ...]) -> list[str]:
    """Return the nodes of these layers. Raises UnknownNameError."""
    known = layer_names(graph)
    for layer in layers:
        if layer not in known:
            raise UnknownNameError("layer", layer, known)
    return [known[layer] for layer in layers]


def ranges_by(method: Method, counted: dict[str, Histogram], config: Int8Config) -> dict[str, Range]:
    """Return the range of every activation by that method for that target runtime."""
    symmetric = config.flavor == "tensorrt"
    return {name: range_of(histogram, method, symmetric=symmetric) for name, histogram in counted.items()}


def quantised(
    graph: onnx.ModelProto, ranges: dict[str, Range], config: Int8Config, *, excluded: list[str]
) -> onnx.ModelProto:
    """Return the graph with QuantizeLinear and DequantizeLinear of these ranges, except at the `excluded` nodes."""
    on_cpu = config.flavor == "cpu"
    tensors = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    with temporary_folder(None) as folder, _quiet():
        cache, out = folder / "ranges.json", folder / "int8.onnx"
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
            nodes_to_exclude=excluded,
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


def reference_logits(checkpoint: Checkpoint, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return PyTorch's logits."""
    model = checkpoint.model()
    with torch.inference_mode():
        return np.concatenate(
            [model(torch.from_numpy(images_NHWC[i : i + BATCH])).numpy() for i in range(0, len(images_NHWC), BATCH)]
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's log lines off the terminal.

    Its calls of logging.info also give the root logger a handler, which would print every line of rtk's log again.
    """
    level, handlers = logging.root.manager.disable, logging.root.handlers[:]
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        logging.root.handlers[:] = handlers
