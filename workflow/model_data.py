"""The data set of a model: the one that it was trained on, from any folder, or another that the user names."""

import logging
import shlex
from dataclasses import replace
from pathlib import Path

from ..core.card import ModelCard
from ..core.data.datasets import Dataset
from ..core.data.open_dataset import open_dataset
from ..core.data.options import DataOptions, is_named
from ..core.errors import DataError
from ..core.text import visible, wrapped

_log = logging.getLogger(__name__)

REPORTED_SHARE = 0.001
"""Other arithmetic may answer one image of a thousand otherwise; more than that is reported."""


def dataset_of(
    card: ModelCard, requested: str | None = None, *, data_dir: Path | None = None, reader: ModelCard | None = None
) -> Dataset:
    """Open the data set that the user names, or else the one that the model was trained on.

    The user's own images are split and read as in the training; `reader`: read as this other model reads them. Raises
    DataError if they are not where they were, or have changed; a data set that the user names may differ, and a line
    says so.
    """
    if requested is not None:
        dataset = open_dataset(requested, data_dir=data_dir, options=options_of(card))
        if card.data is not None and dataset.record is not None and dataset.record.fingerprint != card.data.fingerprint:
            _log.warning(
                wrapped(
                    f"{visible(requested)}: other images than {card.name} was trained on ({visible(card.data.path)}); "
                    "they are used because you named them"
                )
            )
        return dataset
    if card.data is None:
        if not is_named(card.dataset):
            raise DataError(
                f"{card.name}: its card does not say where its data set {card.dataset!r} is; name it: --dataset DIR"
                if card.dataset
                else f"{card.name}: its card names no data set; name one with such images: --dataset DIR"
            )
        return open_dataset(card.dataset, data_dir=data_dir, options=options_of(reader or card, splits_of=card))
    path = card.data.path
    if not Path(path).exists():
        raise DataError(
            f"{path}: the data set of {card.name} is not there any more; if it has moved, name it: --dataset DIR"
        )
    dataset = open_dataset(path, data_dir=data_dir, options=options_of(reader or card, splits_of=card))
    assert dataset.record is not None
    if dataset.record.fingerprint != card.data.fingerprint:
        raise DataError(
            f"{path}: its images have changed since {card.name} was trained; to use them as they are: "
            f"--dataset {shlex.quote(path)}"
        )
    return dataset


def options_of(card: ModelCard, *, splits_of: ModelCard | None = None) -> DataOptions:
    """Splits and pixels as in the training of this model; `splits_of`: the splits as in that of another one."""
    size, record = card.input, (splits_of or card).data
    options = DataOptions(
        image_size=(size.height, size.width), channels=size.channels, fit=card.image_fit, classes=card.classes
    )
    if record is None:
        return options
    return replace(
        options,
        split_seed=record.seed,
        test_share=record.test_share or options.test_share,
        max_unreadable=record.max_unreadable,
        max_pixels=record.max_pixels or options.max_pixels,
    )


def report_other_score(card: ModelCard, dataset: Dataset, *, correct: int, total: int) -> None:
    """Log it if a reference has another score than its card says, on what should be the same images."""
    score, record = card.score, card.data
    if score is None or score.split != dataset.scored_split:
        return
    if record is None or dataset.record is None:
        same = record is dataset.record and dataset.name == card.dataset and score.total == total
    else:
        same = record.fingerprint == dataset.record.fingerprint  # else a line has said that they differ
    if same and abs(score.accuracy - correct / total) > REPORTED_SHARE:
        _log.warning(
            wrapped(
                f"{card.name}: {correct:,} of {total:,} right here, but its card says {score.correct:,} of "
                f"{score.total:,}; check that these are the images it was trained with"
            )
        )
