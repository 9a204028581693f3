"""int8: the graphs of both flavours, the calibration images that are refused, and the cost of layers."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fakes.parity_network import fitted_checkpoint, patterns, patterns_dataset
from onnx import TensorProto, helper
from rtk.core.artifacts.checkpoint import Checkpoint
from rtk.core.artifacts.graph import load_graph
from rtk.core.card import ModelCard
from rtk.core.data.datasets import Dataset, Split
from rtk.core.errors import ArtifactError, DataError, UnknownNameError, UsageError
from rtk.core.machine import Machine, this_machine
from rtk.core.nvidia.flavor import FLAVORS
from rtk.core.tolerances import largest_share
from rtk.export import config as config_module
from rtk.export.config import INT8_FLAVORS, METHODS, EngineConfig, Int8Config
from rtk.export.int8 import calibration as calibration_module
from rtk.export.int8 import quantize as quantize_module
from rtk.export.int8 import weights as weights_module
from rtk.export.int8.calibration import (
    Calibration,
    check_images,
    content_hashes,
    draw_calibration,
    shares_of,
)
from rtk.export.int8.placement import last_dense_layers, layer_names
from rtk.export.int8.qdq import with_quantisation
from rtk.export.int8.quantize import Closeness, int8_from_checkpoint, margin_error
from rtk.export.int8.ranges import Histogram, range_of
from rtk.export.int8.sensitivity import explain
from rtk.export.int8.weights import RoundedWeights, channel_scales, rounded_with_compensation, second_moments
from rtk.export.to_onnx import graph_from_checkpoint
from rtk.export.trt.build import engine_from_onnx
from torch import nn

real_rtx = pytest.mark.skipif(not FLAVORS["tensorrt-rtx"].installed, reason="needs the package tensorrt-rtx")
Graphs = dict[str, Path]


@pytest.fixture(scope="module")
def checkpoint(card: ModelCard, randomise: Callable[..., None]) -> Checkpoint:
    return fitted_checkpoint(card, randomise)


@pytest.fixture(scope="module")
def calibration(checkpoint: Checkpoint) -> Calibration:
    return draw_calibration(patterns_dataset(), checkpoint.card, images=500, held_out=200)


@pytest.fixture(scope="module")
def graphs(checkpoint: Checkpoint, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    folder = tmp_path_factory.mktemp("int8")
    return {
        flavor: int8_from_checkpoint(
            checkpoint,
            folder / f"{flavor}.int8.onnx",
            calibration=calibration,
            config=Int8Config(flavor, weight_bits="8"),
        ).path
        for flavor in INT8_FLAVORS
    }


# The graphs.


def _quantised_inputs(graph: onnx.ModelProto) -> dict[str, list[bool]]:
    """For each convolution, dense layer and addition: do inputs 0 and 1 come from a DequantizeLinear?"""
    maker = {name: node.op_type for node in graph.graph.node for name in node.output}
    kinds = ("Conv", "Gemm", "Add")
    return {
        node.name: [maker.get(name) == "DequantizeLinear" for name in node.input[:2]]
        for node in graph.graph.node
        if node.op_type in kinds
    }


# Layers of resnet8v1: how many of each operator have these inputs in int8.
QUANTISED_INPUTS = {
    "tensorrt": {("Conv", True, True): 9, ("Gemm", True, True): 1, ("Add", False, True): 3},
    "cpu": {
        ("Conv", True, True): 9,
        ("Gemm", False, False): 1,
        ("Add", True, True): 3,
    },
    "openvino": {("Conv", True, True): 9, ("Gemm", False, False): 1, ("Add", False, True): 3},
}


@pytest.mark.parametrize("flavor", INT8_FLAVORS)
def test_each_runtime_gets_the_quantised_inputs_that_suit_it(graphs: Graphs, flavor: str) -> None:
    graph = onnx.load(graphs[flavor])
    operators = {node.name: node.op_type for node in graph.graph.node}
    found = Counter((operators[name], *inputs) for name, inputs in _quantised_inputs(graph).items())
    assert found == QUANTISED_INPUTS[flavor]
    assert graph.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_the_graph_for_tensorrt_has_symmetric_int8_and_biases_in_fp32(graphs: Graphs) -> None:
    graph = onnx.load(graphs["tensorrt"])
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    zero_points = [
        weights[node.input[2]] for node in graph.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zero_points)
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    assert all(weights[node.input[2]].dtype == np.float32 for node in convolutions)
    assert not any(array.dtype == np.int32 for array in weights.values())


@pytest.mark.parametrize("flavor", ["cpu", "openvino"])
def test_the_graphs_for_cpus_have_uint8_activations(graphs: Graphs, flavor: str) -> None:
    graph = onnx.load(graphs[flavor])
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    activations = [weights[node.input[2]].dtype for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert set(activations) == {np.dtype(np.uint8)}
    biases = [array for array in weights.values() if array.dtype == np.int32 and array.any()]
    assert len(biases) == (9 if flavor == "cpu" else 0)


def _largest_weight(graph: onnx.ModelProto) -> int:
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer]
    kernels = [array for array in arrays if array.dtype == np.int8 and array.ndim == 4]
    assert len(kernels) == 9
    return max(int(np.abs(kernel.astype(np.int16)).max()) for kernel in kernels)


def _machine(system: str, *features: str) -> Machine:
    return replace(this_machine(), system=system, features=features)


@pytest.mark.parametrize(
    ("machine", "saturates"),
    [
        (_machine("Linux x86_64", "avx2", "avx512f"), True),
        (_machine("Windows AMD64"), True),
        (_machine("Linux x86_64", "avx2", "avx_vnni"), False),
        (_machine("Linux x86_64", "avx2", "avx512f", "avx512_vnni"), False),
        (_machine("Linux x86_64", "avx2", "amx_int8"), False),
        (_machine("Linux aarch64"), False),
        (_machine("Darwin arm64"), False),
    ],
    ids=lambda value: f"{value.system} {' '.join(value.features)}" if isinstance(value, Machine) else "",
)
def test_weights_have_seven_bits_where_int8_kernels_saturate(
    machine: Machine, saturates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "this_machine", lambda: machine)
    assert machine.int8_saturates == saturates
    assert [Int8Config(flavor).bits for flavor in INT8_FLAVORS] == [8, *(2 * [7 if saturates else 8])]
    assert [Int8Config("cpu", weight_bits=bits).bits for bits in ("7", "8")] == [7, 8]


@pytest.mark.parametrize(
    ("bits", "features", "line"),
    [
        ("auto", ("avx2",), "weights in 7 bits: for x86 processors without VNNI, as this one is"),
        (
            "auto",
            ("avx_vnni",),
            "weights in 8 bits: for processors with VNNI or its like, as this one has; for others",
        ),
        ("7", ("avx_vnni",), "weights in 7 bits: for x86 processors without VNNI"),
        ("8", ("avx2",), "weights in 8 bits: this processor has no VNNI: only ONNX Runtime computes them right here"),
    ],
)
def test_the_log_and_the_card_say_how_many_bits_the_weights_have(
    checkpoint: Checkpoint, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, bits: Any, features: tuple[str, ...], line: str,
) -> None:  # fmt: skip
    machine = _machine("Linux x86_64", *features)
    for module in (config_module, quantize_module):
        monkeypatch.setattr(module, "this_machine", lambda: machine)
    config = Int8Config("cpu", method="minmax", weight_bits=bits)
    with caplog.at_level(logging.INFO, "rtk.export.int8.quantize"):
        done = int8_from_checkpoint(checkpoint, tmp_path / "a.onnx", calibration=calibration, config=config)
    assert line in " ".join(caplog.text.split())
    graph, card = load_graph(done.path)
    expected = int(line.split()[2])
    assert card.weight_bits == card.notes["export"]["weight_bits"] == expected
    assert f"in {expected} bits" in card.notes["export"]["weights"]
    assert _largest_weight(graph) == {7: 63, 8: 127}[expected]


@pytest.mark.parametrize("flavor", INT8_FLAVORS)
def test_the_card_says_how_the_graph_was_quantised(
    graphs: Graphs, flavor: str, checkpoint: Checkpoint, calibration: Calibration
) -> None:
    _, card = load_graph(graphs[flavor])
    assert card.precision == "int8"
    note = card.notes["export"]
    assert note["flavor"] == flavor
    errors, largest = note["relative_logit_errors"], note["largest_logit_shares"]
    margins = note["margin_errors"]
    assert set(margins) == set(METHODS)
    close = [name for name in margins if errors[name] <= 0.1 and largest[name] <= 1.0]
    assert note["method"] == min(close, key=margins.__getitem__)
    assert note["kept_fp32"] == ([] if flavor == "tensorrt" else ["network.head.dense"])
    assert note["calibration"] == calibration.note()
    assert note["calibration"]["images"] == 500
    assert len(note["calibration"]["sha256"]) == 64
    assert "integer kernels" in note["unchecked"]


def test_closeness_is_the_larger_share_of_two_limits() -> None:
    """For logits of standard deviation 2, int8 may have an RMS error of 0.1 x 2 and a largest error of 1 x 2."""
    reference_NK = np.tile(np.array([[2.0, -2.0]], np.float32), (200, 1))
    even, peak = reference_NK + 0.1, reference_NK.copy()
    peak[7, 0] += 1.5
    assert astuple(Closeness.of(even, reference_NK)) == pytest.approx((0.05, 0.1, 0.05, 0.0), rel=1e-4, abs=1e-6)
    assert Closeness.of(even, reference_NK).share_of_limits == pytest.approx(0.5, rel=1e-4)
    assert astuple(Closeness.of(peak, reference_NK)) == pytest.approx((0.0375, 1.5, 0.75, 0.15), rel=1e-4)
    peak[7, 0] += 1.0
    assert Closeness.of(peak, reference_NK).share_of_limits == pytest.approx(1.25, rel=1e-4)


def test_the_margin_error_counts_the_two_largest_logits_of_the_less_sure_half() -> None:
    """Margins 1, 2, 8 and 9: only the first two images count, and only the classes 0 and 1."""
    reference_NK = np.array([[1, 0, -5], [2, 0, -5], [0, 8, -5], [9, 0, -5]], np.float32)
    found_NK = reference_NK + np.array([[0.3, 0, 3], [0, 0.4, 3], [5, 0, 0], [0, 5, 0]], np.float32)
    assert margin_error(found_NK, reference_NK) == pytest.approx(((0.3**2 + 0.4**2) / 2) ** 0.5)
    assert margin_error(reference_NK + 7, reference_NK) == 0
    assert margin_error(reference_NK[:, :1], reference_NK[:, :1]) == margin_error(found_NK[:0], found_NK[:0]) == 0


def test_an_image_with_larger_logits_may_have_a_larger_error() -> None:
    """In 199 images the logits are 2 from their mean; in one they are 20, and an error of 3 is 3 / 20 of that."""
    reference_NK = np.tile(np.array([[2.0, -2.0]], np.float32), (200, 1))
    reference_NK[5] *= 10
    clipped = reference_NK.copy()
    clipped[5, 0] -= 3
    assert largest_share(clipped, reference_NK) == pytest.approx(0.15)
    clipped[6, 0] -= 3  # in any other image, over the deviation of all logits: the root of (199 x 4 + 400) / 200
    assert largest_share(clipped, reference_NK) == pytest.approx(3 / ((199 * 4 + 400) / 200) ** 0.5)


@real_rtx
def test_tensorrt_builds_an_int8_engine(graphs: Graphs) -> None:
    built = engine_from_onnx(EngineConfig(graphs["tensorrt"], max_batch=16, targets=("8.9",)))
    assert built.info.precision.label == built.info.card.precision == "int8"
    assert built.info.precision.products == {"int8": 10}


@real_rtx
def test_tensorrt_builds_int8_engines_of_pre_activation_networks(
    card: ModelCard, randomise: Callable[..., None], tmp_path: Path
) -> None:
    checkpoint = fitted_checkpoint(card, randomise, arch="resnet11v2")
    calibration = draw_calibration(patterns_dataset(), checkpoint.card, images=500, held_out=100)
    done = int8_from_checkpoint(
        checkpoint, tmp_path / "a.int8.onnx", calibration=calibration, config=Int8Config(method="minmax")
    )
    built = engine_from_onnx(EngineConfig(done.path, max_batch=16, targets=("8.9",)))
    assert built.info.precision.label == "int8"


# Layers.


def test_a_layer_of_keep_fp32_stays_in_fp32(checkpoint: Checkpoint, calibration: Calibration, tmp_path: Path) -> None:
    config = Int8Config(method="minmax", keep_fp32=("network.stem.0", "network.head.dense"))
    done = int8_from_checkpoint(checkpoint, tmp_path / "a.onnx", calibration=calibration, config=config)
    found = Counter(tuple(inputs) for inputs in _quantised_inputs(onnx.load(done.path)).values())
    assert found == {(True, True): 8, (False, True): 3, (False, False): 2}
    assert load_graph(done.path)[1].notes["export"]["kept_fp32"] == ["network.stem.0", "network.head.dense"]


@pytest.mark.parametrize("arch", ["resnet8v1", "resnet11v2"])
def test_the_last_dense_layer_is_found(card: ModelCard, randomise: Callable[..., None], arch: str) -> None:
    graph = graph_from_checkpoint(fitted_checkpoint(card, randomise, arch=arch))
    layers = {node: layer for layer, node in layer_names(graph).items()}
    assert [layers[node] for node in last_dense_layers(graph)] == ["network.head.dense"]


def test_the_error_for_an_unknown_layer_suggests_a_known_one(
    checkpoint: Checkpoint, calibration: Calibration, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match=r"layer 'network\.stem\.1' is unknown; did you mean network\.stem\.0"):
        int8_from_checkpoint(
            checkpoint, tmp_path / "a.onnx", calibration=calibration, config=Int8Config(keep_fp32=("network.stem.1",))
        )


def test_explain_lists_every_layer_with_the_costliest_first(checkpoint: Checkpoint, calibration: Calibration) -> None:
    costs = explain(checkpoint, calibration=calibration)
    assert Counter(cost.operator for cost in costs) == {"Conv": 9, "Gemm": 1, "Add": 3}
    assert {"network.stem.0", "network.head.dense", "network.blocks.2.projection"} <= {cost.layer for cost in costs}
    errors = [cost.relative_error for cost in costs]
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[-1] < errors[0] < 0.1


def test_an_int8_graph_with_too_large_an_error_is_not_written(
    checkpoint: Checkpoint, calibration: Calibration, tmp_path: Path
) -> None:
    flat = replace(calibration, images_NHWC=np.full_like(calibration.images_NHWC, 128))
    with pytest.raises(
        ArtifactError,
        match=r"a\.onnx: not written: relative RMS error of the logits .* with --keep-fp32 LAYER$",
    ):
        int8_from_checkpoint(checkpoint, tmp_path / "a.onnx", calibration=flat, config=Int8Config())
    assert list(tmp_path.iterdir()) == []


def test_invalid_options_are_refused() -> None:
    wrong: Any = "tpu"
    with pytest.raises(UnknownNameError, match="int8 flavor 'tpu' is unknown; .*known: tensorrt, cpu, openvino"):
        Int8Config(wrong)
    with pytest.raises(UnknownNameError, match="calibration method 'tpu' is unknown; .*known: auto, minmax"):
        Int8Config(method=wrong)
    with pytest.raises(UsageError, match="--calibration-images 31: expected at least 32"):
        Int8Config(calibration_images=31)
    with pytest.raises(UnknownNameError, match="number of weight bits 'tpu' is unknown; .*known: auto, 7, 8"):
        Int8Config(weight_bits=wrong)
    with pytest.raises(UsageError, match="--int8-weight-bits 7: for CPUs only"):
        Int8Config(weight_bits="7")


# Weights.


def _output_error(weights_OD: np.ndarray, values_OD: np.ndarray, scales_O: np.ndarray, inputs_SD: np.ndarray) -> float:
    return float((((weights_OD - values_OD * scales_O[:, None]) @ inputs_SD.T) ** 2).mean())


@pytest.mark.parametrize("inputs", [27, 300], ids=["one block", "several blocks"])
def test_compensated_rounding_changes_the_results_of_a_layer_less_than_plain_rounding(inputs: int) -> None:
    random = np.random.default_rng(0)
    mixing_DD = random.normal(size=(inputs, inputs)) * np.geomspace(1, 1e-3, inputs)  # neighbours in images are alike
    inputs_SD = random.normal(size=(2_000, inputs)) @ mixing_DD.T
    weights_OD = random.normal(size=(6, inputs)).astype(np.float32)
    scales_O = channel_scales(weights_OD, 8)
    moments_DD = inputs_SD.T @ inputs_SD / len(inputs_SD)
    plain_OD = np.clip(np.round(weights_OD / scales_O[:, None]), -127, 127)
    found_OD = rounded_with_compensation(weights_OD, scales_O, moments_DD, bits=8)
    assert found_OD.dtype == np.int8
    assert np.abs(found_OD - weights_OD / scales_O[:, None]).max() < 4
    compensated, plain = (_output_error(weights_OD, one, scales_O, inputs_SD) for one in (found_OD, plain_OD))
    assert compensated < plain / 3


def test_uncorrelated_inputs_of_equal_size_leave_plain_rounding() -> None:
    weights_OD = np.random.default_rng(0).normal(size=(4, 200)).astype(np.float32)
    scales_O = channel_scales(weights_OD, 8)
    found_OD = rounded_with_compensation(weights_OD, scales_O, np.eye(200), bits=8)
    np.testing.assert_array_equal(found_OD, np.round(weights_OD / scales_O[:, None]))


def test_a_channel_of_zeros_and_inputs_that_are_always_zero_are_no_trouble() -> None:
    weights_OD = np.array([[0, 0, 0], [1.1, -2, 0.5]], np.float32)
    scales_O = channel_scales(weights_OD, 7)
    found_OD = rounded_with_compensation(weights_OD, scales_O, np.zeros((3, 3)), bits=7)
    np.testing.assert_array_equal(found_OD, [[0, 0, 0], [35, -63, 16]])


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(3, 4, 3, stride=2, padding=(1, 2)),
        nn.Conv2d(3, 4, 1, stride=2),
        nn.Conv2d(3, 4, (3, 1), dilation=2),
        nn.Conv2d(3, 6, 3, groups=3),
        nn.Linear(6, 4),
    ],
    ids=str,
)
def test_second_moments_are_those_of_what_the_weights_are_multiplied_with(
    layer: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean square of the layer's results without bias is w M w for each channel w, if no place is left out."""
    monkeypatch.setattr(weights_module, "POSITIONS", 10**6)
    monkeypatch.setattr(weights_module, "BATCH", 3)
    values = np.random.default_rng(0).normal(size=(7, 6) if isinstance(layer, nn.Linear) else (7, 3, 9, 11))
    inputs = torch.from_numpy(values.astype(np.float32))
    with torch.inference_mode():
        results = (layer(inputs) - layer(torch.zeros_like(inputs))).transpose(0, 1).flatten(1).double()
        weights_OD = layer.weight.flatten(1).double().numpy()
    graph = _graph_of(layer, inputs)
    node = next(one for one in graph.graph.node if one.op_type in ("Conv", "Gemm"))
    moments_GDD = second_moments(graph, [node], inputs.numpy())[node.name]
    weights_GOD = np.stack(np.array_split(weights_OD, len(moments_GDD)))
    expected_O = results.square().mean(dim=1).numpy()
    found_O = np.einsum("god,gde,goe->go", weights_GOD, moments_GDD, weights_GOD).reshape(-1)
    np.testing.assert_allclose(found_O, expected_O, rtol=1e-4)


def _graph_of(layer: nn.Module, inputs: torch.Tensor) -> onnx.ModelProto:
    """The layer as a graph whose input has the name and place of rtk's, but holds floating-point numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            layer, (inputs[:2],), dynamo=True, verbose=False, input_names=["images"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
    assert program is not None
    return program.model_proto


# Biases.


def test_a_bias_that_overflows_stays_in_fp32() -> None:
    """The steps of a bias are those of activations times weights; with tiny weights they are too small for 32 bits."""
    values = {
        "w": np.array([[1.0], [1e-9]], np.float32).reshape(2, 1, 1, 1),
        "b": np.array([1.0, 1.0], np.float32),
    }
    for tiny, bias_in_fp32 in ((1e-9, True), (1e-2, False)):
        values["w"][1] = tiny
        graph = helper.make_model(
            helper.make_graph(
                [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="c")],
                "one",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 2, 2])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 2, 2])],
                [onnx.numpy_helper.from_array(array, name) for name, array in values.items()],
            ),
            opset_imports=[helper.make_opsetid("", 20)],
        )
        scales_O = channel_scales(values["w"].reshape(2, 1), 8)
        weights = {"w": RoundedWeights(np.array([127, 127], np.int8).reshape(2, 1, 1, 1), scales_O, 0)}
        found = with_quantisation(graph, {("c", 0)}, {"x": (0.0, 1.0)}, weights, symmetric=False, quantise_biases=True)
        convolution = next(node for node in found.graph.node if node.op_type == "Conv")
        assert (convolution.input[2] == "b") == bias_in_fp32


# Ranges.


def test_a_single_outlier_widens_only_the_range_of_minmax() -> None:
    counts = np.zeros(2048, np.int64)
    counts[:20] = 1_000_000
    counts[-1] = 1
    histogram = Histogram(counts, 0.0, 100.0)
    assert range_of(histogram, "minmax", symmetric=True) == (0.0, 100.0)
    assert range_of(histogram, "percentile-99.999", symmetric=True)[1] == pytest.approx(100 * 20 / 2048, rel=0.01)
    assert range_of(histogram, "mse", symmetric=True)[1] < 100


def test_a_percentile_cuts_half_of_its_share_off_at_each_end() -> None:
    histogram = Histogram(np.full(2048, 1_000, np.int64), -10.24, 10.24)
    histogram.counts[[0, 1, -2, -1]] = 40, 100, 100, 40  # of 2,044,280 values, 102 may be left out at each end
    low, high = range_of(histogram, "percentile-99.99", symmetric=False)
    assert (low, high) == pytest.approx((-10.23, 10.23))
    assert range_of(replace(histogram, low=0.0), "percentile-99.99", symmetric=False)[0] == 0


def test_mse_moves_both_ends_of_a_range_together_or_each_on_its_own() -> None:
    """The thin tail below zero is cut off; the dense part above zero is kept whole only if its end can stay."""
    counts = np.zeros(2048, np.int64)
    counts[0] = 1
    counts[1_000:2_048] = 1_000_000
    histogram = Histogram(counts, -100.0, 104.8)
    together = range_of(histogram, "mse", symmetric=False)
    assert together[0] / -100 == pytest.approx(together[1] / 104.8)
    low, high = range_of(histogram, "mse-each-end", symmetric=False)
    assert low == pytest.approx(-30)
    assert high == pytest.approx(104.8)


# Calibration images.


def test_calibration_images_are_reproducible_and_from_the_training_split(
    checkpoint: Checkpoint, calibration: Calibration
) -> None:
    again = draw_calibration(patterns_dataset(), checkpoint.card, images=500, held_out=200)
    other = draw_calibration(patterns_dataset(), checkpoint.card, images=500, held_out=200, seed=1)
    assert again.note() == calibration.note()
    assert other.note()["sha256"] != calibration.note()["sha256"]
    drawn, held_out = (set(content_hashes(one)) for one in (calibration.images_NHWC, calibration.held_out_NHWC))
    assert drawn <= set(content_hashes(patterns_dataset().split("train").images_NHWC))
    assert not drawn & held_out


@pytest.mark.parametrize("classes", [201, 999, 1_001])
def test_many_classes_have_one_image_more_or_less_each(checkpoint: Checkpoint, classes: int) -> None:
    """1,000 images are 4 or 5 of each of 201 classes, and 1 or 0 of 1,001: then each has one."""
    names = tuple(f"class {k}" for k in range(classes))
    images = patterns(8 * classes + 600, seed=3)
    of_train = Split(images.images_NHWC[: 8 * classes], np.arange(8 * classes) % classes)
    of_test = Split(images.images_NHWC[8 * classes :], np.arange(600) % classes)
    many = replace(patterns_dataset(), classes=names, read=lambda name: of_train if name == "train" else of_test)
    drawn = draw_calibration(many, replace(checkpoint.card, classes=names))
    assert max(1_000, classes) == len(drawn.images_NHWC)


def test_a_fifth_of_a_small_training_split_is_held_out(checkpoint: Checkpoint) -> None:
    small = replace(patterns_dataset(), read=lambda name: patterns(700 if name == "train" else 100, seed=3 + len(name)))
    drawn = draw_calibration(small, checkpoint.card)
    assert (len(drawn.images_NHWC), len(drawn.held_out_NHWC)) == (560, 140)  # 56 and 14 of the 70 in each class


def test_with_plenty_of_images_the_same_ones_are_drawn_as_ever(checkpoint: Checkpoint) -> None:
    """Kept figures depend on them. The rule of old, written out: equal shares of each class's own permutation."""
    data, card = patterns_dataset(), checkpoint.card
    train, random = data.split("train"), np.random.default_rng(0)
    drawn, held = [], []
    for label in range(10):
        index = random.permutation(np.flatnonzero(train.labels_N == label))
        share = 51 if label < 3 else 50
        drawn.append(index[:share])
        held.append(index[share : share + 20])
    found = draw_calibration(data, card, images=503, held_out=200)
    assert np.array_equal(found.images_NHWC, train.images_NHWC[np.sort(np.concatenate(drawn))])
    assert np.array_equal(found.held_out_NHWC, train.images_NHWC[np.sort(np.concatenate(held))])


@pytest.mark.parametrize(
    ("available", "images", "shares"),
    [
        ([124] * 8, 800, [100] * 8),  # just enough: 100, and 24 that are held out
        ([123] * 8, 800, [98] * 4 + [99] * 4),  # 196 of the 984 stay held out
        ([100, 100, 1], 1_000, [80, 80, 1]),
        ([900, 10, 1], 1_000, [720, 8, 1]),
        ([900, 10, 1], 100, [91, 8, 1]),
        ([16, 16], 1_000, [13, 13]),
        ([0, 50], 1_000, [0, 40]),
        ([1] * 40, 1_000, [0] * 8 + [1] * 32),
        ([1_000, 1, 1], 32, [30, 1, 1]),
        ([8] * 1_001, 1_000, [1] * 1_001),
    ],
)
def test_classes_with_too_few_images_give_what_they_have_and_others_the_rest(
    available: list[int], images: int, shares: list[int]
) -> None:
    assert shares_of(available, images) == shares


def uneven(counts: list[int], *, leaked: int = 0) -> Dataset:
    """Patterns with so many training images of each class; `leaked` of the test images are training images too."""
    many, of_test = patterns(2_000, seed=5), patterns(100, seed=6)
    train = many.take(np.concatenate([np.flatnonzero(many.labels_N == k)[:n] for k, n in enumerate(counts)]))
    test = Split(
        np.concatenate([train.images_NHWC[:leaked], of_test.images_NHWC]),
        np.concatenate([train.labels_N[:leaked], of_test.labels_N]),
    )
    return replace(patterns_dataset(), read=lambda name: train if name == "train" else test)


def test_a_small_uneven_set_is_calibrated_with_one_warning(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calibration_module, "_warned", set())
    data = uneven([14, 1, 2, 3, 4, 5, 6, 7, 8, 10])
    with caplog.at_level(logging.WARNING, "rtk.export.int8.calibration"):
        drawn = draw_calibration(data, checkpoint.card)
        draw_calibration(data, checkpoint.card)  # a benchmark draws them for every flavor
    assert (len(drawn.images_NHWC), len(drawn.held_out_NHWC)) == (48, 12)
    assert [" ".join(record.getMessage().split()) for record in caplog.records] == [
        "patterns: only 48 calibration images, 500 or more are better; uneven calibration images, 1 of 'pattern 1' "
        "and 8 of 'pattern 0': the int8 ranges are less certain, and more answers may change; --require-parity "
        "measures it on the test split"
    ]
    done = int8_from_checkpoint(
        checkpoint, tmp_path / "a.onnx", calibration=drawn, config=Int8Config("cpu", method="minmax")
    )
    assert load_graph(done.path)[1].notes["export"]["calibration"]["images"] == 48
    assert done.images == 12


def test_enough_even_images_give_no_warning(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calibration_module, "_warned", set())
    draw_calibration(patterns_dataset(), checkpoint.card, images=500, held_out=200)
    assert not caplog.records
    assert len(draw_calibration(patterns_dataset(), checkpoint.card, images=32).images_NHWC) == 32
    assert "only 32 calibration images" in " ".join(caplog.text.split())


def test_fewer_images_than_the_least_number_are_refused_and_duplicates_of_test_images_do_not_count(
    checkpoint: Checkpoint,
) -> None:
    least = [4, 4, *[3] * 8]
    assert len(draw_calibration(uneven(least), checkpoint.card).images_NHWC) == 26
    with pytest.raises(DataError, match=r"^patterns: 31 training images, expected at least 32 to calibrate int8; add"):
        draw_calibration(uneven([3, 4, *[3] * 8]), checkpoint.card)
    message = r"^patterns: 30 training images that are not in the test split too \(found 32, of which 2 are\), expected"
    with pytest.raises(DataError, match=message):
        draw_calibration(uneven(least, leaked=2), checkpoint.card)
    data = uneven([6, *[4] * 9], leaked=2)
    leaked = set(content_hashes(data.split("test").images_NHWC))
    drawn = draw_calibration(data, checkpoint.card)
    assert not leaked & set(content_hashes(np.concatenate([drawn.images_NHWC, drawn.held_out_NHWC])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda split: Split(split.images_NHWC[:, :8], split.labels_N), r"images \(8, 16, 3\), expected \(16, 16, 3\)"),
        (lambda split: Split(split.images_NHWC, split.labels_N + 1), "label 10 found, expected 0 to 9"),
        (
            lambda split: Split(
                np.random.default_rng(0).integers(0, 256, split.images_NHWC.shape, dtype=np.uint8), split.labels_N
            ),
            r"the calibration images are random noise \(roughness 1\.0",
        ),
        (
            lambda split: Split(
                np.concatenate([patterns_dataset().split("test").images_NHWC[:2], split.images_NHWC[2:]]),
                split.labels_N,
            ),
            "2 calibration images are also in the test split, the first at index 0",
        ),
    ],
    ids=["another size", "label out of range", "noise", "in the test split"],
)
def test_unsuitable_calibration_images_are_refused(
    checkpoint: Checkpoint, change: Callable[[Split], Split], message: str
) -> None:
    good, test = patterns(600, seed=11), patterns_dataset().split("test")
    check_images(good, checkpoint.card, test=test, name="mine")
    with pytest.raises(DataError, match=f"^mine: .*{message}"):
        check_images(change(good), checkpoint.card, test=test, name="mine")


def test_a_data_set_with_other_classes_is_refused(checkpoint: Checkpoint) -> None:
    foreign = replace(patterns_dataset(), classes=tuple(reversed(patterns_dataset().classes)))
    with pytest.raises(DataError, match="patterns: its classes are not the model's: found pattern 9, pattern 8"):
        draw_calibration(foreign, checkpoint.card)
