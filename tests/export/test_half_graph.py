"""Graphs converted node by node to 16 bits: types, constants, branches, and operators that stay in fp32."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from rtk.core.errors import ArtifactError
from rtk.export.half_graph import in_half, rounded_tensor
from rtk.export.reduced_precision import HALVES, rounded_after_every_layer

FLOAT = TensorProto.FLOAT


def _graph(*nodes: onnx.NodeProto, **weights: np.ndarray) -> onnx.ModelProto:
    for number, node in enumerate(nodes):
        node.name = f"node{number}"
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 4])],
        [helper.make_tensor_value_info("logits", FLOAT, ["batch", None])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def _two_layers() -> onnx.ModelProto:
    return _graph(
        helper.make_node("Cast", ["images"], ["floats"], to=FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["pixels"]),
        helper.make_node("MatMul", ["pixels", "first"], ["hidden"]),
        helper.make_node("HardSwish", ["hidden"], ["active"]),
        helper.make_node("Cast", ["active"], ["same"], to=FLOAT),
        helper.make_node("Add", ["same", "scale"], ["moved"]),
        helper.make_node("MatMul", ["moved", "second"], ["logits"]),
        scale=np.array(255, np.float32),
        first=np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
        second=np.linspace(1, -2, 6, dtype=np.float32).reshape(3, 2),
    )


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_everything_after_the_start_has_16_bits_and_what_is_before_stays(precision: str) -> None:
    half = HALVES[precision]
    converted = in_half(_two_layers(), half, start="pixels")
    onnx.checker.check_model(converted, full_check=True)
    typed = onnx.shape_inference.infer_shapes(converted, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*typed.value_info, *typed.output)}
    assert (types["floats"], types["pixels"], types["logits"]) == (FLOAT, FLOAT, FLOAT)
    assert {types[name] for name in ("hidden", "same", "moved", "logits.half")} == {half.onnx_type}
    suffix = {"fp16": "float16", "bf16": "bfloat16"}[precision]
    weights = {tensor.name: tensor.data_type for tensor in converted.graph.initializer}
    assert weights["scale"] == FLOAT  # of the preprocessing
    assert {weights[name] for name in (f"{name}.{suffix}" for name in ("scale", "first", "second"))} == {half.onnx_type}
    assert set(weights) == {"scale", *(f"{name}.{suffix}" for name in ("scale", "first", "second"))}
    assert types["active"] == (FLOAT if precision == "bf16" else half.onnx_type)  # TensorRT has no HardSwish in bf16


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_its_logits_differ_from_the_originals_by_rounding(precision: str) -> None:
    graph = _two_layers()
    rounded = rounded_after_every_layer(in_half(graph, HALVES[precision], start="pixels"), HALVES[precision])
    images = np.random.default_rng(0).integers(0, 256, (50, 4), dtype=np.uint8)
    exact, found = (
        onnxruntime.InferenceSession(one.SerializeToString()).run(None, {"images": images})[0]
        for one in (graph, rounded)
    )
    unit = {"fp16": 2.0**-11, "bf16": 2.0**-8}[precision]
    assert 0 < np.abs(found - exact).max() < 4 * unit * np.abs(exact).max()


def test_numbers_out_of_range_become_the_largest_and_infinity_stays() -> None:
    values = np.array([1e9, -3.4e38, np.inf, -np.inf, 1 / 3], np.float32)
    found = numpy_helper.to_array(rounded_tensor(numpy_helper.from_array(values), TensorProto.FLOAT16, "new"))
    assert found.tolist() == [65504, -65504, np.inf, -np.inf, float(np.float16(1 / 3))]


def test_a_graph_with_a_branch_is_refused_in_one_line() -> None:
    result = helper.make_tensor_value_info("branch", FLOAT, None)
    branch = helper.make_graph([helper.make_node("Identity", ["pixels"], ["branch"])], "b", [], [result])
    graph = _graph(
        helper.make_node("Cast", ["images"], ["pixels"], to=FLOAT),
        helper.make_node("ReduceSum", ["pixels"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["condition"], to=TensorProto.BOOL),
        helper.make_node("If", ["condition"], ["logits"], then_branch=branch, else_branch=branch),
    )
    with pytest.raises(ArtifactError, match=r"graphs with branches or loops cannot be converted to a lower precision"):
        in_half(graph, HALVES["fp16"], start="pixels")
