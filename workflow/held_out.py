"""Labelled images to fit a temperature on: those that the training of the model held out, or others.

Nothing is fitted on images that the model is scored on, or that it was trained on.
"""

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from ..bench.parity.compare import check_labels
from ..core.card import ModelCard, Training
from ..core.card_records import split_text
from ..core.data.datasets import Dataset, Split
from ..core.data.open_dataset import open_dataset
from ..core.data.options import DataOptions
from ..core.errors import DataError, UsageError
from ..core.text import visible, wrapped
from .eval_request import ALL
from .model_data import dataset_of

_log = logging.getLogger(__name__)

MAX_REPEATED = 0.01
"""The largest share of the images that may also be training or scored images: data sets hold some images twice."""
NAME_OTHERS = "name labelled images that it was not trained on: --held-out DIR"
COUNT = re.compile(r"on (\d+) held-out training images")
"""The number of held-out images in `Training.selection`, for cards that do not have it as a number."""


@dataclass(frozen=True)
class HeldOut:
    """Labelled images that a model was not trained on."""

    images: Split
    dataset: str
    split: str
    """Its name in the card: holdout, validation, test."""
    chose_epoch: bool
    """Whether the training chose its weights by these images."""

    @property
    def split_text(self) -> str:
        """The split in words."""
        return split_text(self.split)


def held_out_of(
    card: ModelCard, *, requested: str | None = None, dataset: str | None = None, data_dir: Path | None = None
) -> HeldOut:
    """Return the images that the training of a model held out, or those that the user names.

    `requested`: a data set or folder of other images. `dataset`: where the model's own data are, if they have moved.
    Raises UsageError if the training held nothing out, or trained on what the user names, and DataError.
    """
    if requested is not None:
        return _named(card, requested, data_dir)
    training = card.training
    if training is None:
        raise UsageError(
            f"{card.name}: its card has no training, so nothing says which images it has seen; {NAME_OTHERS}"
        )
    count = held_out_count(training)
    splits = card.data.images if card.data else {}
    if not count and not {"validation", "test"} <= splits.keys():
        only = "but the validation split, on which it is scored" if "validation" in splits else "out"
        raise UsageError(
            f"{card.name}: its training held nothing {only}, so no images are left to fit a temperature on; "
            f"{NAME_OTHERS}, or train with --validation-split 0.1"
        )
    own = _own_data(card, dataset, data_dir)
    split = "holdout" if count else "validation"
    steered = training.selected_on == split or training.settings.get("schedule") == "plateau"
    if training.start:
        _log.warning(
            wrapped(
                f"{card.name}: started from {visible(training.start)}; if that was trained on the images held out "
                "here, the temperature is too optimistic"
            )
        )
    return HeldOut(_drawn(own, training, count) if count else own.split("validation"), card.dataset, split, steered)


def held_out_count(training: Training) -> int:
    """The number of training images that a training held out."""
    if training.held_out or training.selected_on != "holdout":
        return training.held_out
    found = COUNT.search(training.selection)
    return int(found[1]) if found else 0


def check_unseen(held_out: HeldOut, scored: Split, card: ModelCard, *, data_dir: Path | None = None) -> None:
    """Raise UsageError if images that the user named are scored ones or training images, by their pixels.

    A line of the log says if some are, or that the training images cannot be read.
    """
    hashes = _hashes(held_out.images)
    _check_repeated(hashes, _hashes(scored), held_out, "are images of the scored split")
    if held_out.split == "holdout":
        return
    try:
        trained = dataset_of(card, data_dir=data_dir).split("train")
    except DataError as error:
        _log.warning(
            wrapped(f"{held_out.dataset}: whether the model was trained on these images is not known: {error}")
        )
        return
    _check_repeated(hashes, _hashes(trained), held_out, "are training images of the model")


def _named(card: ModelCard, requested: str, data_dir: Path | None) -> HeldOut:
    """The images that the user names: all of a folder without splits, else its validation or else its test split."""
    size, record = card.input, card.data
    options = DataOptions(
        image_size=(size.height, size.width),
        channels=size.channels,
        fit=card.image_fit,
        classes=card.classes,
        evaluation=True,
        trained_on=record.fingerprint if record else "",
    )
    found = open_dataset(requested, data_dir=data_dir, options=options)
    own = found.record.fingerprint == record.fingerprint if found.record and record else requested == card.dataset
    name = "validation" if "validation" in found.splits else found.scored_split
    if own and name == found.scored_split:
        raise UsageError(
            f"{visible(requested)}: {card.name} was trained on these images or is scored on them; expected others: "
            "--held-out DIR"
        )
    split = found.split(name)
    check_labels(card.classes, split, found.classes, name=found.name)
    chose = own and card.training is not None and card.training.selected_on == name
    return HeldOut(split, found.name, name if len(found.splits) > 1 else ALL, chose)


def _own_data(card: ModelCard, dataset: str | None, data_dir: Path | None) -> Dataset:
    """The model's own data. Raises UsageError if the user names others: their split would not be the training's."""
    moved = card.data is not None and not Path(card.data.path).exists()
    found = dataset_of(card, dataset if moved else None, data_dir=data_dir)
    same = (
        found.record.fingerprint == card.data.fingerprint if found.record and card.data else found.name == card.dataset
    )
    if not same:
        raise UsageError(
            f"{visible(dataset or '')}: not the data that {card.name} was trained on, so the images that its training "
            "held out cannot be found in it; name them: --held-out DIR"
        )
    return found


def _drawn(own: Dataset, training: Training, count: int) -> Split:
    from ..train.data.splits import held_out_images

    total = len(own.split("train"))
    if training.trained_images + count > total:
        raise DataError(
            f"{own.name}: the training used {training.trained_images:,} and held out {count:,} training images, but "
            f"there are only {total:,}; restore the data, or name other images: --held-out DIR"
        )
    return held_out_images(own, count=count, seed=training.seed)


def _hashes(split: Split) -> list[bytes]:
    """A hash of the pixels of each image."""
    return [
        hashlib.blake2b(image_HWC.tobytes(), digest_size=16).digest() for part in split.parts() for image_HWC in part
    ]


def _check_repeated(hashes: list[bytes], others: list[bytes], held_out: HeldOut, what: str) -> None:
    known = set(others)
    repeated = sum(one in known for one in hashes)
    if not repeated:
        return
    text = f"{visible(held_out.dataset)}: {repeated:,} of {len(hashes):,} images ({held_out.split_text}) {what}"
    if repeated > MAX_REPEATED * len(hashes):
        raise UsageError(f"{text}; a temperature is fitted on others: name them with --held-out DIR")
    _log.warning(wrapped(text))
