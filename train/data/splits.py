"""The images that a run trains on, chooses by and is tested on."""

import numpy as np
from numpy.typing import NDArray

from ...core.data.datasets import Dataset, Split
from ...core.errors import DataError, UsageError
from ..config import TrainConfig


def drawn(split: Split, count: int | None, *, seed: int, name: str) -> NDArray[np.int64]:
    """So many images of the split, or all, by their numbers, shuffled. Raises UsageError when it has fewer."""
    if count is not None and count > len(split):
        raise UsageError(f"--train-images {count}: {name} has {len(split):,}")
    return np.random.default_rng((seed, 0)).permutation(len(split))[:count]


def splits_of(config: TrainConfig, dataset: Dataset) -> tuple[Split, Split, Split]:
    """Training images, held-out images (perhaps none), test images."""
    train_split = dataset.split("train")
    order = drawn(train_split, config.train_images, seed=config.seed, name=dataset.name)
    held_out = config.held_out(len(order))
    if config.holds_out and not 0 < held_out <= len(order) // 2:
        raise UsageError(
            f"--holdout {config.holdout}: more than half of the {len(order):,} training images"
            if config.holdout
            else f"--validation-split {config.validation_split:g}: not one of the {len(order):,} training images"
        )
    held, kept = order[:held_out], np.sort(order[held_out:])
    test = dataset.split("test")
    if test.images_NHWC.shape[1:] != train_split.images_NHWC.shape[1:]:
        raise DataError(
            f"{dataset.name}: training images are {train_split.images_NHWC.shape[1:]}, "
            f"test images {test.images_NHWC.shape[1:]}"
        )
    return train_split.take(kept), train_split.take(held), test
