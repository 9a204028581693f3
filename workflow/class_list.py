"""The classes of a model that was trained elsewhere, in the order of its logits: `--classes`."""

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.data.datasets import open_named
from ..core.data.options import is_named
from ..core.errors import DataError, UsageError
from ..core.text import first_few, wrapped

_log = logging.getLogger(__name__)

LARGEST_BYTES = 64 << 20
"""Larger files are not read: a list of names is not so long."""
LABELS = "id2label"
"""Where the configuration of a model of Hugging Face has its classes."""
FORMS = "expected a file, names with commas between them, cifar10, fashion-mnist or shapes"


@dataclass(frozen=True)
class ClassList:
    """The names of the classes."""

    names: tuple[str, ...]
    dataset: str = ""
    """The data set with a name that they are of, if they were given by its name; else empty."""


def read_classes(text: str) -> ClassList:
    """Read the value of --classes: a file, a data set of rtk, or names with commas between them.

    A file has one name in each line, or is JSON: a list of names, a map from numbers to names or from names to numbers,
    the map of Keras from numbers to pairs of a code and a name, or a configuration with `id2label`. Names that occur
    twice get their numbers. Raises UsageError, and DataError for a file that is none of these.
    """
    path = Path(text)
    if path.is_file():
        return ClassList(_distinct(_from_file(path), source=text))
    if is_named(text):
        return ClassList(open_named(text).classes, text)
    if path.is_dir():
        raise UsageError(f"--classes {text}: a folder; {FORMS}")
    names = [name.strip() for name in text.split(",")]
    if len(names) < 2:
        raise UsageError(f"--classes {text}: no such file; {FORMS}")
    if not all(names):
        raise UsageError(f"--classes {text}: name {names.index('') + 1} is empty; {FORMS}")
    return ClassList(_distinct(names, source="--classes"))


def _from_file(path: Path) -> list[str]:
    """The names in a file. Raises DataError."""
    if path.stat().st_size > LARGEST_BYTES:
        raise DataError(f"{path}: --classes: larger than {LARGEST_BYTES >> 20} MiB; expected a list of names")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: --classes: not text in UTF-8; expected one name in each line, or JSON") from error
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "["):
        return _from_json(text, path)
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if not all(lines):
        raise DataError(f"{path}: --classes: line {lines.index('') + 1} is empty; expected one name in each line")
    return lines


def _from_json(text: str, path: Path) -> list[str]:
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: --classes: not JSON ({error})") from error
    if isinstance(content, dict) and isinstance(content.get(LABELS), dict):
        content = content[LABELS]
    names = content if isinstance(content, list) else _in_order(content) if isinstance(content, dict) else None
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(
            f"{path}: --classes: expected a JSON list of names, or a map between all numbers from 0 on and names"
        )
    return [name.strip() for name in names]


def _in_order(content: dict[str, Any]) -> list[Any] | None:
    """The names of a map in the order of their numbers, which are its keys or its values; None if it is no such map."""
    by_number: dict[int, Any]
    if all(type(number) is int for number in content.values()):
        by_number = {number: name for name, number in content.items()}
    elif all(key.isdecimal() for key in content):  # of a pair, as Keras has, the second one is the name
        by_number = {
            int(key): name[1] if isinstance(name, list) and len(name) == 2 else name for key, name in content.items()
        }
    else:
        return None
    if len(by_number) != len(content) or sorted(by_number) != list(range(len(content))):
        return None
    return [by_number[number] for number in range(len(content))]


def _distinct(names: list[str], *, source: str) -> tuple[str, ...]:
    """The names; those that occur several times, as `crane` does in ImageNet, with their numbers after them."""
    counts = Counter(names)
    repeated = [name for name, count in counts.items() if count > 1]
    if not repeated:
        return tuple(names)
    _log.warning(
        wrapped(f"{source}: several classes have the same name ({first_few(repeated)}); they get their numbers")
    )
    return tuple(f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(names))
