"""The training, held-out and test images of a run."""

import numpy as np
from numpy.typing import NDArray

from ...core.data.datasets import Dataset, Split
from ...core.errors import DataError, UsageError
from ..config import TrainConfig


def shuffled_indices(split: Split, count: int | None, *, seed: int, name: str) -> NDArray[np.int64]:
    """Indices of `count` images of the split (None: all), shuffled. Raises UsageError if it has fewer."""
    if count is not None and count > len(split):
        raise UsageError(f"--train-images {count}: {name} has only {len(split):,} training images")
    return np.random.default_rng((seed, 0)).permutation(len(split))[:count]


def splits_of(config: TrainConfig, dataset: Dataset) -> tuple[Split, Split, Split]:
    """The training images, the held-out images (may be none) and the test images."""
    train_split = dataset.split("train")
    order = shuffled_indices(train_split, config.train_images, seed=config.seed, name=dataset.name)
    held_out = config.held_out(len(order))
    if config.holds_out and not 0 < held_out <= len(order) // 2:
        raise UsageError(
            f"--holdout {config.holdout}: expected at most half of the {len(order):,} training images"
            if config.holdout
            else f"--validation-split {config.validation_split:g}: holds out none of the {len(order):,} training images"
        )
    held, kept = order[:held_out], np.sort(order[held_out:])
    test = dataset.split("test")
    if test.image_shape != train_split.image_shape:
        raise DataError(
            f"{dataset.name}: training images are {train_split.image_shape}, but test images are "
            f"{test.image_shape}; expected the same size"
        )
    return train_split.take(kept), train_split.take(held), test
