"""What the functions take where a command has text: paths of any kind, one value or several."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

PathLike: TypeAlias = str | os.PathLike[str]


def text(path: PathLike) -> str:
    """A name or a path as text."""
    return os.fspath(path)


def text_or_none(path: PathLike | None) -> str | None:
    """A name or a path as text, or None."""
    return None if path is None else os.fspath(path)


def path_or_none(path: PathLike | None) -> Path | None:
    """A path, or None."""
    return None if path is None else Path(path)


def several(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """One value, several, or none."""
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)
