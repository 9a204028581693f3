"""The lines that a training logs: their text, and that they fit 80 columns."""

from typing import Any

import pytest
import torch
from rtk.train.device import Arithmetic
from rtk.train.log_lines import epoch_line, machine_line, model_line, weights_line

CPU = torch.device("cpu")


def row(epoch: int, **scores: tuple[float, float]) -> dict[str, Any]:
    """A row of the history: 50,000 images in four seconds, with (accuracy, loss) on each split."""
    values = {"epoch": epoch, "images": 50_000, "epoch_s": 4.0}
    for name, (accuracy, loss) in scores.items():
        values |= {f"{name}_accuracy": accuracy, f"{name}_loss": loss}
    return values


def test_a_default_run_of_resnet20v1_has_single_lines_that_fit() -> None:
    model = model_line("resnet20v1-cifar10", parameters=273_066, images=50_000, first_epoch=1, epochs=100)
    assert model == "resnet20v1-cifar10: 273,066 parameters, 50,000 images, epochs 1 to 100"
    machine = machine_line(Arithmetic(CPU, torch.bfloat16), "not compiled (no gain on this processor)", processes=1)
    assert machine == "cpu, bf16, not compiled (no gain on this processor)"
    epoch = epoch_line(row(7, train=(0.4741, 1.474), test=(0.6478, 0.9758)), 100)
    assert epoch == "epoch   7/100  train 47.41% loss 1.4740  test 64.78% loss 0.9758  12,500 img/s"
    assert max(map(len, (model, machine, epoch))) <= 80


def test_an_epoch_with_held_out_images_has_two_lines() -> None:
    scores = {"train": (0.4741, 1.474), "holdout": (0.6512, 0.9621), "test": (0.6478, 0.9758)}
    assert epoch_line(row(7, **scores), 100).splitlines() == [
        "epoch   7/100  train 47.41% loss 1.4740  holdout 65.12% loss 0.9621",
        "               test 64.78% loss 0.9758  12,500 img/s",
    ]


def test_an_epoch_without_evaluation_has_only_the_training_scores() -> None:
    assert epoch_line(row(1, train=(1.0, 0.25)), 3) == "epoch   1/3  train 100.00% loss 0.2500  12,500 img/s"


@pytest.mark.parametrize(("accuracy", "loss"), [(1.0, 0.0), (0.1, 12_345.678)])
def test_lines_of_any_epoch_fit(accuracy: float, loss: float) -> None:
    every = dict.fromkeys(("train", "holdout", "test"), (accuracy, loss))
    assert max(map(len, epoch_line(row(1_000, **every), 1_000).splitlines())) <= 80


def test_long_lines_are_wrapped_between_words() -> None:
    start = f"resnet50-11ad3fa6.pth, sha256 {'0' * 64}; last layer reinitialised for 10 instead of 1,000 classes"
    assert weights_line(start).splitlines() == [
        "initial weights: resnet50-11ad3fa6.pth, sha256",
        f"  {'0' * 64}; last layer",
        "  reinitialised for 10 instead of 1,000 classes",
    ]
    problem = "not compiled (torch.compile fails here: RuntimeError: Python.h: No such file or directory)"
    lines = machine_line(Arithmetic(CPU, None), problem, processes=2).splitlines()
    assert lines == [
        "cpu, fp32, not compiled (torch.compile fails here: RuntimeError: Python.h: No",
        "  such file or directory), 2 processes",
    ]
