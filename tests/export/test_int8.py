"""int8: the graphs of both flavours, the calibration images that are refused, and the cost of layers."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fakes.parity_network import fitted_checkpoint, patterns, patterns_dataset
from onnx import TensorProto
from rtk.core.artifacts.checkpoint import Checkpoint
from rtk.core.artifacts.graph import load_graph
from rtk.core.card import ModelCard
from rtk.core.data.datasets import Split
from rtk.core.errors import ArtifactError, DataError, UnknownNameError, UsageError
from rtk.core.nvidia.flavor import FLAVORS
from rtk.core.tolerances import largest_share
from rtk.export.config import EngineConfig, Int8Config
from rtk.export.int8.calibration import Calibration, check_images, content_hashes, draw_calibration
from rtk.export.int8.quantize import Closeness, int8_from_checkpoint
from rtk.export.int8.ranges import Histogram, range_of
from rtk.export.int8.sensitivity import explain
from rtk.export.trt.build import engine_from_onnx

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
            checkpoint, folder / f"{flavor}.int8.onnx", calibration=calibration, config=Int8Config(flavor)
        ).path
        for flavor in ("tensorrt", "cpu")
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


@pytest.mark.parametrize("flavor", ["tensorrt", "cpu"])
def test_every_convolution_dense_layer_and_both_inputs_of_additions_are_quantised(graphs: Graphs, flavor: str) -> None:
    graph = onnx.load(graphs[flavor])
    found = _quantised_inputs(graph)
    assert len(found) == 9 + 1 + 3
    assert all(all(inputs) for inputs in found.values())
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


def test_the_graph_for_cpus_has_uint8_activations_and_weights_in_seven_bits(graphs: Graphs) -> None:
    graph = onnx.load(graphs["cpu"])
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    activations = [weights[node.input[2]].dtype for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert set(activations) == {np.dtype(np.uint8)}
    kernels = [array for array in weights.values() if array.dtype == np.int8 and array.ndim == 4]
    assert len(kernels) == 9
    assert max(int(np.abs(kernel.astype(np.int16)).max()) for kernel in kernels) == 64


@pytest.mark.parametrize("flavor", ["tensorrt", "cpu"])
def test_the_card_says_how_the_graph_was_quantised(
    graphs: Graphs, flavor: str, checkpoint: Checkpoint, calibration: Calibration
) -> None:
    _, card = load_graph(graphs[flavor])
    assert card.precision == "int8"
    note = card.notes["export"]
    assert note["flavor"] == flavor
    errors, largest = note["relative_logit_errors"], note["largest_logit_shares"]
    shares = {name: max(errors[name] / 0.1, largest[name] / 1.0) for name in ("minmax", "percentile", "mse")}
    assert note["method"] == min(shares, key=shares.__getitem__)
    assert note["calibration"] == calibration.note()
    assert note["calibration"]["images"] == 500
    assert len(note["calibration"]["sha256"]) == 64
    assert "integer kernels" in note["unchecked"]


def test_closeness_is_the_larger_share_of_two_limits() -> None:
    """For logits of standard deviation 2, int8 may have an RMS error of 0.1 x 2 and a largest error of 1 x 2."""
    reference_NK = np.tile(np.array([[2.0, -2.0]], np.float32), (200, 1))
    even, peak = reference_NK + 0.1, reference_NK.copy()
    peak[7, 0] += 1.5
    assert astuple(Closeness.of(even, reference_NK)) == pytest.approx((0.05, 0.1, 0.05), rel=1e-4)
    assert Closeness.of(even, reference_NK).share_of_limits == pytest.approx(0.5, rel=1e-4)
    assert astuple(Closeness.of(peak, reference_NK)) == pytest.approx((0.0375, 1.5, 0.75), rel=1e-4)
    peak[7, 0] += 1.0
    assert Closeness.of(peak, reference_NK).share_of_limits == pytest.approx(1.25, rel=1e-4)


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
    assert found[False, False] == 2
    assert load_graph(done.path)[1].notes["export"]["kept_fp32"] == ["network.stem.0", "network.head.dense"]


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
    with pytest.raises(UnknownNameError, match="int8 flavor 'tpu' is unknown; .*known: tensorrt, cpu"):
        Int8Config(wrong)
    with pytest.raises(UnknownNameError, match="calibration method 'tpu' is unknown; .*known: auto, minmax"):
        Int8Config(method=wrong)
    with pytest.raises(UsageError, match="--calibration-images 499: expected at least 500"):
        Int8Config(calibration_images=499)


def test_the_quantiser_leaves_the_log_of_the_process_unchanged(
    checkpoint: Checkpoint, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    level = logging.root.manager.disable
    config = Int8Config(method="minmax")
    int8_from_checkpoint(checkpoint, tmp_path / "a.onnx", calibration=calibration, config=config)
    assert logging.root.handlers == [], "a handler here would print every line of rtk's log twice"
    assert logging.root.manager.disable == level


# Ranges.


def test_a_single_outlier_widens_only_the_range_of_minmax() -> None:
    counts = np.zeros(2048, np.int64)
    counts[:20] = 1_000_000
    counts[-1] = 1
    histogram = Histogram(counts, 0.0, 100.0)
    assert range_of(histogram, "minmax", symmetric=True) == (0.0, 100.0)
    assert range_of(histogram, "percentile", symmetric=True)[1] == pytest.approx(100 * 20 / 2048, rel=0.01)
    assert range_of(histogram, "mse", symmetric=True)[1] < 100


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


def test_a_fifth_of_a_small_training_split_is_held_out(checkpoint: Checkpoint) -> None:
    small = replace(patterns_dataset(), read=lambda name: patterns(700 if name == "train" else 100, seed=3 + len(name)))
    drawn = draw_calibration(small, checkpoint.card)
    assert (len(drawn.images_NHWC), len(drawn.held_out_NHWC)) == (560, 140)  # 56 and 14 of the 70 in each class


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda split: split.head(499), "499 calibration images, expected at least 500"),
        (lambda split: Split(split.images_NHWC[:, :8], split.labels_N), r"images \(8, 16, 3\), expected \(16, 16, 3\)"),
        (lambda split: Split(split.images_NHWC, split.labels_N + 1), "label 10 found, expected 0 to 9"),
        (lambda split: Split(split.images_NHWC, split.labels_N // 2), "not balanced: 0 of 'pattern 5', "),
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
    ids=["too few", "another size", "label out of range", "unbalanced", "noise", "in the test split"],
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
