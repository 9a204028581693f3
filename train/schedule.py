"""The learning rate as a function of how far the training is, from 0 to 1: independent of epochs and batch size."""

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
