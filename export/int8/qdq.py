"""Insert QuantizeLinear and DequantizeLinear into a graph, at given places, with given ranges and weights."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .placement import LAYERS, Place
from .ranges import Range
from .weights import RoundedWeights


@dataclass
class _Builder:
    """The nodes and constants of the new graph."""

    symmetric: bool
    ranges: Mapping[str, Range]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    dequantised: dict[str, str] = field(default_factory=dict)
    """The dequantised value of each activation and weight that was quantised."""

    def activation(self, name: str) -> str:
        """Quantise an activation once, and return its dequantised value."""
        if name not in self.dequantised:
            scale, zero = quantisation_of(self.ranges[name], symmetric=self.symmetric)
            self._constants(name, np.array(scale), np.array(zero))
            codes = f"{name}_quantised"
            self.nodes.append(
                helper.make_node(
                    "QuantizeLinear", [name, f"{name}_scale", f"{name}_zero"], [codes], name=f"{name}_quantise"
                )
            )
            self._dequantise(name, codes)
        return self.dequantised[name]

    def constant(self, name: str, values: NDArray[np.integer], scales_O: NDArray[np.float32], axis: int) -> str:
        """Store a constant as integers, and return its dequantised value."""
        if name not in self.dequantised:
            codes = f"{name}_quantised"
            self.constants[codes] = numpy_helper.from_array(values, codes)
            self._constants(name, scales_O, np.zeros(len(scales_O), values.dtype))
            self._dequantise(name, codes, axis=axis)
        return self.dequantised[name]

    def _constants(self, name: str, scale: NDArray[np.float32], zero: NDArray[np.integer]) -> None:
        self.constants[f"{name}_scale"] = numpy_helper.from_array(scale, f"{name}_scale")
        self.constants[f"{name}_zero"] = numpy_helper.from_array(zero, f"{name}_zero")

    def _dequantise(self, name: str, codes: str, *, axis: int | None = None) -> None:
        self.dequantised[name] = f"{name}_dequantised"
        inputs = [codes, f"{name}_scale", f"{name}_zero"]
        outputs = [self.dequantised[name]]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, outputs, name=f"{name}_dequantise", axis=axis))


def with_quantisation(
    graph: onnx.ModelProto,
    places: Collection[Place],
    ranges: Mapping[str, Range],
    weights: Mapping[str, RoundedWeights],
    *,
    symmetric: bool,
    quantise_biases: bool,
) -> onnx.ModelProto:
    """Return a copy of the graph in which the activations at these places are quantised, and the weights they meet.

    `symmetric`: int8 activations around zero; otherwise uint8. `quantise_biases`: biases in int32, as sums of products.
    """
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    values = {tensor.name: tensor for tensor in graph.graph.initializer}
    builder = _Builder(symmetric, ranges)
    for node in result.graph.node:
        inputs = list(node.input)
        for index, name in enumerate(node.input):
            if (node.name, index) in places:
                inputs[index] = builder.activation(name)
        if node.op_type in LAYERS and (node.name, 0) in places:
            one = weights[node.input[1]]
            inputs[1] = builder.constant(node.input[1], one.values, one.scales_O, one.axis)
            if quantise_biases and len(node.input) > 2:
                scale, _ = quantisation_of(ranges[node.input[0]], symmetric=symmetric)
                inputs[2] = _bias(builder, values[node.input[2]], scale * one.scales_O)
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = inputs
        builder.nodes.append(copied)
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(builder.nodes)
    read = {name for node in builder.nodes for name in node.input}
    kept = {**values, **builder.constants}
    result.graph.initializer.extend(tensor for name, tensor in kept.items() if name in read)
    onnx.checker.check_model(result)
    return result


def _bias(builder: _Builder, bias: onnx.TensorProto, scales_O: NDArray[np.float32]) -> str:
    """Quantise a bias, unless some channel has weights so small that the bias in their steps overflows."""
    steps_O = np.round(numpy_helper.to_array(bias).astype(np.float64) / scales_O)
    if np.abs(steps_O).max() > np.iinfo(np.int32).max:
        return bias.name
    return builder.constant(bias.name, steps_O.astype(np.int32), scales_O, 0)


def quantisation_of(limits: Range, *, symmetric: bool) -> tuple[np.float32, np.int8 | np.uint8]:
    """Return the scale and the zero point of a range that contains zero."""
    low, high = limits
    if symmetric:
        return np.float32(max(-low, high, 1e-30) / 127), np.int8(0)
    scale = max(high - low, 1e-30) / 255
    return np.float32(scale), np.uint8(np.clip(np.round(-low / scale), 0, 255))
