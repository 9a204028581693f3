"""The work of one network is the same in every precision; only its bytes differ."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from rtk.bench.roofline.graph_cost import _tensors, operations_of
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.data.open_dataset import open_dataset
from rtk.core.data.synthetic_shapes import SHAPES_CLASSES
from rtk.core.errors import ArtifactError
from rtk.workflow.artifacts import cached_graph

FLAVORS = ("cpu", "tensorrt")


@pytest.fixture
def graphs(shapes_model: Path) -> dict[str, Path]:
    """The graphs of one network in every precision."""
    shapes = open_dataset("shapes")
    graphs = {name: cached_graph(shapes_model, precision=name) for name in ("fp32", "fp16", "bf16")}
    int8 = {
        flavor: cached_graph(shapes_model, precision="int8", int8_flavor=flavor, dataset=shapes) for flavor in FLAVORS
    }
    return graphs | int8


def test_matrix_operations_are_the_same_in_every_precision(graphs: dict[str, Path]) -> None:
    counted = {name: operations_of(path) for name, path in graphs.items()}
    assert {one.matrix for one in counted.values()} == {counted["fp32"].matrix}
    assert {one.other for one in counted.values()} == {counted["fp32"].other}
    assert {(one.image_bytes, one.logits_bytes) for one in counted.values()} == {(32 * 32 * 3, 4 * len(SHAPES_CLASSES))}
    halved = counted["fp32"].between_bytes / counted["fp16"].between_bytes
    assert 1.8 < halved < 2


def test_weights_have_the_bytes_of_the_graph(graphs: dict[str, Path], shapes_model: Path) -> None:
    named = load_checkpoint(shapes_model).weights.items()
    weights = sum(one.numel() for name, one in named if one.ndim > 1 and name.startswith("network."))
    counted = {name: operations_of(path).weight_bytes for name, path in graphs.items()}
    for name, size in (("fp32", 4), ("fp16", 2), ("bf16", 2)):
        assert size * weights < counted[name] < 1.02 * size * weights
    dense = sum(one.numel() for name, one in named if name == "network.head.dense.weight")
    for name in FLAVORS:  # biases, scales and zero points are wider, and more beside so few weights
        int8 = [
            numpy_helper.to_array(one)
            for one in onnx.load(graphs[name]).graph.initializer
            if one.data_type == onnx.TensorProto.INT8
        ]
        in_fp32 = dense if name == "cpu" else 0
        assert sum(one.size for one in int8 if one.ndim > 1) == weights - in_fp32
        assert weights + 3 * in_fp32 < counted[name] < 1.1 * weights + 3 * in_fp32
        assert all(one.dtype == np.int8 for one in int8)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_the_float_values_of_int8_weights_are_not_between_layers(
    graphs: dict[str, Path], tmp_path: Path, flavor: str
) -> None:
    """As many bytes are between the layers of the same graph with its weights in fp32."""
    graph = onnx.load(graphs[flavor])
    kept = {one.name: numpy_helper.to_array(one) for one in graph.graph.initializer}
    nodes = []
    for node in graph.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in kept:
            values, scale = kept[node.input[0]].astype(np.float32), kept[node.input[1]]
            wide = values * (scale.reshape(-1, *[1] * (values.ndim - 1)) if scale.ndim else scale)
            graph.graph.initializer.append(numpy_helper.from_array(wide.astype(np.float32), node.output[0]))
        else:
            nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    onnx.save(graph, tmp_path / "wide.onnx")
    assert operations_of(tmp_path / "wide.onnx").between_bytes == operations_of(graphs[flavor]).between_bytes


def unknown_shape(path: Path, graph: Path) -> Path:
    """The graph with its logits multiplied by ones, whose count depends on a value that a square root gives."""
    model = onnx.load(graph)
    logits = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == logits else name for name in node.output]
    for name, value in (("root", np.array([1.0], np.float32)), ("one", np.ones(1, np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.node.extend(
        [
            helper.make_node("Sqrt", ["root"], ["rooted"]),
            helper.make_node("Cast", ["rooted"], ["count"], to=onnx.TensorProto.INT64),
            helper.make_node("Expand", ["one", "count"], ["ones"]),
            helper.make_node("Mul", ["before", "ones"], [logits]),
        ]
    )
    onnx.save(model, path)
    return path


def test_a_graph_whose_shapes_are_unknown_is_not_counted(graph_path: Path, tmp_path: Path) -> None:
    assert operations_of(graph_path).matrix > 0
    with pytest.raises(ArtifactError, match="the shape of 'ones' is unknown, so the operations cannot be counted$"):
        operations_of(unknown_shape(tmp_path / "unknown.onnx", graph_path))


def test_a_dimension_without_a_value_or_a_name_is_unknown() -> None:
    """Protocol buffers read a missing number as 0: a layer with such a dimension would cost nothing."""
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in SHAPES.items()]
    shapes, sizes = _tensors(helper.make_graph([], "a", values, []))
    assert shapes == {"known": (2, 3), "scalar": ()}
    assert sizes == {"known": 24, "scalar": 4}


SHAPES = {"known": (2, 3), "scalar": (), "named": ("n", 3), "missing": (None, 3), "any rank": None}
