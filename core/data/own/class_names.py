"""Names of classes: in which order they get their numbers, and which spellings are the same name."""

import unicodedata
from collections.abc import Iterable

from ...errors import DataError


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort the names of classes: by number if all of them are whole numbers, else by their characters."""
    names = list(names)
    if all(name.isascii() and name.removeprefix("-").isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def merged_names(names: Iterable[str], *, source: str) -> tuple[dict[str, str], list[str]]:
    """Map every spelling to the name of its class, and return notes about spellings that became one.

    Spellings with the same Unicode normal form (NFC) look the same and are one class: systems write them differently.
    Raises DataError if two names differ in upper and lower case only, because one of them may be a mistake.
    """
    spelling = {name: unicodedata.normalize("NFC", name) for name in names}
    notes = []
    for normal in sorted(set(spelling.values())):
        written = [name for name in spelling if spelling[name] == normal]
        if len(written) > 1:
            notes.append(f"class {normal!r} is written in {len(written)} Unicode forms; it is one class")
    by_case: dict[str, str] = {}
    for normal in sorted(set(spelling.values())):
        other = by_case.setdefault(normal.casefold(), normal)
        if other != normal:
            raise DataError(
                f"{source}: classes {other!r} and {normal!r} differ only in upper and lower "
                "case; merge them, or rename one"
            )
    return spelling, notes
