"""Short runs measure the statistics of batch norm over the training images; long runs keep their running averages."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.train_runs import tiny
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.data.open_dataset import open_dataset
from rtk.core.models.model import build_network
from rtk.train.evaluate import evaluate
from rtk.train.optim import norm_statistics
from rtk.train.optim.norm_statistics import measure_statistics, too_short
from rtk.train.recipes import RECIPES, Recipe
from rtk.train.run import train
from rtk.train.run_folder import RunFolder
from torch import Tensor, nn

IMAGES, SIDE = 70, 6


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


@pytest.fixture
def pixels() -> Tensor:
    """Images whose mean grows with their number, as in a data set that is sorted by class."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(IMAGES, 3, SIDE, SIDE, generator=random) + torch.arange(IMAGES)[:, None, None, None] / 10


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5))


def measured(model: nn.Module, pixels: Tensor, **options: Any) -> nn.Module:
    measure_statistics(model, lambda index, number: pixels[index], images=len(pixels), pixels=SIDE**2, **options)
    return model


@pytest.mark.parametrize("at_once", [500, 7])
def test_the_statistics_are_those_of_all_images(monkeypatch: pytest.MonkeyPatch, pixels: Tensor, at_once: int) -> None:
    """In one batch and in ten. Each batch divides by its values minus one: 252 values, so 0.4 %."""
    monkeypatch.setattr(norm_statistics, "MOST_AT_ONCE", at_once)
    monkeypatch.setattr(norm_statistics, "LEAST_AT_ONCE", 2)
    model = measured(layers(), pixels)
    first = model.get_submodule("0")(pixels).detach().permute(1, 0, 2, 3).flatten(1).double().numpy()
    norm = model.get_submodule("1")
    assert np.allclose(norm.get_buffer("running_mean").numpy(), first.mean(axis=1), rtol=1e-4, atol=1e-4)
    assert np.allclose(norm.get_buffer("running_var").numpy(), first.var(axis=1), rtol=5e-3)
    assert not model.training
    assert not any(layer.training for layer in model.modules())


def test_after_one_batch_the_model_answers_as_in_training(pixels: Tensor) -> None:
    """All layers use the statistics of the batch in training; these are now the stored ones. 2,520 values: 0.04 %."""
    model = layers()
    expected = model.train()(pixels)
    found = measured(layers(), pixels)(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_momentum_and_counters_stay(pixels: Tensor) -> None:
    model = layers()
    model.get_submodule("1").momentum = 0.25
    measured(model, pixels)
    assert model.get_submodule("1").momentum == 0.25
    assert int(model.get_submodule("4").get_buffer("num_batches_tracked")) == 0


def test_frozen_layers_keep_their_statistics(pixels: Tensor) -> None:
    model = measured(layers(), pixels, frozen=frozenset({"1"}))
    assert torch.equal(model.get_submodule("1").get_buffer("running_var"), torch.ones(4))
    assert not torch.equal(model.get_submodule("4").get_buffer("running_var"), torch.ones(5))
    untouched = measured(layers(), pixels, frozen=frozenset({"1", "4"}))
    assert all(torch.equal(value, layers().state_dict()[name]) for name, value in untouched.state_dict().items())


def test_memory_and_time_are_limited() -> None:
    def sizes(images: int, side: int) -> set[int]:
        return {len(batch) for batch in norm_statistics._batches(images, side * side)}

    assert sizes(500, 32) == {500}
    assert sizes(501, 32) == {250, 251}
    assert sizes(10**6, 64) == {500}
    assert sum(map(len, norm_statistics._batches(10**6, 1))) == 10_000
    assert max(sizes(2_000, 224)) == 40
    assert sizes(3, 4_000) == {3}


@pytest.mark.parametrize(
    ("recipe", "images", "short"),
    [
        ("rtk", 50_000, False),
        ("rtk", 100, True),  # batches of 100: 160 steps
        ("rtk", 300, False),  # of 128: 320 steps
        ("quick", 50_000, False),
        ("quick", 500, True),
        ("paper", 100, False),
        ("keras", 50_000, False),
        ("finetune", 20, False),  # at least 400 steps
    ],
)
def test_a_run_is_short_by_its_steps_and_the_horizon_of_the_averages(recipe: str, images: int, short: bool) -> None:
    assert too_short(RECIPES[recipe].for_images(images), images=images) == short


def test_the_limit_is_twenty_horizons() -> None:
    recipe = Recipe("a", epochs=200, lr=0.1, batch_size=10, norm_momentum=0.1)
    assert not too_short(recipe, images=10)
    assert too_short(Recipe("a", epochs=199, lr=0.1, batch_size=10, norm_momentum=0.1), images=10)


def test_a_run_of_few_steps_gives_a_model_that_knows_its_images(class_folders: Path, tmp_path: Path) -> None:
    """Six steps. The running averages still have half of their first values, and the loss was above 2 with them."""
    trained = train(tiny(class_folders, tmp_path / "run", recipe="quick", epochs=2))
    checkpoint = load_checkpoint(trained.best)
    test = open_dataset(str(class_folders)).split("test")
    images, labels = torch.from_numpy(test.images_NHWC), torch.from_numpy(test.labels_N)
    found = evaluate(checkpoint.model(), images, labels, split="test")
    score = checkpoint.card.score
    assert score
    assert found == replace(score, device="", threads=0, machine="")
    averages = load_checkpoint(trained.run_dir / "last.pt").training
    assert averages is not None
    model = checkpoint.model()
    model.load_state_dict(averages["average"]["weights"])
    assert found.loss < evaluate(model, images, labels, split="test").loss


def test_a_long_run_keeps_its_running_averages(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norm_statistics, "SHORT_HORIZONS", 0.1)
    trained = train(tiny(class_folders, tmp_path / "run"))
    last = load_checkpoint(trained.run_dir / "last.pt")
    assert last.training is not None
    averages = last.training["average"]["weights"]
    assert all(torch.equal(value, averages[name]) for name, value in last.weights.items())


def test_a_frozen_network_is_evaluated_with_the_statistics_of_its_weights() -> None:
    network = build_network("resnet8v1", in_channels=3, classes=3)
    names = frozenset(name for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pixels = torch.rand(8, 3, 8, 8)
    measure_statistics(network, lambda index, number: pixels[index], images=8, pixels=64, frozen=names)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
