"""Recipes: how a network is trained, as rows of a table. A variant is a row here, never a copy of the loop."""

from dataclasses import dataclass
from typing import Literal

from ..core.errors import UnknownNameError, UsageError

Schedule = Literal["cosine", "steps"]
Flip = Literal["none", "random", "alternate"]


@dataclass(frozen=True)
class Recipe:
    """Everything about a training but the network, the data and the machine."""

    name: str
    epochs: int
    lr: float
    """The highest learning rate of the schedule."""
    batch_size: int = 128
    optimiser: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_vectors: bool = False
    """Whether biases and batch-norm parameters decay too, or only weights of more than one dimension."""
    schedule: Schedule = "cosine"
    """cosine: to zero; steps: times 0.1 at each of `milestones`."""
    warmup: float = 0.0
    """Share of the training in which the rate rises linearly from zero."""
    milestones: tuple[float, ...] = ()
    """Of the schedule `steps`, as shares of the training."""
    label_smoothing: float = 0.0
    crop_padding: float = 0.125
    """Pixels added on each side before a random crop, as a share of the image's side: 4 of 32."""
    flip: Flip = "random"
    """alternate: mirrored in every other epoch, so that two epochs show both sides (arXiv 2404.00498)."""
    erasing: float = 0.0
    """Probability that a random rectangle is replaced by noise (arXiv 1708.04896)."""
    pruning: float = 0.0
    """Probability that an image of less than average loss sits an epoch out; those that stay count for the others,
    and the last eighth of the training sees every image (InfoBatch, arXiv 2303.04947)."""
    norm_momentum: float = 0.01
    """Share of each step in batch norm's running statistics (Keras: 1 - 0.99)."""
    resizing: tuple[tuple[float, float], ...] = ()
    """Smaller images at first, which cost less: (until which share of the training, side as a share of the image's),
    in order; after the last of them images have their own size (progressive resizing, arXiv 2104.00298)."""
    average: float = 0.0
    """Horizon of the moving average of the weights, as a share of the training; 0 keeps the last weights."""

    def __post_init__(self) -> None:
        for fine, message in (
            (self.epochs >= 1, f"--epochs {self.epochs}: expected 1 or more"),
            (self.batch_size >= 2, f"--batch-size {self.batch_size}: expected 2 or more; batch norm needs them"),
            (0 < self.lr < 1e6, f"--lr {self.lr}: expected a positive number"),
        ):
            if not fine:
                raise UsageError(message)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "rtk",
            epochs=100,
            lr=0.2,
            nesterov=True,
            weight_decay=5e-4,
            warmup=0.05,
            flip="alternate",
            pruning=0.5,
            norm_momentum=0.1,  # the average smooths the statistics too, and must not read stale ones
            resizing=((0.25, 0.5), (0.5, 0.75)),  # full size for the half in which the rate falls
            average=0.025,
        ),
        Recipe(  # for a minute on a CPU: small batches make more steps of few images
            "quick",
            epochs=5,
            lr=0.1,
            batch_size=64,
            nesterov=True,
            weight_decay=5e-4,
            warmup=0.15,
            crop_padding=0.0,
            norm_momentum=0.1,
            average=0.02,
        ),
        Recipe(  # arXiv 1512.03385, section 4.2: 64,000 steps, divided by ten at 32,000 and 48,000
            "paper",
            epochs=164,
            lr=0.1,
            weight_decay=1e-4,
            decay_vectors=True,
            schedule="steps",
            milestones=(0.5, 0.75),
        ),
        Recipe(  # the Keras CIFAR-10 ResNet example: Adam, divided by ten after 80, 120 and 160 of 200 epochs
            "keras",
            epochs=200,
            lr=1e-3,
            batch_size=32,
            optimiser="adam",
            schedule="steps",
            milestones=(0.4, 0.6, 0.8),
            crop_padding=0.1,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises UnknownNameError, which lists them."""
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]
