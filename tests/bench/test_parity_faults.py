"""The gate refuses every planted fault, and passes a correct export in every precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fakes.parity_network import DEVIATION, SIDE, TEST_IMAGES, fitted_checkpoint, logits, patterns, patterns_dataset
from numpy.typing import NDArray
from PIL import Image
from rtk.bench.parity.compare import all_logits, compare
from rtk.bench.parity.verdict import judge
from rtk.core.card import Input, ModelCard
from rtk.core.data.images import model_image
from rtk.core.models.model import Model
from rtk.core.tolerances import PRECISIONS
from rtk.export.config import INT8_FLAVORS, Int8Config
from rtk.export.int8.calibration import Calibration, draw_calibration
from rtk.export.int8.quantize import int8_from_checkpoint
from rtk.export.int8.ranges import logits_as_written
from rtk.export.reduced_precision import HALVES, rounded_after_every_layer
from rtk.export.to_onnx import graph_from_checkpoint
from rtk.tools.parity_figures import FAULTS, Subject, correct_exports

RunGraph = Callable[[bytes, NDArray[np.uint8]], NDArray[np.float32]]


@pytest.fixture(scope="module")
def fitted(card: ModelCard, randomise: Callable[..., None]) -> Subject:
    """A fitted network, with its test split and the reference's logits on it."""
    found = Subject.of(fitted_checkpoint(card, randomise), patterns(TEST_IMAGES, seed=2))
    assert (found.reference_NK.argmax(axis=1) == found.test.labels_N).mean() > 0.95
    return found


@pytest.fixture(scope="module")
def two_fitted(card: ModelCard, randomise: Callable[..., None]) -> list[Subject]:
    checkpoints = (fitted_checkpoint(card, randomise, arch=arch) for arch in ("resnet8v1", "resnet11v2"))
    return [Subject.of(checkpoint, patterns(2_000, seed=2)) for checkpoint in checkpoints]


# Correct exports.


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_correct_export_passes(fitted: Subject, precision: str, run_in_onnxruntime: RunGraph) -> None:
    graph = graph_from_checkpoint(fitted.checkpoint, precision)
    if precision in HALVES:
        graph = rounded_after_every_layer(graph, HALVES[precision])
    verdict = fitted.verdict(run_in_onnxruntime(graph.SerializeToString(), fitted.test.images_NHWC), precision)
    assert verdict.passed, verdict.to_text()


@pytest.mark.parametrize("flavor", INT8_FLAVORS)
def test_a_correct_int8_export_passes_and_one_calibrated_on_noise_does_not(
    fitted: Subject, tmp_path: Path, flavor: Any
) -> None:
    calibration = draw_calibration(patterns_dataset(), fitted.checkpoint.card, images=500, held_out=200)
    done = int8_from_checkpoint(
        fitted.checkpoint, tmp_path / "a.onnx", calibration=calibration, config=Int8Config(flavor, method="minmax")
    )
    verdict = fitted.verdict(logits_as_written(onnx.load(done.path), fitted.test.images_NHWC), "int8")
    assert verdict.passed, verdict.to_text()

    noise_NHWC = np.random.default_rng(0).integers(112, 144, (200, SIDE, SIDE, 3), dtype=np.uint8)
    bad = int8_from_checkpoint(
        fitted.checkpoint,
        tmp_path / "b.onnx",
        calibration=Calibration(noise_NHWC, noise_NHWC, "noise", 0),
        config=Int8Config(flavor, method="minmax"),
    )
    assert not fitted.verdict(logits_as_written(onnx.load(bad.path), fitted.test.images_NHWC), "int8").passed


# In the graph.


def _other_deviation(model: Model) -> None:
    assert model.normalise.deviation.flatten().tolist() == pytest.approx(DEVIATION)
    model.normalise.deviation.fill_(0.2023)


def _red_and_blue_swapped(model: Model) -> None:
    stem = model.network.get_parameter("stem.0.weight")
    stem.copy_(stem[:, [2, 1, 0]].clone())


def _mean_ignored(model: Model) -> None:
    model.normalise.mean.zero_()


def _weights_zeroed(model: Model) -> None:
    model.network.get_parameter("blocks.1.conv2.weight").zero_()


def _other_epsilon(model: Model) -> None:
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 1e-5


def _extra_softmax(model: Model) -> None:
    model.network.register_forward_hook(lambda layer, inputs, output: output.softmax(dim=1))


def _logits_scaled(model: Model) -> None:
    model.network.register_forward_hook(lambda layer, inputs, output: 1.5 * output)


IN_EVERY_PRECISION = [
    _other_deviation, _red_and_blue_swapped, _mean_ignored, _weights_zeroed, _extra_softmax, _logits_scaled,
]  # fmt: skip


@pytest.mark.parametrize("fault", [*IN_EVERY_PRECISION, _other_epsilon], ids=lambda fault: fault.__name__[1:])
def test_a_fault_in_the_graph_is_refused(fitted: Subject, fault: Callable[[Model], None]) -> None:
    model = fitted.checkpoint.model()
    with torch.no_grad():
        fault(model)
    faulty_NK = logits(model, fitted.test.images_NHWC)
    for precision in ("fp32", "fp16", "bf16", "int8") if fault in IN_EVERY_PRECISION else ("fp32",):
        verdict = fitted.verdict(faulty_NK, precision)
        assert not verdict.passed, f"{precision}: {verdict.to_text()}"


def test_a_wrong_epsilon_fails_although_only_few_answers_change(fitted: Subject) -> None:
    model = fitted.checkpoint.model()
    _other_epsilon(model)
    verdict = fitted.verdict(logits(model, fitted.test.images_NHWC))
    assert [check.passed for check in verdict.checks][:3] == [True, True, False]
    assert abs(verdict.loss_pp) < 0.1


# Small faults that move all images alike, on correct exports.


@pytest.mark.parametrize("precision", PRECISIONS)
def test_faults_that_move_all_images_alike_are_refused_and_correct_exports_are_not(
    two_fitted: list[Subject], precision: str
) -> None:
    for subject in two_fitted:
        spread = float(subject.reference_NK.std())
        calibration = draw_calibration(patterns_dataset(), subject.checkpoint.card, images=500, held_out=100)
        exports = list(correct_exports(subject.checkpoint, calibration, method="minmax", precisions=(precision,)))
        assert len(exports) == (len(INT8_FLAVORS) + 1 if precision == "int8" else 1)
        for export in exports:
            correct_NK = export.logits(subject.test.images_NHWC)
            verdict = subject.verdict(correct_NK, precision)
            assert verdict.outcome != "failed", f"{export.name}: {verdict.to_text()}"
            for fault, plant in FAULTS.items():
                if (precision, fault) != ("int8", "logits x 1.03"):  # int8 itself may change the slope by 1 %
                    wrong = subject.verdict(plant(export, correct_NK, subject), precision)
                    assert wrong.outcome == "failed", f"{export.name}, spread {spread:.2g}: {fault}: {wrong.to_text()}"


# In the runner.


def test_dropping_a_last_short_batch_is_refused(fitted: Subject) -> None:
    whole = len(fitted.test) // 300 * 300
    verdict = fitted.verdict(fitted.reference_NK[:whole], "int8")
    assert not verdict.checks[1].passed
    assert verdict.checks[1].text == "7,800 answers to 8,000 images, 0 whose logits are not finite"


def test_a_dropped_batch_is_counted() -> None:
    from rtk.infer.fake import FakeBackend

    class Forgetful(FakeBackend):
        def stream(self, batches: Any) -> Any:
            return (logits_BK for logits_BK in super().stream(batches) if len(logits_BK) == 250)

    size = Input(4, 4, 1)
    images_NHWC = np.random.default_rng(0).integers(0, 256, (510, 4, 4, 1), dtype=np.uint8)
    labels_N = np.zeros(510, np.int64)
    parity = compare(
        "x", all_logits(FakeBackend(size=size), images_NHWC), all_logits(Forgetful(size=size), images_NHWC), labels_N
    )
    assert (parity.answered, parity.images) == (500, 510)


def test_answers_shifted_by_one_image_are_refused_in_every_precision(fitted: Subject) -> None:
    for precision in ("fp32", "fp16", "bf16", "int8"):
        verdict = fitted.verdict(np.roll(fitted.reference_NK, 1, axis=0), precision)
        assert [check.passed for check in verdict.checks] == [True, True, False, False, False]


# In the host's function.


def test_scaling_without_antialiasing_is_refused(fitted: Subject) -> None:
    """Large images with a fine grain: scaling with a filter averages the grain out; without a filter it stays."""
    large = patterns(1_500, seed=5, side=4 * SIDE)
    size, model = fitted.checkpoint.card.input, fitted.checkpoint.model()
    correct_NHWC = np.stack([model_image(image_HWC, size) for image_HWC in large.images_NHWC])
    aliased_NHWC = np.stack(
        [
            np.asarray(Image.fromarray(image_HWC).resize((SIDE, SIDE), Image.Resampling.NEAREST))
            for image_HWC in large.images_NHWC
        ]
    )
    reference_NK = logits(model, correct_NHWC)
    assert judge(compare("correct", reference_NK, reference_NK, large.labels_N), precision="int8").passed
    for precision in ("fp32", "fp16", "bf16", "int8"):
        parity = compare("aliased", reference_NK, logits(model, aliased_NHWC), large.labels_N)
        assert not judge(parity, precision=precision).passed
