"""Learning rate and image size, as plain functions of the progress of the training and of its history.

Progress goes from 0 to 1, so a schedule is independent of epochs and batch size. `history` has one row per epoch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..recipes import EVALUATED, Recipe

PLATEAU_FACTOR = math.sqrt(0.1)
PLATEAU_PATIENCE = 5
PLATEAU_DELTA = 1e-4
PLATEAU_FLOOR = 5e-7

History = Sequence[Mapping[str, Any]]


def progress_at(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """The progress at which the learning rate of a step is set; `epoch` and `step` count from 0."""
    if recipe.steps:
        return (epoch * steps + step + 0.5) / recipe.steps
    return (epoch + (0.0 if recipe.by_epoch else (step + 0.5) / steps)) / recipe.epochs


def learning_rate(recipe: Recipe, progress: float, history: History = ()) -> float:
    """The learning rate at `progress`, after the epochs of `history`."""
    slow = recipe.slow_start
    if slow and all(1 - row["train_accuracy"] >= slow.error for row in history):
        return slow.lr
    if progress < recipe.warmup:
        return recipe.lr * progress / recipe.warmup
    match recipe.schedule:
        case "cosine":
            decayed = (progress - recipe.warmup) / (1 - recipe.warmup)
            return recipe.lr * (1 + math.cos(math.pi * decayed)) / 2
        case "steps":
            return recipe.lr * next((factor for at, factor in reversed(recipe.milestones) if progress >= at), 1.0)
        case "plateau":
            return plateau_rate(recipe.lr, [validation_loss(row) for row in history])


def plateau_rate(lr: float, losses: Sequence[float]) -> float:
    """The learning rate after epochs with these validation losses, by the rule of the Keras CIFAR-10 ResNet example.

    Five epochs in a row that do not improve the best loss by more than 1e-4 multiply it by sqrt(0.1), down to 5e-7.
    """
    best, waited = math.inf, 0
    for loss in losses:
        if loss < best - PLATEAU_DELTA:
            best, waited = loss, 0
            continue
        waited += 1
        if waited == PLATEAU_PATIENCE:
            lr, waited = max(lr * PLATEAU_FACTOR, min(lr, PLATEAU_FLOOR)), 0
    return lr


def validation_loss(row: Mapping[str, Any]) -> float:
    """An epoch's loss on the held-out images, else on the validation split, else on the test split."""
    loss: float = next(row[f"{name}_loss"] for name in EVALUATED if f"{name}_loss" in row)
    return loss


def epochs_since_best(history: History) -> int:
    """Number of epochs since the one with the best accuracy on the held-out images; the first of equally good ones.

    Without held-out images the validation split decides.
    """
    name = next(f"{name}_correct" for name in EVALUATED if any(f"{name}_correct" in row for row in history))
    right = {row["epoch"]: row[name] for row in history if name in row}
    return history[-1]["epoch"] - max(right, key=lambda epoch: right[epoch])  # max returns the first


SIDE_STEP = 4
"""Sides are multiples of this, so that the networks for small images can halve them twice."""


def image_side(recipe: Recipe, progress: float, side: int) -> int:
    """The side to which images of `side` pixels are scaled at `progress`; never larger than `side`."""
    for until, share in recipe.resizing:
        if progress < until:
            return min(side, max(SIDE_STEP, round(share * side / SIDE_STEP) * SIDE_STEP))
    return side
