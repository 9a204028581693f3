"""Read an ONNX classifier of another program, and bring it into a form that rtk can put its preprocessing in front of.

What comes out has one float32 input, a batch of any size, constants as initialisers, a name for every node, and only
operators of ONNX itself. Nothing here runs code of the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, inliner, numpy_helper

from ..core.artifacts.graph_card import CARD_KEY
from ..core.errors import ArtifactError
from ..core.files import sha256_of
from ..core.text import first_few

OWN_DOMAINS = ("", "ai.onnx")
FLOATS = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}
LARGEST_BYTES = 2**31 - 2**20
"""An ONNX file that holds its weights itself can have 2 GiB; the rest is for what rtk adds."""
IMAGE_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Foreign:
    """A graph of another program, changed only in form."""

    model: onnx.ModelProto
    input: str
    """The name of its input, which is float32 now."""
    shape: tuple[int | None, ...]
    """The shape of its input as it was; None: any number."""
    precision: str
    """Of its input as it was: fp32 or fp16."""
    opset: int
    producer: str
    sha256: str
    """Of the file."""
    original: onnx.ModelProto = field(repr=False)
    """As it was, with its weights."""

    @property
    def is_nhwc(self) -> bool:
        """Whether the channels are the last dimension, as in graphs of Keras."""
        return self.shape[3] in IMAGE_CHANNELS and self.shape[1] not in IMAGE_CHANNELS and self.shape[1] is not None

    @property
    def batch(self) -> int | None:
        """The number of images that it takes; None: any."""
        return self.shape[0]

    @property
    def image_shape(self) -> tuple[int | None, int | None, int | None]:
        """Height, width and channels; None: any number."""
        _, one, two, three = self.shape
        return (one, two, three) if self.is_nhwc else (two, three, one)


def read_foreign_graph(path: Path) -> Foreign:
    """Read a graph with its external data. Raises ArtifactError for what is no image classifier that rtk can take."""
    model = _loaded(path)
    original = onnx.ModelProto()
    original.CopyFrom(model)
    if model.functions:
        model = inliner.inline_local_functions(model)
    _check_operators(model, path)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ArtifactError(f"{path}: {len(inputs)} inputs ({_names(inputs)}), expected one: a batch of images")
    kind = inputs[0].type.tensor_type
    shape = tuple(one.dim_value if one.HasField("dim_value") else None for one in kind.shape.dim)
    if kind.elem_type not in FLOATS or len(shape) != 4:
        found = TensorProto.DataType.Name(kind.elem_type).lower()
        raise ArtifactError(
            f"{path}: its input {inputs[0].name!r} is {found} with {len(shape)} dimensions, expected float32 or "
            "float16 N x C x H x W"
        )
    opset = next((entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS), 1)
    del model.graph.input[:]
    model.graph.input.append(inputs[0])
    _lift_constants(model.graph)
    _check_mode(model.graph, path)
    in_fp32(model.graph)
    _name_nodes(model.graph)
    for node in all_nodes(model.graph):
        node.domain = ""
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    forget_traces(model)
    producer = " ".join(filter(None, (original.producer_name, original.producer_version))) or "an unknown program"
    return Foreign(model, inputs[0].name, shape, FLOATS[kind.elem_type], opset, producer, sha256_of(path), original)


def _loaded(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such graph")
    try:
        model = onnx.load(path)
    except (DecodeError, ValueError) as error:
        raise ArtifactError(f"{path}: truncated, damaged, or not an ONNX file") from error
    except (OSError, onnx.checker.ValidationError) as error:
        raise ArtifactError(
            f"{path}: the file with its weights cannot be read; expected it beside the graph: {_external(path)}"
        ) from error
    if not model.graph.node:
        raise ArtifactError(f"{path}: truncated, damaged, or not an ONNX file")
    if any(entry.key == CARD_KEY for entry in model.metadata_props):
        raise ArtifactError(f"{path}: is a graph of rtk already; it needs no import")
    if model.ByteSize() > LARGEST_BYTES:
        raise ArtifactError(f"{path}: {model.ByteSize() / 2**30:.1f} GiB with its weights, expected less than 2 GiB")
    return model


def _external(path: Path) -> str:
    graph = onnx.load(path, load_external_data=False).graph
    files = {one.value for tensor in graph.initializer for one in tensor.external_data if one.key == "location"}
    return first_few(sorted(files)) or "unknown"


def _names(values: list[onnx.ValueInfoProto]) -> str:
    return first_few([value.name for value in values]) or "none"


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from all_nodes(inner)


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in all_nodes(model.graph) if not _is_own(node)})
    if foreign:
        raise ArtifactError(
            f"{path}: uses operators that are no part of ONNX: {first_few(foreign)}; export it again without "
            "optimisations for one runtime"
        )


def _is_own(node: onnx.NodeProto) -> bool:
    return node.domain in OWN_DOMAINS


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Make initialisers of the tensors in Constant nodes: what reads weights and shapes looks there."""
    kept = []
    for node in graph.node:
        value = next((one for one in node.attribute if one.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = graph.initializer.add()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
        else:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)


def _check_mode(graph: onnx.GraphProto, path: Path) -> None:
    """Raise ArtifactError for a graph in training mode: its answers depend on the other images, or on chance."""
    flags = {tensor.name for tensor in graph.initializer if _is_true(tensor)}
    for node in all_nodes(graph):
        trains = any(one.name == "training_mode" and one.i for one in node.attribute)
        if trains or (node.op_type == "Dropout" and node.input[2:] and node.input[2] in flags):
            raise ArtifactError(
                f"{path}: was exported in training mode ({node.op_type}); export it again after network.eval()"
            )


def _is_true(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == TensorProto.BOOL and bool(numpy_helper.to_array(tensor).all())


def in_fp32(graph: onnx.GraphProto) -> None:
    """Turn every fp16 tensor of a graph into fp32, in place."""
    for tensor in graph.initializer:
        _widen(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.HasField("t"):
                _widen(attribute.t)
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                in_fp32(inner)


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own: int8 and --keep-fp32 need one."""
    used: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in used:
            node.name = f"{node.op_type}_{number}"
        used.add(node.name)


def forget_traces(model: onnx.ModelProto) -> None:
    """Remove descriptions and metadata, which may hold paths of the machine that exported it."""
    model.doc_string, model.graph.doc_string, model.graph.name = "", "", "rtk"
    model.producer_name, model.producer_version, model.domain = "rtk", "", ""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.quantization_annotation[:]
    for item in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    for node in all_nodes(model.graph):
        node.doc_string = ""
        del node.metadata_props[:]
