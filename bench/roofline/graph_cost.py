"""The work of a graph for one image, counted from its ONNX file: operations and bytes.

A multiplication and the addition of its product are two operations. Convolutions count as they are defined: an
algorithm with fewer multiplications (Winograd's needs up to 2.25 times fewer for 3 x 3) may exceed a ceiling that is
computed from this count. The bytes are those that cannot be avoided: the image, the logits, and the weights as this
graph has them (int8: one byte each, and their scales) once per batch. Values between layers may stay in caches, so they
are counted separately.
"""

import math
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import helper

from ...core.artifacts.graph import load_graph
from ...core.errors import ArtifactError
from ...core.library_errors import reason_of
from .roofline import Operations

Shapes = dict[str, tuple[int, ...]]
MATRIX = ("Conv", "Gemm", "MatMul")
FREE = frozenset(
    {"Cast", "Concat", "Constant", "DequantizeLinear", "Flatten", "Identity", "Pad", "QuantizeLinear", "Reshape"}
    | {"Shape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that move or convert data and compute nothing."""


def operations_of(graph: Path) -> Operations:
    """Count the operations of a graph of rtk. Raises ArtifactError when the shape of a tensor is unknown."""
    model, _ = load_graph(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    try:
        typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise ArtifactError(
            f"{graph}: its shapes cannot be inferred, so the operations cannot be counted: {reason_of(error)}"
        ) from error
    shapes, sizes = _tensors(typed)
    ends = {value.name for value in (*typed.input, *typed.output)}
    weights = {tensor.name for tensor in typed.initializer}
    fixed = set(weights)  # and what is computed from weights alone, such as the float values of int8 weights
    counted = {True: 0, False: 0}
    between = 0
    for node in typed.node:
        missing = [name for name in (*node.input, *node.output) if name and name not in shapes]
        if missing:
            raise ArtifactError(f"{graph}: the shape of {missing[0]!r} is unknown, so the operations cannot be counted")
        counted[node.op_type in MATRIX] += _operations(node, shapes)
        if all(name in fixed for name in node.input if name):
            fixed.update(node.output)
        for name in (*node.input, *node.output):
            if name and name not in ends and name not in fixed:
                between += sizes[name]
    return Operations(
        matrix=counted[True],
        other=counted[False],
        image_bytes=sizes[typed.input[0].name],
        logits_bytes=sizes[typed.output[0].name],
        weight_bytes=sum(sizes[name] for name in weights),
        between_bytes=between,
    )


def _operations(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Operations of one node: by COUNTS where its type is listed, otherwise one for each element of the output."""
    if node.op_type in FREE:
        return 0
    count = COUNTS.get(node.op_type)
    return count(node, shapes) if count else math.prod(shapes[node.output[0]])


def _conv(node: onnx.NodeProto, shapes: Shapes) -> int:
    weight = shapes[node.input[1]]  # output channels, input channels of a group, kernel
    return math.prod(shapes[node.output[0]]) * (2 * math.prod(weight[1:]) + (len(node.input) > 2))


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    inner = shapes[node.input[0]][0 if transposed else -1]
    return math.prod(shapes[node.output[0]]) * (2 * inner + (len(node.input) > 2))


def _matmul(node: onnx.NodeProto, shapes: Shapes) -> int:
    return math.prod(shapes[node.output[0]]) * 2 * shapes[node.input[0]][-1]


def _whole_input(node: onnx.NodeProto, shapes: Shapes) -> int:
    return math.prod(shapes[node.input[0]])


def _normalisation(node: onnx.NodeProto, shapes: Shapes) -> int:
    return 2 * math.prod(shapes[node.output[0]])  # scale and shift


COUNTS: dict[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "GlobalAveragePool": _whole_input,
    "ReduceMean": _whole_input,
    "AveragePool": _whole_input,
    "MaxPool": _whole_input,
    "BatchNormalization": _normalisation,
}


def _tensors(graph: onnx.GraphProto) -> tuple[Shapes, dict[str, int]]:
    """Shape and bytes of every tensor; tensors with unknown dimensions are omitted."""
    shapes: Shapes = {}
    sizes: dict[str, int] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes[value.name], sizes[value.name] = shape, math.prod(shape) * _item_bytes(kind.elem_type)
    for tensor in graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
        sizes[tensor.name] = math.prod(tensor.dims) * _item_bytes(tensor.data_type)
    return shapes, sizes


def _item_bytes(onnx_type: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(onnx_type).itemsize)
