"""What people point at, as one stream of images: files, folders, globs, archives, arrays, data set splits, stdin.

Nothing is listed before it is needed. What is held: the names of the folder that is being searched (about 0.2 KB
each) and one number for each folder, of a glob the names that it matches, of a zip its directory (about 1 KB a
member), of everything else one block.

How an image that has no file of its own is named: `shard.tar!/dog/1.jpg` in an archive, `images.npy[17]` in an array,
`data.npz!/x_test[17]` in an array of several, `cifar10:test[17]` in a data set's split.
"""

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RtkError
from ..core.images import IMAGE_SUFFIXES

STDIN = "-"
ARCHIVE = re.compile(r".*\.(zip|tar|tar\.(gz|bz2|xz)|tgz|tbz2|txz)", re.IGNORECASE | re.DOTALL)
ARRAY = re.compile(r".*(\.npy|\.npz|\.bin|[.-]idx\d?-ubyte(\.gz)?|\.idx(\.gz)?)", re.IGNORECASE | re.DOTALL)
SPLIT = re.compile(r"(cifar10|fashion-mnist|shapes):(train|test)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One image to be answered, or a source that holds none and why."""

    name: str
    """As it is shown."""
    error: str = ""
    content: bytes | NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)
    """An image file's bytes, or pixels H x W or H x W x C; None where `name` is the path of a file."""

    @property
    def path(self) -> Path:
        """Where the image lies, if it is a file."""
        return Path(self.name)


def entries(paths: Iterable[str], *, stdin: BinaryIO | None = None, data_dir: Path | None = None) -> Iterator[Entry]:
    """The images behind `paths`, one by one and in order; folders are listed while they are read.

    A path is an image file, a folder (searched with its sub-folders for files named like images), a glob, "-" for
    paths on standard input, separated by NUL or newline, an archive (zip, tar, compressed tar; the members named like
    images), an array (.npy, .npz, idx, CIFAR binary), or a split such as cifar10:test, whose files lie in `data_dir`.
    """
    for path in paths:
        if path == STDIN:
            yield from entries(_stdin_paths(stdin or sys.stdin.buffer), data_dir=data_dir)
        elif os.path.isdir(path):
            yield from _or_error(_folder(path), Entry(path, "no images in this folder"))
        elif os.path.lexists(path):
            yield from _file(path)
        elif glob.has_magic(path):
            matches = (name for name in sorted(glob.glob(path, recursive=True)) if not os.path.isdir(name))
            images = (entry for name in matches for entry in _file(name))
            yield from _or_error(images, Entry(path, "the pattern matches no file"))
        elif split := SPLIT.fullmatch(path):
            yield from _split(split[1], split[2], data_dir)
        else:
            yield Entry(path, "no such file")


def _or_error(found: Iterator[Entry], otherwise: Entry) -> Iterator[Entry]:
    first = next(found, otherwise)
    yield first
    yield from found


def _file(path: str) -> Iterator[Entry]:
    """One image, or those within the file; the modules that read archives and arrays are loaded for them only."""
    kind = "archive" if ARCHIVE.fullmatch(path) else "array" if ARRAY.fullmatch(path) else "image"
    if kind != "image" and not Path(path).is_file():  # a pipe would never end, or never begin
        yield Entry(path, "not a regular file" if Path(path).exists() else "no such file")
    elif kind == "archive":
        from .archives import archive_entries

        yield from _or_error(archive_entries(path), Entry(path, "no images in this archive"))
    elif kind == "array":
        from .arrays import array_entries

        yield from _or_error(array_entries(path), Entry(path, "no images in this file"))
    else:
        yield Entry(path)


def _folder(root: str) -> Iterator[Entry]:
    """Images named like such, a folder's own before those below it, each real folder once however links lead to it."""
    waiting, seen = [root], set[tuple[int, int]]()
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116 - strings, as everywhere here
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            files, folders = [], []
            with os.scandir(folder) as listing:
                for item in listing:
                    if _is_folder(item):
                        folders.append(item.name)
                    elif os.path.splitext(item.name)[1].lower() in IMAGE_SUFFIXES:
                        files.append(item.name)
        except OSError as error:
            yield Entry(folder, f"the folder cannot be read: {error.strerror or error}")
            continue
        files.sort()
        yield from (Entry(os.path.join(folder, name)) for name in files)
        folders.sort(reverse=True)
        waiting += (os.path.join(folder, name) for name in folders)


def _is_folder(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _split(dataset: str, split: str, data_dir: Path | None) -> Iterator[Entry]:
    from ..core.datasets import open_dataset

    name = f"{dataset}:{split}"
    try:
        images_NHWC = (
            open_dataset(dataset, data_dir=data_dir).split("train" if split == "train" else "test").images_NHWC
        )
    except RtkError as error:
        yield Entry(name, str(error))
        return
    yield from (Entry(f"{name}[{number}]", content=image_HWC) for number, image_HWC in enumerate(images_NHWC))


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
