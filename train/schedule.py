"""Learning rate and size of images by how far the training is, from 0 to 1: independent of epochs and batch size."""

import math

from .recipes import Recipe


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The rate at `progress`, a share of the whole training."""
    if progress < recipe.warmup:
        return recipe.lr * progress / recipe.warmup
    match recipe.schedule:
        case "cosine":
            decayed = (progress - recipe.warmup) / (1 - recipe.warmup)
            return recipe.lr * (1 + math.cos(math.pi * decayed)) / 2
        case "steps":
            return recipe.lr * 0.1 ** sum(progress >= milestone for milestone in recipe.milestones)


SIDE_STEP = 4
"""Sides are multiples of it, so that both halvings of the networks for small images come out even."""


def image_side(recipe: Recipe, progress: float, side: int) -> int:
    """The side that images of `side` pixels are scaled to at `progress`; never more than their own."""
    for until, share in recipe.resizing:
        if progress < until:
            return min(side, max(SIDE_STEP, round(share * side / SIDE_STEP) * SIDE_STEP))
    return side
