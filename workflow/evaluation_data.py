"""The labelled images that a model is evaluated on: those it was trained with, or any folder of class folders."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..core.card import ModelCard
from ..core.data.datasets import Dataset, Split
from ..core.data.open_dataset import open_dataset
from ..core.data.options import is_named
from ..core.data.own.listing import SplitName, check_known
from ..core.errors import DataError
from .eval_request import ALL, Wanted
from .model_data import dataset_of, options_of

if TYPE_CHECKING:
    from ..bench.evaluation.result import LabelledData

# What makes a score too optimistic.
TRAINED_ON = "The model was trained on these images, so its score is too optimistic."
SELECTED_ON = "The weights were selected on these images, so the score is too optimistic."
OTHER_SPLIT = "The model was trained on another split of this folder, so its score on these images is too optimistic."
CHANGED_SINCE = (
    "The model was trained in this folder, whose images have changed since; those of its training are among them, so "
    "its score is too optimistic."
)


@dataclass(frozen=True)
class Labelled:
    """Images with labels, which are indices of the model's classes."""

    dataset: Dataset
    split: Split
    names: tuple[str, ...]
    """The names of the files; empty for a data set without files."""
    data: "LabelledData"


def labelled_images(card: ModelCard, wanted: Wanted, *, splits_of: ModelCard | None = None) -> Labelled:
    """Read the images as the model of `card` reads them. `splits_of`: the model whose data and splits they are.

    The folder that the model was trained on is split as in the training; all images of another folder without splits
    count. Raises DataError for missing or changed images, an unknown class, or a split that does not exist.
    """
    owner = splits_of or card
    dataset = _opened(card, owner, wanted)
    names = _splits(dataset, wanted.split)
    parts = [dataset.split(name) for name in names]
    details = dataset.details
    return Labelled(
        dataset,
        _in_classes_of(card, dataset, _joined(parts)),
        tuple(name for split in names for name, _ in details.files(split)) if details else (),
        _described(card, dataset, names, images=sum(map(len, parts))),
    )


def _opened(card: ModelCard, owner: ModelCard, wanted: Wanted) -> Dataset:
    requested = wanted.dataset
    if requested is None:
        return dataset_of(owner, data_dir=wanted.data_dir, reader=card)
    options = options_of(card, splits_of=owner)
    if not is_named(requested):
        options = replace(options, evaluation=True, trained_on=owner.data.fingerprint if owner.data else "")
    if wanted.max_unreadable is not None:
        options = replace(options, max_unreadable=wanted.max_unreadable)
    return open_dataset(requested, data_dir=wanted.data_dir, options=options)


def _splits(dataset: Dataset, requested: str | None) -> tuple[SplitName, ...]:
    if requested is None:
        return (dataset.scored_split,)
    if requested == ALL:
        return dataset.splits
    if requested not in dataset.splits:
        found = "no splits; leave out --split" if len(dataset.splits) == 1 else f"only {', '.join(dataset.splits)}"
        raise DataError(f"{dataset.name}: has no {requested} split; it has {found}")
    return (requested,)


def _joined(parts: list[Split]) -> Split:
    if len(parts) == 1:
        return parts[0]
    return Split(
        np.concatenate([part.images_NHWC for part in parts]), np.concatenate([part.labels_N for part in parts])
    )


def _in_classes_of(card: ModelCard, dataset: Dataset, split: Split) -> Split:
    """The split with labels that are indices of the model's classes. Raises DataError for a class that it lacks."""
    outside = split.labels_N[(split.labels_N < 0) | (split.labels_N >= len(dataset.classes))]
    if len(outside):
        raise DataError(f"{dataset.name}: label {outside[0]} found, expected 0 to {len(dataset.classes) - 1}")
    if dataset.classes == card.classes:
        return split
    check_known([dataset.classes[label] for label in np.unique(split.labels_N)], card.classes, dataset.name)
    number = {name: index for index, name in enumerate(card.classes)}
    index_K = np.array([number.get(name, -1) for name in dataset.classes], np.int64)
    return replace(split, labels_N=index_K[split.labels_N])


def _described(card: ModelCard, dataset: Dataset, names: tuple[SplitName, ...], *, images: int) -> "LabelledData":
    from ..bench.evaluation.result import LabelledData

    record, details = dataset.record, dataset.details
    return LabelledData(
        name=dataset.name,
        split=names[0] if len(dataset.splits) > 1 and len(names) == 1 else ALL,
        images=images,
        layout=record.layout if record else "",
        path=record.path if record else "",
        fingerprint=record.fingerprint if record else "",
        unreadable=sum(len(details.unreadable(name)) for name in names) if details else 0,
        note=_note(card, dataset, names),
    )


def _note(card: ModelCard, dataset: Dataset, names: tuple[SplitName, ...]) -> str:
    """What makes the model's score on these images too optimistic, if anything does."""
    trained, record = card.data, dataset.record
    if record is None or trained is None:
        same = record is trained and dataset.name == card.dataset
    else:
        same = record.fingerprint == trained.fingerprint
        if not same and record.path == trained.path:
            return CHANGED_SINCE
        if same and (record.seed, record.test_share) != (trained.seed, trained.test_share):
            return OTHER_SPLIT
    if same and "train" in names:
        return TRAINED_ON
    if same and card.training is not None and card.training.used_test_split and "test" in names:
        return SELECTED_ON
    return ""
