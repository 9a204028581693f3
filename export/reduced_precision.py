"""fp16 and bf16 graphs, and the same graph in fp32 arithmetic to measure the rounding error on any machine.

Pixels are normalised in fp32; weights and layers of the network have the lower precision; logits are cast back to
float32. ONNX Runtime's CPU provider casts fp16 graphs up to fp32 and has no bf16 convolution. Therefore the check runs
`rounded_after_every_layer`: the same graph in fp32 arithmetic, with weights and every result rounded. Hardware that
multiplies in the lower precision and sums in fp32 does the same; only the order of its sums stays unchecked.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ..core.artifacts.graph_card import ARITHMETIC_KEY
from ..core.models.model import Model


@dataclass(frozen=True)
class Half:
    """A 16-bit precision in torch and in ONNX."""

    torch_type: torch.dtype
    onnx_type: int


HALVES = {
    "fp16": Half(torch.float16, TensorProto.FLOAT16),
    "bf16": Half(torch.bfloat16, TensorProto.BFLOAT16),
}
CHECKED = "the same graph in fp32 arithmetic, weights and every layer's result rounded to {precision}"
UNCHECKED = "arithmetic in {precision} itself: the hardware's order of sums"


class LowerPrecision(Model):
    """A model whose network computes in a 16-bit precision; normalised pixels and logits are fp32."""

    def __init__(self, model: Model, half: Half) -> None:
        super().__init__(model.normalise, model.network.to(half.torch_type))
        self.torch_type = half.torch_type

    def forward(self, images_NHWC: Tensor) -> Tensor:
        return self.logits_of_pixels(self.normalise(images_NHWC).to(self.torch_type)).to(torch.float32)


def rounded_after_every_layer(graph: onnx.ModelProto, half: Half) -> onnx.ModelProto:
    """Return a copy of a 16-bit graph that computes in fp32 on a CPU and rounds every result to 16 bits."""
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    low = _tensors_of_type(copied, half.onnx_type)
    for tensor in copied.graph.initializer:
        if tensor.data_type == half.onnx_type:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    del copied.graph.value_info[:]
    nodes = [rounded for node in graph.graph.node for rounded in _rounded(node, low, half)]
    del copied.graph.node[:]
    copied.graph.node.extend(nodes)
    copied.metadata_props.add(key=ARITHMETIC_KEY, value="fp32")
    return copied


def _rounded(node: onnx.NodeProto, low: set[str], half: Half) -> list[onnx.NodeProto]:
    """Return the nodes that replace a node: itself in fp32, and casts of its result to 16 bits and back.

    `low`: the names of all 16-bit tensors, which are fp32 in the copy.
    """
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    output = node.output[0]
    if node.op_type == "Cast" and node.input[0] in low and output not in low and _casts_to_float(node):
        # from 16 bits to fp32: its input is fp32 now
        copied.op_type = "Identity"
        del copied.attribute[:]
        return [copied]
    if output not in low:
        return [copied]
    if node.op_type == "Cast":
        exact, nodes = node.input[0], []
    else:
        exact, nodes = f"{output}.exact", [copied]
        copied.output[0] = exact
    rounded = f"{output}.rounded"
    to_half = helper.make_node("Cast", [exact], [rounded], to=half.onnx_type)
    to_float = helper.make_node("Cast", [rounded], [output], to=TensorProto.FLOAT)
    return [*nodes, to_half, to_float]


def _casts_to_float(node: onnx.NodeProto) -> bool:
    return any(one.name == "to" and one.i == TensorProto.FLOAT for one in node.attribute)


def _tensors_of_type(graph: onnx.ModelProto, onnx_type: int) -> set[str]:
    """Return the names of the tensors of that type, including weights."""
    typed = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph
    names = {value.name for value in typed.value_info if value.type.tensor_type.elem_type == onnx_type}
    return names | {tensor.name for tensor in typed.initializer if tensor.data_type == onnx_type}
