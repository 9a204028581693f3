"""Training networks of other code: random layers, networks without batch norm, the last layer, initial weights."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import networks
from fakes.train_runs import assert_same_runs, tiny
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.errors import UsageError
from rtk.core.models.allowed_code import allow_code
from rtk.train.optim.nan_guard import NanGuard
from rtk.train.run import resume, train
from rtk.train.run_folder import RunFolder
from rtk.train.stop_signals import Stopped
from rtk.train.trainer import Trainer
from rtk.train.weights import freeze_backbone, head_name, load_weights
from torch import nn

MOBILE, ATTENTIVE = "fakes.networks:Mobile(dropout=0.5)", "fakes.networks:Attentive(width=8)"


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of tests may build networks; drawing takes longer than training here."""
    monkeypatch.setattr("rtk.core.models.allowed_code._allowed", set[str]())
    allow_code("fakes")
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


@pytest.mark.parametrize("arch", [MOBILE, ATTENTIVE])
def test_a_run_with_random_layers_resumes_after_any_step_without_a_difference(
    arch: str, class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_rng_state()
    whole = train(tiny(class_folders, tmp_path / "whole", arch=arch))
    original, steps = Trainer._step, list[int]()

    def stopped_in_step_5(self: Trainer, *arguments: Any) -> Any:
        steps.append(len(steps))
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stopped_in_step_5)
        with pytest.raises(Stopped):
            train(tiny(class_folders, tmp_path / "stopped", arch=arch))
    torch.rand(7)  # another process has other random numbers
    after = torch.get_rng_state()
    assert_same_runs(whole.run_dir, resume(tmp_path / "stopped").run_dir)
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(before, after)


def test_the_seed_decides_the_initial_weights(class_folders: Path, tmp_path: Path) -> None:
    weights = {}
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        torch.rand(3)
        best = train(tiny(class_folders, tmp_path / name, arch=ATTENTIVE, seed=seed, epochs=1)).best
        weights[name] = load_checkpoint(best).weights["network.positions"]
    assert torch.equal(weights["one"], weights["same"])
    assert not torch.equal(weights["one"], weights["other"])


def test_a_step_that_is_not_finite_is_undone_without_batch_norm_too() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    guard = NanGuard(model, optimiser, skip=True, device=torch.device("cpu"))
    before = model[1].weight.detach().clone()
    guard.before_forward()
    losses_B = model(torch.full((3, 4), torch.inf)).sum(dim=1)
    losses_B.sum().backward()
    guard.before_step(losses_B)
    optimiser.step()
    guard.after_step()
    assert guard.not_finite == 1
    assert torch.equal(model[1].weight, before)


def test_the_last_layer_is_the_last_dense_one_or_the_last_convolution() -> None:
    assert head_name(networks.Mobile(3)) == "classifier"
    convolutions = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 2, 1), nn.Flatten())
    freeze_backbone(convolutions)
    assert [name for name, one in convolutions.named_parameters() if one.requires_grad] == ["2.weight", "2.bias"]
    with pytest.raises(UsageError, match="neither dense layers nor convolutions"):
        head_name(nn.Sequential(nn.Flatten()))


def test_weights_start_a_network_of_other_code_with_another_number_of_classes(tmp_path: Path) -> None:
    torch.save(networks.Mobile(7).state_dict(), tmp_path / "seven.pth")
    network = networks.Mobile(3)
    described = load_weights(network, "fakes.networks:Mobile", str(tmp_path / "seven.pth"), data_dir=None)
    assert "last layer reinitialised for 3 instead of 7 classes" in described
    saved = torch.load(tmp_path / "seven.pth", weights_only=True)
    assert torch.equal(network.stem[0].weight, saved["stem.0.weight"])


def test_images_have_their_full_size_and_activations_are_not_recomputed(class_folders: Path, tmp_path: Path) -> None:
    assert tiny(class_folders, tmp_path, recipe="rtk").resolved_recipe.resizing
    assert not tiny(class_folders, tmp_path, arch=ATTENTIVE, recipe="rtk").resolved_recipe.resizing
    with pytest.raises(UsageError, match="--checkpoint-activations works for the networks of rtk, not for fakes"):
        tiny(class_folders, tmp_path, arch=ATTENTIVE, checkpoint_activations=True)
