"""What is found in a user's folder: classes, and for each split the images with their labels."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ...errors import DataError
from ...text import decodable, first_few, visible
from .class_names import class_order, merged_names
from .files import Files

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "dev": "validation", "eval": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""Names of folders and tables, in lower case."""


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled image."""

    name: str
    """As in Files."""
    label: int


@dataclass
class Listing:
    """The labelled images of a data set."""

    files: Files
    layout: str
    """The layout in words."""
    classes: tuple[str, ...]
    splits: dict[SplitName, list[Item]]
    """In the order in which they are read; at least `train`."""
    missing: list[tuple[SplitName, str, str]] = field(default_factory=list)
    """Images that a table names and that cannot be read: split, name, reason."""
    notes: list[str] = field(default_factory=list)
    """What is worth a line: folders without a class, files without a label."""

    def with_classes(self, classes: tuple[str, ...]) -> "Listing":
        """The same images with the classes in this order; they must be the same classes."""
        number = {name: index for index, name in enumerate(classes)}
        splits = {
            split: [Item(item.name, number[self.classes[item.label]]) for item in items]
            for split, items in self.splits.items()
        }
        return replace(self, classes=classes, splits=splits)

    def as_test_split(self) -> "Listing":
        """The same images, those of the only split, as a test split."""
        (items,) = self.splits.values()
        missing: list[tuple[SplitName, str, str]] = [("test", name, reason) for _, name, reason in self.missing]
        return replace(self, splits={"test": items}, missing=missing)


def listing_from_labels(
    files: Files,
    layout: str,
    labels: Mapping[SplitName, Iterable[tuple[str, str]]],
    *,
    missing: Iterable[tuple[SplitName, str, str]] = (),
    notes: Iterable[str] = (),
    model_classes: tuple[str, ...] = (),
) -> Listing:
    """Make a listing from names of images and of their classes, for each split. A single split is for training.

    `model_classes`: the classes of a model that only evaluates the images; see DataOptions.evaluation. Raises
    DataError for fewer than two classes, and for classes that the training split, or the model, lacks.
    """
    found = {split: list(pairs) for split, pairs in labels.items()}
    if len(found) == 1:
        found = {"train": next(iter(found.values()))}
    for label in {label for pairs in found.values() for _, label in pairs}:
        if decodable(label) != label:
            raise DataError(f"{files.root}: the class {decodable(label)!r} is not UTF-8; rename its folder")
    where = {split: f"{files.root}: the {split} split" for split in found}
    spelling, merged = merged_names([label for pairs in found.values() for _, label in pairs], source=str(files.root))
    if not any(found.values()):
        raise DataError(f"{files.root}: no images with a class; {EXPECTED}")
    classes = model_classes or class_order({spelling[label] for _, label in found.get("train", [])})
    if model_classes:
        check_known({spelling[label] for pairs in found.values() for _, label in pairs}, model_classes, files.root)
    if len(classes) < 2 and not model_classes:
        names = f": {classes[0]!r}" if classes else ""
        raise DataError(f"{where['train']}: found {len(classes)} class{names}; expected two or more")
    index, splits, more = {name: number for number, name in enumerate(classes)}, {}, list[str]()
    order = {name: number for number, name in enumerate(files.names)}
    for split, pairs in found.items():
        unknown = sorted({spelling[label] for _, label in pairs} - index.keys())
        if unknown:
            raise DataError(f"{where[split]}: class {unknown[0]!r} is not a class of the training split")
        items = [Item(name, index[spelling[label]]) for name, label in pairs]
        splits[split] = sorted(items, key=lambda item: order[item.name])
        absent = sorted(set(range(len(classes))) - {item.label for item in items})
        if absent and items:
            names = first_few([visible(classes[one]) for one in absent])
            alone = model_classes and len(found) == 1
            more.append(f"no images of {names}" if alone else f"the {split} split has no images of {names}")
    return Listing(
        files, layout, classes, {split: splits[split] for split in SPLITS if splits.get(split)},
        list(missing), [*notes, *merged, *more],
    )  # fmt: skip


def check_known(names: Collection[str], classes: Sequence[str], source: object) -> None:
    """Raise DataError if a class of labelled images is none of the model's: it could only be answered wrong."""
    unknown = class_order(set(names) - set(classes))
    if not unknown:
        return
    found = f"class {unknown[0]!r} is not a class of the model"
    if len(unknown) > 1:
        found = f"{len(unknown):,} classes are not classes of the model, the first: {unknown[0]!r}"
    folded = {name.casefold(): name for name in classes}
    close = difflib.get_close_matches(unknown[0].casefold(), folded, n=1, cutoff=0.75)
    advice = "leave out their images, or name their folders as the model does"
    if close:
        advice = f"did you mean {folded[close[0]]!r}?"
    elif len(unknown) == len(set(names)):
        advice = "name images of these classes"
    raise DataError(f"{source}: {found}; expected {first_few(classes, 12)}; {advice}")


EXPECTED = (
    "expected train/<class>/*, <class>/*, or a table labels.csv with the columns file and label; see docs/own-data.md"
)
