"""Recipes: how a network is trained, as rows of a table. A variant is a row here, never a copy of the training loop."""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from ..core.errors import UnknownNameError, UsageError
from .augment.options import Augmentation
from .data.preprocessing import find_preprocess

Schedule = Literal["cosine", "steps", "plateau"]
Decays = Literal["all", "matrices", "convolutions"]
Select = Literal["last", "best"]
ClassWeights = Literal["none", "balanced"]

LARGEST_SIDE = 1_024
EVALUATED = ("holdout", "validation", "test")
"""Names in the history of the splits that an epoch is evaluated on, if there are such images."""
NO_AUGMENTATION = Augmentation()


@dataclass(frozen=True)
class SlowStart:
    """A low learning rate for deep networks until an epoch's training error is below a limit.

    The paper (arXiv 1512.03385, section 4.2) checks the error in each step; it falls below the limit after about 400
    steps, one epoch of CIFAR-10. Here it is the error over each whole epoch, so no step waits for it.
    """

    lr: float
    error: float
    depth: int
    """For networks of at least this number of layers."""


@dataclass(frozen=True)
class Recipe:
    """Everything about a training except the network, the data and the machine."""

    name: str
    epochs: int
    lr: float
    """The highest learning rate of the schedule."""
    source: str = ""
    """The source of the row."""
    steps: int = 0
    """Length of the training in optimiser steps, independent of `epochs`; 0: `epochs` decides."""
    least_steps: int = 0
    """Steps for which few images are repeated in more epochs than `epochs`."""
    batch_size: int = 128
    keep_rest: bool = False
    """Whether the last images of an epoch that do not fill a batch make a smaller one, or are left out."""
    optimiser: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    epsilon: float = 1e-8
    """Epsilon of Adam."""
    weight_decay: float = 0.0
    """Times the weight, added to its gradient; equal to half of this times the sum of squares in the loss."""
    decays: Decays = "matrices"
    """The parameters that decay: all, those of more than one dimension, or the kernels of convolutions."""
    schedule: Schedule = "cosine"
    """cosine: to zero; steps: times the factors of `milestones`; plateau: by the validation loss."""
    warmup: float = 0.0
    """Share of the training in which the learning rate rises linearly from zero."""
    milestones: tuple[tuple[float, float], ...] = ()
    """For the schedule `steps`: (share of the training from which it holds, factor of the learning rate), in order."""
    by_epoch: bool = False
    """Whether the learning rate is set at the start of every epoch, or at every step."""
    slow_start: SlowStart | None = None
    label_smoothing: float = 0.0
    class_weights: ClassWeights = "none"
    """balanced: each image's loss is weighted by images / (classes * images of its class), as in scikit-learn."""
    augmentation: Augmentation = NO_AUGMENTATION
    preprocess: str = "standard"
    """The name of a row of PREPROCESSES: how the model preprocesses pixels."""
    resize: int = 0
    """Side in pixels to which the model scales images, after preprocessing; 0 keeps their size."""
    rgb: bool = False
    """Whether the model repeats grey images to three channels."""
    pruning: float = 0.0
    """Probability that an image of less than average loss is left out of an epoch (InfoBatch, arXiv 2303.04947).

    The remaining such images get a higher weight, and the last eighth of the training sees every image.
    """
    norm_momentum: float = 0.01
    """Weight of each step in batch norm's running statistics (Keras: 1 - 0.99)."""
    resizing: tuple[tuple[float, float], ...] = ()
    """Smaller images at first, which cost less (progressive resizing, arXiv 2104.00298).

    (share of the training until which it holds, side as a share of the image's side), in order; after the last of them
    images have their own size.
    """
    average: float = 0.0
    """Horizon of the moving average of the weights, as a share of the training; 0: no average, the last weights."""
    pretrained: bool = False
    """Whether the recipe needs trained initial weights."""
    head_first: float = 0.0
    """Share of the training in which only the last layer learns: while it is random, its errors teach the others wrong.
    """
    select: Select = "last"
    """Whether to keep the weights of the last epoch, or of the epoch with the best accuracy on the held-out images.

    Without held-out images the test split decides, and the card says so.
    """

    def __post_init__(self) -> None:
        find_preprocess(self.preprocess)
        for valid, message in (
            (self.epochs >= 1, f"--epochs {self.epochs}: expected 1 or more"),
            (self.batch_size >= 2, f"--batch-size {self.batch_size}: expected 2 or more, for batch norm"),
            (0 < self.lr < 1e6, f"--lr {self.lr}: expected a positive number"),
            (0 <= self.resize <= LARGEST_SIDE, f"--resize {self.resize}: expected 1 to {LARGEST_SIDE} pixels, or 0"),
        ):
            if not valid:
                raise UsageError(message)

    def steps_per_epoch(self, images: int) -> int:
        """Steps of an epoch over this number of images, without pruning."""
        size = min(self.batch_size, images)
        return images // size + (self.keep_rest and images % size > 1)  # batch norm needs two images

    def total_steps(self, images: int) -> int:
        """Steps of the whole training on this number of images, without pruning."""
        return self.steps or self.epochs * self.steps_per_epoch(images)

    def for_images(self, images: int) -> Self:
        """The recipe with the number of epochs that its steps need; with `steps` the last epoch ends with the last."""
        needed = math.ceil((self.steps or self.least_steps) / self.steps_per_epoch(images))
        return replace(self, epochs=needed if self.steps else max(self.epochs, needed))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "rtk",
            source="rtk's own, the fastest to a given accuracy; each part names its paper",
            epochs=160,
            lr=0.2,
            nesterov=True,
            weight_decay=5e-4,
            warmup=0.05,
            augmentation=Augmentation(crop=0.125, flip="alternate", erasing=0.5),
            pruning=0.5,
            norm_momentum=0.1,  # the average smooths the statistics too, so they must be recent
            resizing=((0.25, 0.5), (0.5, 0.75)),  # full size for the second half, in which the learning rate falls
            average=0.025,
        ),
        Recipe(  # small batches: more steps with few images
            "quick",
            source="rtk's own, for a minute on a CPU",
            epochs=5,
            lr=0.1,
            batch_size=64,
            nesterov=True,
            weight_decay=5e-4,
            warmup=0.15,
            augmentation=Augmentation(flip="random"),
            norm_momentum=0.1,
            average=0.02,
        ),
        Recipe(
            "paper",
            source="arXiv 1512.03385, section 4.2",
            epochs=164,
            steps=64_000,
            lr=0.1,
            weight_decay=1e-4,
            decays="all",
            schedule="steps",
            milestones=((0.5, 0.1), (0.75, 0.01)),  # at 32,000 and 48,000 steps
            slow_start=SlowStart(lr=0.01, error=0.8, depth=110),
            augmentation=Augmentation(crop=0.125, flip="random"),
        ),
        Recipe(
            "keras",
            source="the Keras CIFAR-10 ResNet example, as it ran",
            epochs=200,
            lr=1e-3,
            batch_size=32,
            keep_rest=True,
            optimiser="adam",
            epsilon=1e-7,
            weight_decay=2e-4,  # 1e-4 times the sum of squares in the loss
            decays="convolutions",
            schedule="steps",
            milestones=((81 / 200, 0.1), (121 / 200, 0.01), (161 / 200, 1e-3), (181 / 200, 5e-4)),  # epochs from 0
            by_epoch=True,
            augmentation=Augmentation(shift=0.1, flip="random", fill="nearest"),
            preprocess="mean-image",
            select="best",
        ),
        Recipe(
            "d2l",
            source="the Fashion-MNIST tutorial in PyTorch, after Dive into Deep Learning",
            epochs=5,
            lr=1e-3,
            batch_size=64,
            keep_rest=True,
            optimiser="adam",
            schedule="steps",
            preprocess="unit",
            resize=96,
            norm_momentum=0.1,
        ),
        Recipe(
            "finetune",
            source="rtk's own, for trained weights and few images",
            epochs=10,
            least_steps=400,
            lr=0.05,
            batch_size=32,
            nesterov=True,
            weight_decay=5e-4,
            warmup=0.2,
            augmentation=Augmentation(crop=0.125, flip="random"),
            preprocess="weights",
            rgb=True,
            norm_momentum=0.1,
            average=0.05,
            pretrained=True,
            head_first=0.1,
        ),
        Recipe(
            "keras-finetune",
            source="the tutorial that fine-tunes a pre-trained ResNet-50 in Keras",
            epochs=10,
            lr=1e-3,
            batch_size=32,
            keep_rest=True,
            momentum=0.0,
            schedule="steps",
            augmentation=Augmentation(shear=0.2, zoom=0.2, flip="random", fill="nearest"),
            preprocess="unit",
            rgb=True,
            pretrained=True,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises UnknownNameError, which lists the known names."""
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]
