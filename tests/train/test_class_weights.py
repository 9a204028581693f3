"""--class-weights: the weights of the classes, and the gradient of the weighted loss."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.train_runs import tiny
from rtk.core.card import Input, ModelCard, Preprocessing
from rtk.core.data.datasets import Split
from rtk.core.errors import UnknownNameError
from rtk.train.augment.pixelwise import Mix
from rtk.train.config import TrainConfig
from rtk.train.device import Arithmetic
from rtk.train.recipes import Recipe
from rtk.train.run import train
from rtk.train.run_folder import RunFolder
from rtk.train.trainer import Trainer, balanced_weights, new_model

CPU = Arithmetic(torch.device("cpu"), None)


@pytest.mark.parametrize(
    ("counts", "weights"),
    [
        # sklearn.utils.class_weight.compute_class_weight("balanced", classes=np.unique(y), y=y)
        ((6, 3, 1), (0.5555555555555556, 1.1111111111111112, 3.3333333333333335)),
        ((5, 5), (1.0, 1.0)),
        ((1, 9, 90), (33.333333333333336, 3.7037037037037037, 0.37037037037037035)),
    ],
)
def test_balanced_weights_are_those_of_scikit_learn(counts: tuple[int, ...], weights: tuple[float, ...]) -> None:
    labels_N = np.repeat(np.arange(len(counts)), counts)
    found_K = balanced_weights(labels_N)
    assert found_K.tolist() == pytest.approx(weights, rel=1e-6)
    assert found_K[torch.from_numpy(labels_N)].mean().item() == pytest.approx(1, rel=1e-6)


def test_a_class_without_images_does_not_count() -> None:
    found_K = balanced_weights(np.array([0, 0, 2]))
    assert found_K[[0, 2]].tolist() == [0.75, 1.5]
    assert torch.isfinite(found_K).all()


@pytest.mark.parametrize("mixes", [False, True])
def test_a_step_follows_the_gradient_of_the_weighted_loss(mixes: bool) -> None:
    """With label smoothing, the weights of pruning, and mixed images."""
    random = np.random.default_rng(2)
    split = Split(random.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8), np.repeat([0, 1, 2], [6, 3, 1]))
    recipe = Recipe("a", 1, 0.1, momentum=0.0, label_smoothing=0.1, class_weights="balanced")
    card = ModelCard("a", "resnet8v1", "a", ("a", "b", "c"), Input(8, 8, 3), Preprocessing((0.5,) * 3, (0.3,) * 3))
    trainer = Trainer(new_model(card, 0, CPU), recipe, CPU, split, seed=0)
    images, labels, others = torch.from_numpy(split.images_NHWC), split.labels_N, split.labels_N[::-1]
    pruning = np.linspace(1, 2, 10)
    model = deepcopy(trainer.model).train()
    log_p = torch.log_softmax(model(images).double(), 1)

    def losses_of(targets: Any) -> Any:
        for image, target in enumerate(targets):
            smooth = np.full(3, 0.1 / 3)
            smooth[target] += 0.9
            yield -(torch.from_numpy(smooth) * log_p[image]).sum()

    weight = {0: 10 / 18, 1: 10 / 9, 2: 10 / 3}
    share = 0.3 if mixes else 0.0
    plain, total = [], torch.zeros((), dtype=torch.float64)
    for one, other, a, b, times in zip(losses_of(labels), losses_of(others), labels, others, pruning, strict=True):
        plain.append(float(((1 - share) * one + share * other).detach()))
        total = total + times * ((1 - share) * weight[a] * one + share * weight[b] * other) / 10
    gradients = torch.autograd.grad(total, list(model.parameters()))

    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.model.train()
    mix = Mix(torch.from_numpy(others.copy()), torch.tensor(share)) if mixes else None
    trainer.set_rate(0.1)
    losses_B, _, _ = trainer._step(images, torch.from_numpy(labels), torch.from_numpy(pruning).float(), mix)
    assert losses_B.tolist() == pytest.approx(plain, rel=1e-4)  # not weighted: pruning and the history use them
    for old, new, gradient in zip(before, trainer.model.parameters(), gradients, strict=True):
        torch.testing.assert_close((old - new.detach()) / 0.1, gradient, rtol=1e-2, atol=1e-4)  # fp32 differences


def test_the_card_records_the_class_weights(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)
    trained = train(tiny(class_folders, tmp_path / "run", epochs=1, class_weights="balanced"))
    assert trained.card.training is not None
    assert trained.card.training.settings["class_weights"] == "balanced"
    assert TrainConfig("resnet8v1").resolved_recipe.class_weights == "none"
    with pytest.raises(UnknownNameError, match="--class-weights"):
        TrainConfig("resnet8v1", class_weights="equal")  # type: ignore[arg-type]
