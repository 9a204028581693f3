"""Graphs in fp16 or bf16, converted node by node, and the same graph in fp32 with every result rounded.

For imported graphs, and for networks that rtk did not write: their code may name types, and a module that is converted
as a whole then mixes them. Pixels are normalised in fp32 and cast after, as in reduced_precision.py; logits are cast
back. Which operators take 16-bit tensors is in ONNX's own schemas: one that does not stays in fp32, between casts, and
an input that must be float32, such as the scales of a Resize, stays as it is. One pass serves both types; the converter
that comes with ONNX Runtime knows fp16 alone.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from ..core.errors import ArtifactError
from ..core.library_errors import reason_of
from .foreign_graph import all_nodes
from .import_onnx import PREFIX
from .opset import IR_VERSIONS, opset_of
from .reduced_precision import Half

TYPE_TEXT: dict[int, str] = {TensorProto.FLOAT16: "tensor(float16)", TensorProto.BFLOAT16: "tensor(bfloat16)"}
NOT_IN_BF16 = frozenset({"HardSwish", "Mish", "LpNormalization", "LpPool"})
"""Operators that ONNX has in bf16, but TensorRT (RTX 1.7) refuses, of all that classifiers use; they stay in fp32."""
ROUNDS = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Expand", "Slice", "Split"})
"""Operators whose results are not rounded in the yardstick: they only move values."""


def half_graph(graph: onnx.ModelProto, half: Half, *, precision: str) -> onnx.ModelProto:
    """Return an imported fp32 graph whose network computes in 16 bits. Raises ArtifactError if that cannot be."""
    model = _in_opset(graph, opset_of(precision))
    _Conversion(model, half, {node.name for node in model.graph.node if node.name.startswith(PREFIX)}).run()
    onnx.checker.check_model(model, full_check=True)
    return model


def in_half(graph: onnx.ModelProto, half: Half, *, start: str) -> onnx.ModelProto:
    """Return a copy of an fp32 graph in which everything computed from the value `start` has the lower precision.

    `start` itself stays in fp32 and is cast. The graph has one output, which stays float32. The opset stays as it is.
    Every node has a name. Raises ArtifactError for graphs with branches or loops.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    _Conversion(model, half, _nodes_after(graph.graph.node, start)).run()
    return model


def _nodes_after(nodes: Iterable[onnx.NodeProto], start: str) -> set[str]:
    """The names of the nodes that compute something from `start`."""
    values, names = {start}, set[str]()
    for node in nodes:  # in the order of computation
        if values & set(node.input):
            values |= set(node.output)
            names.add(node.name)
    return names


def _in_opset(graph: onnx.ModelProto, lowest: int) -> onnx.ModelProto:
    """A copy of the graph in at least that opset. Raises ArtifactError if it cannot be converted."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    del model.metadata_props[:]
    found = model.opset_import[0].version
    if found >= lowest:
        return model
    try:
        converted = onnx.version_converter.convert_version(model, lowest)
    except Exception as error:  # the converter fails in many ways
        raise ArtifactError(f"opset {found} cannot be converted to {lowest}: {reason_of(error)}") from error
    converted.ir_version = IR_VERSIONS[lowest]
    converted.producer_name, converted.producer_version = "rtk", ""
    return converted


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """The names of all float32 tensors, constants included."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    names = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return names | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


@dataclass
class _Conversion:
    model: onnx.ModelProto
    half: Half
    inside: Collection[str]
    """The names of the nodes of the network."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    low: set[str] = field(default_factory=set)
    """The tensors that have 16 bits now."""
    made: dict[tuple[str, int], str] = field(default_factory=dict)
    """The casts, by tensor and type."""

    def run(self) -> None:
        """Convert the graph in place."""
        graph = self.model.graph
        if any(attribute.HasField("g") for node in all_nodes(graph) for attribute in node.attribute):
            raise ArtifactError("graphs with branches or loops cannot be converted to a lower precision; use fp32")
        floats = _float_tensors(self.model)
        constants = {one.name: one for one in graph.initializer}
        for original in graph.node:
            node = onnx.NodeProto.FromString(original.SerializeToString())
            in_low = node.name in self.inside and self._takes_half(node, floats)
            fixed = _fixed_inputs(node, self.model.opset_import[0].version, TYPE_TEXT[self.half.onnx_type])
            for index, name in enumerate(node.input):
                if name in floats:
                    wanted = self.half.onnx_type if in_low and index not in fixed else TensorProto.FLOAT
                    node.input[index] = self._as(name, wanted, constants)
            if in_low:
                self._convert_attributes(node)
                self.low |= set(node.output) & floats
            self.nodes.append(node)
        self._cast_output(graph.output[0].name)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        read = {name for node in graph.node for name in node.input}
        kept = [onnx.TensorProto.FromString(one.SerializeToString()) for one in graph.initializer if one.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)

    def _cast_output(self, name: str) -> None:
        """Cast the output back to float32, if it has 16 bits."""
        if name not in self.low:
            return
        lower = f"{name}.half"
        for node in self.nodes:
            node.input[:] = [lower if one == name else one for one in node.input]
            node.output[:] = [lower if one == name else one for one in node.output]
        cast = helper.make_node("Cast", [lower], [name], to=TensorProto.FLOAT, name=f"cast.{name}")
        self.nodes.append(cast)

    def _takes_half(self, node: onnx.NodeProto, floats: set[str]) -> bool:
        """Whether the operator can give its float results in 16 bits."""
        opset, text = self.model.opset_import[0].version, TYPE_TEXT[self.half.onnx_type]
        schema = onnx.defs.get_schema(node.op_type, opset, "")
        results = [(index, name) for index, name in enumerate(node.output) if name in floats]
        refused = self.half.onnx_type == TensorProto.BFLOAT16 and node.op_type in NOT_IN_BF16
        if not results or refused:
            return False
        return all(text in _allowed(schema, schema.outputs, index) for index, _ in results)

    def _as(self, name: str, wanted: int, constants: dict[str, onnx.TensorProto]) -> str:
        """The name of a tensor in that type; a cast or another constant is made once."""
        have = self.half.onnx_type if name in self.low else TensorProto.FLOAT
        if have == wanted:
            return name
        key = (name, wanted)
        if key not in self.made:
            self.made[key] = f"{name}.{TensorProto.DataType.Name(wanted).lower()}"
            if name in constants:
                self.model.graph.initializer.append(rounded_tensor(constants[name], wanted, self.made[key]))
            else:
                cast = helper.make_node("Cast", [name], [self.made[key]], to=wanted, name=f"cast.{self.made[key]}")
                self.nodes.append(cast)
        return self.made[key]

    def _convert_attributes(self, node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = self.half.onnx_type
            elif attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(rounded_tensor(attribute.t, self.half.onnx_type, attribute.t.name))


def rounded_tensor(tensor: onnx.TensorProto, wanted: int, name: str) -> onnx.TensorProto:
    """A copy of a tensor in another type; what is out of the range of 16 bits becomes the largest number there."""
    values = numpy_helper.to_array(tensor)
    if wanted in TYPE_TEXT:
        limits = torch.finfo(torch.float16 if wanted == TensorProto.FLOAT16 else torch.bfloat16)
        values = np.where(np.isinf(values), values, values.clip(limits.min, limits.max))
    return numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(wanted)), name)


def _allowed(schema: onnx.defs.OpSchema, formal: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> set[str]:
    """The types that the schema allows for a parameter; the last one may stand for many."""
    text = formal[min(index, len(formal) - 1)].type_str
    constraints = {one.type_param_str: set(one.allowed_type_strs) for one in schema.type_constraints}
    return constraints.get(text, {text})


def _fixed_inputs(node: onnx.NodeProto, opset: int, text: str) -> set[int]:
    """The inputs that must stay float32."""
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    return {index for index in range(len(node.input)) if text not in _allowed(schema, schema.inputs, index)}


def rounded_results(graph: onnx.ModelProto, half: Half) -> onnx.ModelProto:
    """Return an imported fp32 graph whose network's weights, and the result of every operator, are rounded to 16 bits.

    What it answers is what a 16-bit precision costs the network. It is made without `half_graph`, which it judges.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    floats = _float_tensors(copied)
    weights = {name for node in graph.graph.node if node.name.startswith(PREFIX) for name in node.input}
    for tensor in copied.graph.initializer:
        if tensor.name in weights and tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > 1:
            low = rounded_tensor(tensor, half.onnx_type, tensor.name)
            tensor.CopyFrom(rounded_tensor(low, TensorProto.FLOAT, tensor.name))
    readers = Counter(name for node in graph.graph.node if node.name.startswith(PREFIX) for name in node.input)
    nodes: list[onnx.NodeProto] = []
    for original in graph.graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        nodes.append(node)
        inside = node.name.startswith(PREFIX) and node.op_type not in ROUNDS
        enters = not node.name.startswith(PREFIX) and readers[node.output[0]] > 0
        if (inside or enters) and node.output[0] in floats:
            name = node.output[0]
            node.output[0] = f"{name}.exact"
            nodes += [
                helper.make_node("Cast", [f"{name}.exact"], [f"{name}.low"], to=half.onnx_type, name=f"{name}.low"),
                helper.make_node("Cast", [f"{name}.low"], [name], to=TensorProto.FLOAT, name=f"{name}.rounded"),
            ]
    del copied.graph.node[:], copied.graph.value_info[:]
    copied.graph.node.extend(nodes)
    return copied
