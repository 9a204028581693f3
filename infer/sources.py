"""What people point at, as one stream of images: files, folders, globs, paths on standard input."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..core.images import IMAGE_SUFFIXES

STDIN = "-"


@dataclass(frozen=True)
class Entry:
    """One image to be answered, or a source that holds none and why."""

    name: str
    """As it is shown."""
    error: str = ""

    @property
    def path(self) -> Path:
        """Where the image lies."""
        return Path(self.name)


def entries(paths: Iterable[str], *, stdin: BinaryIO | None = None) -> Iterator[Entry]:
    """The images behind `paths`, one by one and in order; folders are listed while they are read.

    A path is an image file, a folder (searched with its sub-folders for files named like images), a glob, or "-" for
    paths on standard input, separated by NUL or newline.
    """
    for path in paths:
        if path == STDIN:
            yield from entries(_stdin_paths(stdin or sys.stdin.buffer))
        elif os.path.isdir(path):
            yield from _or_error(_folder(path), Entry(path, "no images in this folder"))
        elif os.path.lexists(path):
            yield Entry(path)
        elif glob.has_magic(path):
            matches = (name for name in sorted(glob.glob(path, recursive=True)) if not os.path.isdir(name))
            yield from _or_error(map(Entry, matches), Entry(path, "the pattern matches no file"))
        else:
            yield Entry(path, "no such file")


def _or_error(found: Iterator[Entry], otherwise: Entry) -> Iterator[Entry]:
    first = next(found, otherwise)
    yield first
    yield from found


def _folder(root: str) -> Iterator[Entry]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Entry(os.path.join(folder, name))


def _stdin_paths(stdin: BinaryIO) -> Iterator[str]:
    rest = b""
    separator = b""
    while block := stdin.read(1 << 16):
        rest += block
        separator = separator or (b"\0" if b"\0" in rest else b"")
        *whole, rest = rest.split(separator or b"\n")
        yield from (os.fsdecode(path) for path in whole if path)
    if rest.strip(b"\r"):
        yield os.fsdecode(rest)
