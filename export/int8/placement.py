"""Which inputs of which layers are quantised, for each target runtime.

tensorrt  Every convolution and dense layer. Of an addition, not the input that a convolution makes: TensorRT adds
          the other one inside that convolution, before anything is rounded.
openvino  The same, for the same reason, but the last dense layer stays in fp32: it takes no time, and rounding
          costs much there.
cpu       ONNX Runtime runs a convolution in int8 only if its result is quantised too, so both inputs of every
          addition are. The last dense layer stays in fp32.
"""

from collections.abc import Collection, Iterable

import onnx

from ..config import Int8Flavor

LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators with weights; a product of two activations, as in attention, stays in fp32."""
QUANTISED = (*LAYERS, "Add")
"""Operators that run in int8; an Add is a residual addition to the result of a convolution."""

PREPROCESSING = "normalise."
"""What the names of constants of the preprocessing begin with; it stays in fp32, whitening too."""
Place = tuple[str, int]
"""The name of a node and the index of one of its inputs."""


def quantised_places(graph: onnx.ModelProto, flavor: Int8Flavor, *, keep_fp32: Collection[str] = ()) -> set[Place]:
    """Return the activations to quantise. `keep_fp32`: names of nodes that stay in fp32."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    nodes = [node for node in graph.graph.node if node.op_type in QUANTISED]
    always_fp32 = set[str]() if flavor == "tensorrt" else last_dense_layers(graph)
    nodes = [node for node in nodes if node.name not in always_fp32 and node.name not in keep_fp32]
    learned = {name for name in weights if not name.startswith(PREPROCESSING)}
    places = {(node.name, 0) for node in nodes if node.op_type in LAYERS and node.input[1] in learned}
    made_by_convolution = {name for node in graph.graph.node if node.op_type == "Conv" for name in node.output}
    for node in nodes:
        if node.op_type == "Add" and not weights & set(node.input):
            inside = next((index for index, name in enumerate(node.input) if name in made_by_convolution), None)
            if inside is not None:
                places |= {(node.name, index) for index in range(2) if flavor == "cpu" or index != inside}
    return places


def not_quantised(graph: onnx.ModelProto) -> set[str]:
    """Return the layers that stay in fp32, because GPTQ cannot sample their inputs.

    rtk's own graphs have none of them: convolutions of one or three dimensions or with automatic padding, dense layers
    whose input is transposed, and products with weights of more than two dimensions.
    """
    shapes = {tensor.name: len(tensor.dims) for tensor in graph.graph.initializer}
    found = set()
    for node in graph.graph.node:
        given = {one.name: one for one in node.attribute}
        padded = "auto_pad" in given and given["auto_pad"].s not in (b"", b"NOTSET")
        if node.op_type == "Conv" and (padded or shapes.get(node.input[1], 4) != 4):
            found.add(node.name)
        if node.op_type == "Gemm" and "transA" in given and given["transA"].i:
            found.add(node.name)
        if node.op_type == "MatMul" and shapes.get(node.input[1], 2) != 2:
            found.add(node.name)
    return found


def last_dense_layers(graph: onnx.ModelProto) -> set[str]:
    """Return the dense layers that no layer comes after."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    layers = [node for node in graph.graph.node if node.op_type in LAYERS and node.input[1] in weights]
    lasts = set()
    for node in layers:
        if node.op_type in ("Gemm", "MatMul"):
            later = _reached(graph.graph.node, set(node.output))
            if not any(other.input[0] in later for other in layers):
                lasts.add(node.name)
    return lasts


def _reached(nodes: Iterable[onnx.NodeProto], start: set[str]) -> set[str]:
    """Return `start` and all values that are computed from it."""
    reached = set(start)
    for node in nodes:  # in the order of computation
        if reached & set(node.input):
            reached |= set(node.output)
    return reached


def layer_names(graph: onnx.ModelProto) -> dict[str, str]:
    """Map readable layer names, such as network.blocks.0.conv1, to the names of the graph's nodes."""
    names, weights = {}, {tensor.name for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type == "Add" or (node.op_type in QUANTISED and node.input[1] in weights):
            weight = next((name for name in node.input if name.endswith(".weight")), "")
            names[weight.removesuffix(".weight") or node.name.removeprefix("node_")] = node.name
    return names


def activations(graph: onnx.ModelProto, places: Collection[Place]) -> list[str]:
    """Return the names of the activations at these places, in the order of computation."""
    read = ((node, index) for node in graph.graph.node for index in range(len(node.input)))
    return list(dict.fromkeys(node.input[index] for node, index in read if (node.name, index) in places))
