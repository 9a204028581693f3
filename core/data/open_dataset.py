"""Open a data set: one with a name, or the user's own in a folder or archive."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..card import DataRecord, Input
from ..errors import DataError, UnknownNameError
from ..text import visible, wrapped
from ..urls import url_problem
from . import DATASETS
from .datasets import Dataset, Split, open_named
from .decode import guessed_text
from .file_rules import ARCHIVE, dataset_name
from .images import Reading, read_image
from .options import DataOptions, is_named
from .own.array_sets import ArraySet, find_array_set
from .own.draw import DRAWN
from .own.fingerprint import fingerprint_of, fingerprint_of_files
from .own.image_input import choose_input
from .own.layouts import find_listing, with_test_split
from .own.listing import Listing, SplitName
from .own.pixel_cache import Pixels, pixels_of

_log = logging.getLogger(__name__)


def open_dataset(name: str, *, data_dir: Path | None = None, options: DataOptions | None = None) -> Dataset:
    """Open a data set by its name, or a folder or archive of the user's own by its path.

    `data_dir`: the folder of the official files; None means RTK_DATA_DIR or the user's cache folder. Raises
    UnknownNameError for a name that is neither a data set nor a path, and DataError for a folder without labelled
    images.
    """
    options = options or DataOptions()
    if is_named(name):
        return _resized(open_named(name, data_dir=data_dir), options)
    path = Path(name)
    if not path.exists() or not name:
        if problem := url_problem(name):
            raise DataError(f"{name}: {problem}")
        if "/" in name:
            raise DataError(f"{name}: no such folder or archive")
        raise UnknownNameError("data set", name, (*DATASETS, "or the path of a folder or archive of images"))
    if not path.is_dir() and not ARCHIVE.fullmatch(path.name):
        raise DataError(f"{name}: not a data set; expected a folder, or a zip or tar archive, of images")
    try:
        arrays = find_array_set(path)
        return _from_arrays(path, arrays, options) if arrays else _from_files(path, options)
    except OSError as error:
        raise DataError(f"{error.filename or name}: cannot be read: {error.strerror or error}") from error


@dataclass
class _OwnFiles:
    """Reads the splits of a listing, and keeps what could not be read."""

    listing: Listing
    options: DataOptions
    name: str
    reading: Reading
    read: dict[SplitName, Pixels] = field(default_factory=dict)

    def split(self, split: SplitName) -> Split:
        pixels = self.pixels(split)
        items = self.listing.splits[split]
        return Split(pixels.images_NHWC, np.array([items[row].label for row in pixels.rows], np.int64))

    def pixels(self, split: SplitName) -> Pixels:
        """Raises DataError if too many images cannot be read."""
        if split not in self.listing.splits:
            raise DataError(f"{self.name}: has no {split} split")
        if split not in self.read:
            items = self.listing.splits[split]
            what = f"{visible(self.name)} ({split})"
            pixels = pixels_of(self.listing.files, items, self.reading, what=what)
            self._check(split, pixels, len(items))
            self.read[split] = pixels
        return self.read[split]

    def files(self, split: SplitName) -> list[tuple[str, str]]:
        items = self.listing.splits.get(split, [])
        return [(items[row].name, self.listing.classes[items[row].label]) for row in self.pixels(split).rows]

    def unreadable(self, split: SplitName) -> list[tuple[str, str]]:
        missing = [(name, reason) for of, name, reason in self.listing.missing if of == split]
        return [*missing, *(self.pixels(split).unreadable if split in self.listing.splits else [])]

    def hashes(self, split: SplitName) -> list[str]:
        return self.pixels(split).hashes

    def _check(self, split: SplitName, pixels: Pixels, count: int) -> None:
        missing = [(name, reason) for of, name, reason in self.listing.missing if of == split]
        bad, total = [*missing, *pixels.unreadable], count + len(missing)
        where = f"{self.listing.files.root}: the {split} split"
        if pixels.guessed:
            _log.info(wrapped(f"{where}: {guessed_text(pixels.guessed)}"))
        if not pixels.rows:
            first = f", the first: {visible(bad[0][0])}: {bad[0][1]}" if bad else ""
            raise DataError(f"{where}: none of its {total:,} images can be read{first}")
        if bad:
            text = f"{len(bad):,} of {total:,} images cannot be read, the first: {visible(bad[0][0])}: {bad[0][1]}"
            if len(bad) > self.options.max_unreadable * total + 1e-6:  # 0.29 of 100 is 28.999...
                raise DataError(
                    f"{where}: {text}; at most {100 * self.options.max_unreadable:.3g} % may be left out; remove them, "
                    f"or accept them: --max-unreadable {_rounded_up(len(bad) / total):g}"
                )
            _log.warning(wrapped(f"{where}: {text}; left out"))


def _rounded_up(share: float) -> float:
    """A share with two decimals that is at least this one."""
    return min(1.0, int(100 * share + 1) / 100)


def _from_files(path: Path, options: DataOptions) -> Dataset:
    listing = find_listing(path, model_classes=options.classes if options.evaluation else ())
    fingerprint = fingerprint_of(listing)
    if not options.evaluation or fingerprint == options.trained_on:
        listing = with_test_split(listing, seed=options.split_seed, share=options.test_share)
    elif len(listing.splits) == 1:
        listing = listing.as_test_split()
    name = dataset_name(str(path))
    if options.classes and set(options.classes) == set(listing.classes):
        listing = listing.with_classes(options.classes)
    names = [item.name for items in listing.splits.values() for item in items]
    reason = ""
    if options.image_size and options.channels:
        size = Input(*options.image_size, options.channels)
    else:
        chosen = choose_input(
            listing.files,
            names,
            side=options.default_side,
            max_pixels=options.max_pixels,
            requested=options.image_size,
        )
        size, reason = chosen.input, chosen.reason
        if options.channels:
            size = Input(size.height, size.width, options.channels)
    own = _OwnFiles(listing, options, name, Reading(size, options.fit, options.max_pixels))
    counts = {split: len(items) for split, items in listing.splits.items()}
    drawn = listing.layout.endswith(DRAWN)
    _log_found(path, listing, counts, reason)
    record = DataRecord(
        str(path.resolve()),
        listing.layout,
        {str(split): count for split, count in counts.items()},
        fingerprint,
        seed=options.split_seed if drawn else 0,
        test_share=options.test_share if drawn else 0.0,
        max_unreadable=options.max_unreadable,
        max_pixels=options.max_pixels,
    )
    return Dataset(name, listing.classes, own.split, tuple(listing.splits), options.fit, record, own)


def _log_found(path: Path, listing: Listing, counts: dict[SplitName, int], reason: str) -> None:
    """Log what was found in one line, and a line for everything that is left out or unusual."""
    alone = len(counts) == 1  # only a model that evaluates them reads images without a split
    parts = ", ".join(f"{count:,}" if alone else f"{count:,} {split}" for split, count in counts.items())
    scored = "" if "test" in counts or alone else "; no test split: scores are of the validation split"
    _log.info(
        wrapped(f"{visible(str(path))}: {listing.layout}: {len(listing.classes):,} classes, {parts} images{scored}")
    )
    if reason:
        _log.info(wrapped(f"{reason}; another size: --image-size"))
    for note in listing.notes:
        _log.warning(wrapped(note))
    if text := listing.files.left_out.to_text():
        _log.info(wrapped(f"left out: {text}"))


def _from_arrays(path: Path, arrays: ArraySet, options: DataOptions) -> Dataset:
    splits: tuple[SplitName, ...] = ("train", "test")
    if arrays.note:
        _log.info(wrapped(f"{visible(str(path))}: {arrays.note}"))
    _log.info(wrapped(f"{visible(str(path))}: {arrays.layout}: {len(arrays.classes):,} classes"))
    record = DataRecord(
        str(path.resolve()), arrays.layout, {}, fingerprint_of_files(path, arrays.files), max_pixels=options.max_pixels
    )
    dataset = Dataset(
        dataset_name(str(path)), arrays.classes, lambda split: Split(*arrays.read(split)), splits, options.fit, record
    )
    return _resized(dataset, options)


def _resized(dataset: Dataset, options: DataOptions) -> Dataset:
    """The data set with its images in the requested size and channels."""
    if options.image_size is None and options.channels is None:
        return dataset

    def read(name: SplitName) -> Split:
        split = dataset.read(name)
        height, width, channels = split.images_NHWC.shape[1:]
        wanted = options.image_size or (height, width)
        size = Input(wanted[0], wanted[1], options.channels or channels)
        if size.shape == (height, width, channels):
            return split
        reading = Reading(size, options.fit)
        return Split(np.stack([read_image(image, reading)[0] for image in split.images_NHWC]), split.labels_N)

    return Dataset(dataset.name, dataset.classes, read, dataset.splits, options.fit, dataset.record, dataset.details)
