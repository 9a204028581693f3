"""Ensembles: one graph that computes the mean of the members' probabilities, with a card that names the members."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.parity_network import fitted_checkpoint, patterns_dataset
from numpy.typing import NDArray
from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint
from rtk.core.artifacts.graph import load_graph
from rtk.core.artifacts.graph_card import INPUT_NAME
from rtk.core.card import Input, ModelCard
from rtk.core.data.datasets import Split
from rtk.core.errors import UsageError
from rtk.core.models.summary import parameter_count
from rtk.export.ensemble import ensemble_from_checkpoints
from rtk.export.int8.calibration import draw_calibration
from rtk.export.int8.quantize import int8_from_checkpoint
from rtk.infer.backend import BackendOptions
from rtk.infer.onnx_backend import open_session
from rtk.infer.open_backend import open_backend
from rtk.workflow.artifacts import export_graph

CPU = BackendOptions(device="cpu")


def logits_of(path: Path, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    with open_backend("torch", path, CPU) as backend:
        return backend(images_NHWC)


def softmax(logits_NK: NDArray[np.float32]) -> NDArray[np.float64]:
    exponentials_NK = np.exp(logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True))
    mean: NDArray[np.float64] = exponentials_NK / exponentials_NK.sum(axis=1, keepdims=True)
    return mean


@pytest.fixture
def members(tmp_path: Path, save_untrained: Callable[..., Path]) -> list[Path]:
    return [
        save_untrained(tmp_path / f"{seed}.pt", arch=arch, seed=seed)
        for seed, arch in enumerate(["resnet8v1", "resnet11v2", "resnet8v1"])
    ]


def test_the_logits_are_the_logarithms_of_the_mean_probabilities(
    members: list[Path], tmp_path: Path, shapes64: Split
) -> None:
    path = ensemble_from_checkpoints(members, tmp_path)
    expected_NK = np.log(np.mean([softmax(logits_of(member, shapes64.images_NHWC)) for member in members], axis=0))
    np.testing.assert_allclose(logits_of(path, shapes64.images_NHWC), expected_NK, atol=1e-4)
    card = load_checkpoint(path).card
    assert (path.name, card.arch) == ("resnet8v1-cifar10+resnet11v2-cifar10.pt", "resnet8v1+resnet11v2+resnet8v1")
    assert [origin["sha256"] for origin in card.notes["ensemble"]] == [
        load_checkpoint(member).card.checkpoint_sha256 for member in members
    ]
    assert card.score is None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_ensemble_is_exported_like_one_model(
    members: list[Path], tmp_path: Path, shapes64: Split, precision: str
) -> None:
    path = ensemble_from_checkpoints(members, tmp_path)
    exported = export_graph(load_checkpoint(path), tmp_path / "ensemble.onnx", precision=precision)
    card = load_graph(exported.path)[1]
    assert (card.precision, card.arch) == (precision, "resnet8v1+resnet11v2+resnet8v1")
    if precision == "fp32":
        session = open_session(exported.path.read_bytes(), CPU)
        logits_NK = session.run(None, {INPUT_NAME: shapes64.images_NHWC})[0]
        np.testing.assert_allclose(logits_NK, logits_of(path, shapes64.images_NHWC), atol=1e-4)


def test_an_ensemble_is_quantised_like_one_model(
    card: ModelCard, randomise: Callable[..., None], tmp_path: Path
) -> None:
    fitted = fitted_checkpoint(card, randomise)
    for name in ("a.pt", "b.pt"):
        save_checkpoint(tmp_path / name, fitted.card, fitted.weights)
    path = ensemble_from_checkpoints([tmp_path / "a.pt", tmp_path / "b.pt"], tmp_path)
    loaded = load_checkpoint(path)
    calibration = draw_calibration(patterns_dataset(), loaded.card)
    made = int8_from_checkpoint(loaded, tmp_path / "x2.int8.onnx", calibration=calibration)
    assert made.agreeing >= 0.98 * made.images


def test_an_ensemble_has_the_parameters_of_its_members() -> None:
    both = parameter_count("resnet8v1") + parameter_count("resnet11v2")
    assert parameter_count("resnet8v1+resnet11v2") == both


def test_members_that_differ_are_refused(
    members: list[Path], tmp_path: Path, save_untrained: Callable[..., Path]
) -> None:
    other = save_untrained(tmp_path / "grey.pt", size=Input(32, 32, 1))
    with pytest.raises(UsageError, match=r"grey.pt: differs from .*0.pt in input; all members .* must have the same"):
        ensemble_from_checkpoints([members[0], other], tmp_path)
    renamed = load_checkpoint(members[1])
    save_checkpoint(tmp_path / "renamed.pt", replace(renamed.card, classes=renamed.card.classes[::-1]), renamed.weights)
    with pytest.raises(UsageError, match=r"renamed.pt: differs from .*0.pt in classes"):
        ensemble_from_checkpoints([members[0], tmp_path / "renamed.pt"], tmp_path)
    shifted = {name: value + 1 if name == "normalise.mean" else value for name, value in renamed.weights.items()}
    save_checkpoint(tmp_path / "shifted.pt", renamed.card, shifted)
    with pytest.raises(UsageError, match=r"shifted.pt: differs from .*0.pt in preprocessing"):
        ensemble_from_checkpoints([members[0], tmp_path / "shifted.pt"], tmp_path)
    with pytest.raises(UsageError, match=r"resnet8v1-cifar10-x2.pt: already an ensemble; name its members instead"):
        ensemble_from_checkpoints([members[0], ensemble_from_checkpoints([members[0], members[2]], tmp_path)], tmp_path)


def test_an_ensemble_does_not_take_the_temperatures_of_its_members(
    members: list[Path], tmp_path: Path, shapes64: Split, caplog: pytest.LogCaptureFixture
) -> None:
    plain = ensemble_from_checkpoints(members[:2], tmp_path, name="plain")
    warm = load_checkpoint(members[0])
    save_checkpoint(members[0], replace(warm.card, temperature=3.0, checkpoint_sha256=""), warm.weights)
    path = ensemble_from_checkpoints(members[:2], tmp_path, name="mine")
    assert "mine: its members' temperatures do not apply to the ensemble" in " ".join(caplog.text.split())
    card = load_checkpoint(path).card
    assert card.temperature == 1
    assert [member.get("temperature") for member in card.notes["ensemble"]] == [3.0, None]
    assert (logits_of(path, shapes64.images_NHWC) == logits_of(plain, shapes64.images_NHWC)).all()
