"""The images that a run trains on, and those that it is evaluated on."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...core.data.datasets import Dataset, Details, Split
from ...core.data.own.listing import SplitName
from ...core.errors import DataError, UsageError
from ..config import NOTHING_HELD_OUT, TrainConfig


@dataclass(frozen=True)
class RunFiles:
    """The files of the user's own data that a run uses."""

    used: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """The name and class of each image: of the training split, and of those in `RunSplits.evaluated`."""
    unreadable: list[tuple[str, str, str]] = field(default_factory=list)
    """Split, name and reason of each image that is left out because it cannot be read."""
    repeated: list[tuple[str, str, str]] = field(default_factory=list)
    """Images with the same pixels as a training image: split, name, and that training image."""


@dataclass(frozen=True)
class RunSplits:
    """The images of a run."""

    train: Split
    evaluated: dict[str, Split]
    """By the names in the history: holdout (drawn from the training images), validation, test."""
    held_out: str
    """The one of these that may choose the epoch without touching the score; empty without such images."""
    scored: str
    """The one that the score is measured on: test, or validation without a test split."""
    files: RunFiles = field(default_factory=RunFiles)


def shuffled_indices(split: Split, count: int | None, *, seed: int, name: str) -> NDArray[np.int64]:
    """Indices of `count` images of the split (None: all), shuffled. Raises UsageError if it has fewer."""
    if count is not None and count > len(split):
        raise UsageError(f"--train-images {count}: {name} has only {len(split):,} training images")
    return np.random.default_rng((seed, 0)).permutation(len(split))[:count]


def held_out_images(dataset: Dataset, *, count: int, seed: int) -> Split:
    """The images that a training with this seed held out: of its training split, the first `count` in shuffled order.

    That order does not depend on the number of images that it trained on. Raises DataError if there are fewer.
    """
    train_split = dataset.split("train")
    if count > len(train_split):
        raise DataError(
            f"{dataset.name}: the training held out {count:,} training images, but there are only {len(train_split):,}"
        )
    return train_split.take(shuffled_indices(train_split, None, seed=seed, name=dataset.name)[:count])


def splits_of(config: TrainConfig, dataset: Dataset) -> RunSplits:
    """Read the splits, and draw the held-out images if the config asks for them."""
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
    evaluated = {"holdout": train_split.take(held)} if held_out else {}
    others: list[SplitName] = [name for name in dataset.splits if name != "train"]
    for name in others:
        evaluated[name] = _same_size(dataset.split(name), train_split, dataset.name, name)
    if config.patience is not None and not (held_out or "validation" in evaluated):
        raise UsageError(NOTHING_HELD_OUT)
    has_both = dataset.scored_split == "test" and "validation" in evaluated
    return RunSplits(
        train_split.take(kept),
        evaluated,
        held_out="holdout" if held_out else "validation" if has_both else "",
        scored=dataset.scored_split,
        files=_files(dataset.details, kept, held, others) if dataset.details else RunFiles(),
    )


def _same_size(split: Split, train_split: Split, dataset: str, name: str) -> Split:
    found, expected = split.image_shape, train_split.image_shape
    if found != expected:
        raise DataError(
            f"{dataset}: training images are {expected}, but {name} images are {found}; expected the same size"
        )
    return split


def _files(details: Details, kept: NDArray[np.int64], held: NDArray[np.int64], others: list[SplitName]) -> RunFiles:
    """The files behind the images; `kept` and `held`: indices of training images."""
    train, hashes = details.files("train"), details.hashes("train")
    used = {"train": [train[index] for index in kept]}
    if len(held):
        used["holdout"] = [train[index] for index in held]
    used |= {name: details.files(name) for name in others}
    trained = {hashes[index]: train[index][0] for index in kept}
    repeated: list[tuple[str, str, str]] = [
        (name, file, trained[found])
        for name in others
        for (file, _), found in zip(details.files(name), details.hashes(name), strict=True)
        if found in trained
    ]
    if len(held):
        repeated += [("holdout", train[i][0], trained[hashes[i]]) for i in held if hashes[i] in trained]
    splits: list[SplitName] = ["train", *others]
    unreadable: list[tuple[str, str, str]] = [
        (name, file, reason) for name in splits for file, reason in details.unreadable(name)
    ]
    return RunFiles(used, unreadable, repeated)
