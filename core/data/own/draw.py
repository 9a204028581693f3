"""Draw a stratified test split from training images. The draw depends on names and the seed only, on any machine."""

import hashlib
from collections import defaultdict
from dataclasses import replace

from ...errors import DataError
from ...text import first_few
from .listing import Item, Listing, SplitName

DRAWN = "test split drawn"
"""The end of a layout whose test split was drawn."""


def drawn_test(listing: Listing, *, seed: int, share: float) -> Listing:
    """Move a share of each class from training to a new test split; one image of every class at least stays.

    A class of two or more images gives at least one. Raises DataError if no class has two images.
    """
    by_label: dict[int, list[Item]] = defaultdict(list)
    for item in listing.splits["train"]:
        by_label[item.label].append(item)
    drawn: set[str] = set()
    single = []
    for label, items in sorted(by_label.items()):
        count = min(max(round(share * len(items)), 1), len(items) - 1)
        drawn |= {item.name for item in sorted(items, key=lambda item: _rank(seed, item.name))[:count]}
        if not count:
            single.append(listing.classes[label])
    if not drawn:
        raise DataError(
            f"{listing.files.root}: every class has one image only; expected two or more, to draw a test split"
        )
    splits: dict[SplitName, list[Item]] = {
        "train": [item for item in listing.splits["train"] if item.name not in drawn],
        "test": [item for item in listing.splits["train"] if item.name in drawn],
    }
    notes = list(listing.notes)
    if single:
        notes.append(f"one image only, which is for training: {first_few([repr(name) for name in single])}")
    return replace(listing, splits=splits, notes=notes, layout=f"{listing.layout}, {DRAWN}")


def _rank(seed: int, name: str) -> bytes:
    """A number that is random for each name, and the same on every machine."""
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
