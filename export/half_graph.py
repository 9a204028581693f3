"""Convert the network in an fp32 graph to fp16 or bf16, node by node; what comes before it stays in fp32.

For networks that rtk did not write: their code may name types, and a module that is converted as a whole then mixes
them. Here every floating-point value after one place has the lower precision. Logits are cast back to float32.
"""

from collections.abc import Iterable

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from ..core.errors import ArtifactError
from .reduced_precision import Half

IN_FP32 = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that have to be float32 by the definition of the operator."""
NOT_IN_BF16 = frozenset({"HardSwish", "Mish", "LpNormalization", "LpPool"})
"""Operators that TensorRT (RTX 1.7) refuses in bf16, of all that classifiers use; they compute in fp32."""
TYPED = {"Cast": "to", "RandomNormal": "dtype", "RandomUniform": "dtype", "EyeLike": "dtype"}
"""Attributes that hold the type of a result."""


def in_half(graph: onnx.ModelProto, half: Half, *, start: str) -> onnx.ModelProto:
    """Return a copy of an fp32 graph in which everything computed from the value `start` has the lower precision.

    `start` itself stays in fp32 and is cast. The graph has one output, which stays float32. The opset stays as it is.
    Raises ArtifactError for graphs with subgraphs (If, Loop, Scan).
    """
    converter = _Converter(graph, half, start)
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    nodes = [made for node in graph.graph.node for made in converter.converted(node)]
    output = graph.graph.output[0].name
    nodes = [_with_renamed(node, output, f"{output}.half") for node in nodes]
    nodes.append(_cast(f"{output}.half", output, TensorProto.FLOAT))
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [*graph.graph.initializer, *converter.constants.values()]
    result.graph.initializer.extend(tensor for tensor in kept if tensor.name in read)
    return result


class _Converter:
    """Converts nodes in their order, and keeps what they share."""

    def __init__(self, graph: onnx.ModelProto, half: Half, start: str) -> None:
        self.half, self.start = half, start
        self.weights = {tensor.name: tensor for tensor in graph.graph.initializer}
        self.floats = _float_values(graph)
        self.network = _computed_from(graph.graph.node, start)
        self.constants: dict[str, onnx.TensorProto] = {}
        self.casts: set[str] = set()

    def converted(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes that replace a node: itself, after the casts of what it reads from the part in fp32."""
        if not set(node.output) & self.network:
            return [node]
        if any(one.type in (one.GRAPH, one.GRAPHS) for one in node.attribute):
            raise ArtifactError(
                f"the graph has a branch or a loop ({node.op_type}), which is not converted to a lower precision"
            )
        if self.half.onnx_type == TensorProto.BFLOAT16 and node.op_type in NOT_IN_BF16:
            return self._in_fp32(node)
        copied, made = onnx.NodeProto(), list[onnx.NodeProto]()
        copied.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in self.floats and index not in IN_FP32.get(node.op_type, ()):
                copied.input[index], cast = self._read(name)
                made += cast
        for one in copied.attribute:
            if one.name == TYPED.get(node.op_type) and one.i == TensorProto.FLOAT:
                one.i = self.half.onnx_type
            if one.type == one.TENSOR and one.t.data_type == TensorProto.FLOAT:
                one.t.CopyFrom(tensor_in_half(one.t, self.half, one.t.name))
        return [*made, copied]

    def _in_fp32(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node as it is, between casts of what it reads from the network, and of its result."""
        copied, made = onnx.NodeProto(), list[onnx.NodeProto]()
        copied.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in self.network and name in self.floats and name != self.start:
                copied.input[index] = f"{node.output[0]}.fp32_input{index}"
                made.append(_cast(name, copied.input[index], TensorProto.FLOAT))
        copied.output[0] = f"{node.output[0]}.fp32"
        return [*made, copied, _cast(copied.output[0], node.output[0], self.half.onnx_type)]

    def _read(self, name: str) -> tuple[str, list[onnx.NodeProto]]:
        """The name of a value in the lower precision, and the cast that makes it, if there is none yet."""
        if name in self.network and name != self.start:
            return name, []
        lower = f"{name}.half"
        if name in self.weights:
            if lower not in self.constants:
                self.constants[lower] = tensor_in_half(self.weights[name], self.half, lower)
            return lower, []
        if lower in self.casts:
            return lower, []
        self.casts.add(lower)
        return lower, [_cast(name, lower, self.half.onnx_type)]


def _cast(name: str, new: str, onnx_type: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [new], name=f"node_{new}", to=onnx_type)


def tensor_in_half(tensor: onnx.TensorProto, half: Half, name: str) -> onnx.TensorProto:
    """Return a float32 tensor rounded to the lower precision; what is out of its range becomes its largest number."""
    values = torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
    limits = torch.finfo(half.torch_type)
    rounded = torch.where(values.isinf(), values, values.clamp(limits.min, limits.max)).to(half.torch_type)
    return helper.make_tensor(name, half.onnx_type, tensor.dims, rounded.view(torch.int16).numpy().tobytes(), raw=True)


def _float_values(graph: onnx.ModelProto) -> set[str]:
    typed = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph
    values = (*typed.value_info, *typed.input, *typed.output)
    names = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return names | {tensor.name for tensor in typed.initializer if tensor.data_type == TensorProto.FLOAT}


def _computed_from(nodes: Iterable[onnx.NodeProto], start: str) -> set[str]:
    """The names of `start` and of all values that are computed from it."""
    found = {start}
    for node in nodes:  # in the order of computation
        if found & set(node.input):
            found |= set(node.output)
    return found


def _with_renamed(node: onnx.NodeProto, name: str, new: str) -> onnx.NodeProto:
    if name not in (*node.input, *node.output):
        return node
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    copied.input[:] = [new if one == name else one for one in node.input]
    copied.output[:] = [new if one == name else one for one in node.output]
    return copied
