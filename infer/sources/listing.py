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
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from ...core.data.images import IMAGE_SUFFIXES, no_file_reason
from ...core.errors import RtkError, UsageError
from .entry import Entry

STDIN = "-"
ARCHIVE = re.compile(r".*\.(zip|tar|tar\.(gz|bz2|xz)|tgz|tbz2|txz)", re.IGNORECASE | re.DOTALL)
ARRAY = re.compile(r".*(\.npy|\.npz|\.bin|[.-]idx\d?-ubyte(\.gz)?|\.idx(\.gz)?)", re.IGNORECASE | re.DOTALL)
RECURSIVE = re.compile(r"(|.*?/)/*\*\*(?:/+(.*))?", re.DOTALL)
"""A pattern at its first `**`: what comes before it, and after it."""
SPLIT = re.compile(r"(cifar10|fashion-mnist|shapes):(train|test)")
_Seen = set[tuple[int, int]]
"""Folders by device and inode."""


def entries(paths: Iterable[str], *, stdin: BinaryIO | None = None, data_dir: Path | None = None) -> Iterator[Entry]:
    """The images behind `paths`, one by one and in order; folders are listed while they are read.

    A path is an image file, a folder (searched with its sub-folders for files named like images), a glob, "-" for
    paths on standard input, separated by NUL or newline, an archive (zip, tar, compressed tar; the members named like
    images), an array (.npy, .npz, idx, CIFAR binary), or a split such as cifar10:test, whose files lie in `data_dir`.
    """
    for found in listed(paths, stdin=stdin):
        yield from within(found, data_dir=data_dir)


def listed(paths: Iterable[str], *, stdin: BinaryIO | None = None) -> Iterator[Entry]:
    """What lies behind `paths`, one by one and in order, before any archive, array or split is opened."""
    for path in paths:
        if path == STDIN:
            yield from listed(standard_input([path], stdin=stdin))
        elif os.path.isdir(path):
            yield from _or_error(_folder(path), Entry(path, "no images in this folder"))
        elif os.path.lexists(path):
            yield Entry(path)
        elif glob.has_magic(path) and "\0" not in path:
            matches = (Entry(name) for name in sorted(_matches(path, "", defaultdict(set))) if not os.path.isdir(name))
            yield from _or_error(matches, Entry(path, "the pattern matches no file"))
        else:
            yield Entry(path, "" if SPLIT.fullmatch(path) else "no such file")


def standard_input(paths: Iterable[str], *, stdin: BinaryIO | None = None) -> Iterator[str]:
    """The same paths, with those that standard input names in place of "-". Raises UsageError when it is closed."""
    for path in paths:
        if path != STDIN:
            yield path
        elif stdin is None and sys.stdin is None:
            raise UsageError("-: standard input is closed, expected paths on it")
        else:
            yield from _stdin_paths(stdin or sys.stdin.buffer)


def within(found: Entry, *, data_dir: Path | None = None) -> Iterator[Entry]:
    """The images in what was listed: itself, or those of an archive, array or split; the modules that read these are
    loaded for them only."""
    path = found.name
    kind = "" if found.error else kind_of(path)
    if not kind:
        yield found
    elif kind == "split":
        yield from _split(path, data_dir)
    elif not os.path.isfile(path):  # noqa: PTH113 - a pipe would never end, or never begin
        yield Entry(path, no_file_reason(path))
    elif kind == "archive":
        from .archives import archive_entries

        yield from _or_error(archive_entries(path), Entry(path, "no images in this archive"))
    else:
        from .arrays import array_entries

        yield from _or_error(array_entries(path), Entry(path, "no images in this file"))


def count(paths: Iterable[str]) -> int | None:
    """How many entries these are, where that can be told by listing: not of standard input, archives and arrays."""
    if STDIN in (wanted := list(paths)):
        return None
    counted = 0
    for found in listed(wanted):
        if not found.error and kind_of(found.name):
            return None
        counted += 1
    return counted


def kind_of(path: str) -> Literal["", "archive", "array", "split"]:
    """What holds many images, by its name; empty for the file of one image."""
    if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
        return ""
    if ARCHIVE.fullmatch(path):
        return "archive"
    if ARRAY.fullmatch(path):
        return "array"
    return "split" if SPLIT.fullmatch(path) and not os.path.lexists(path) else ""


def _or_error(found: Iterator[Entry], otherwise: Entry) -> Iterator[Entry]:
    first = next(found, otherwise)
    yield first
    yield from found


def _matches(pattern: str, root: str, seen: defaultdict[str, _Seen]) -> Iterator[str]:
    """What glob.glob finds below `root`, but each `**` searches a real folder once, however links lead to it.

    `seen`: the folders that each `**` has searched, by the pattern after it.
    """
    parts = RECURSIVE.fullmatch(pattern)
    if parts is None:
        yield from (os.path.join(root, name) for name in glob.iglob(pattern, root_dir=root, recursive=True))
        return
    head, tail = parts[1], "*" if parts[2] is None else parts[2]
    for start in sorted(_matches(head, root, seen)) if head else [root]:
        for folder, _ in _folders(start, seen[tail], hidden=False):
            yield from _matches(tail, folder, seen)


def _folder(root: str) -> Iterator[Entry]:
    """Images named like such, a folder's own before those below it, each real folder once however links lead to it."""
    for folder, files in _folders(root, set()):
        if isinstance(files, OSError):
            yield Entry(folder, f"the folder cannot be read: {files.strerror or files}")
        else:
            images = sorted(name for name in files if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)
            yield from (Entry(os.path.join(folder, name)) for name in images)


def _folders(root: str, seen: _Seen, *, hidden: bool = True) -> Iterator[tuple[str, list[str] | OSError]]:
    """The folder and those below it that were not `seen`, with the names of their files or why they cannot be read."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        files, folders = [], []
        try:
            status = os.stat(folder or os.curdir)  # noqa: PTH116 - strings, as everywhere here
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder or os.curdir) as listing:
                for item in listing:
                    if not _is_folder(item):
                        files.append(item.name)
                    elif hidden or not item.name.startswith("."):
                        folders.append(item.name)
        except OSError as error:
            yield folder, error
            continue
        yield folder, files
        folders.sort(reverse=True)
        waiting += (os.path.join(folder, name) for name in folders)


def _is_folder(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _split(name: str, data_dir: Path | None) -> Iterator[Entry]:
    from ...core.data.datasets import open_dataset

    dataset, _, split = name.partition(":")
    try:
        images_NHWC = (
            open_dataset(dataset, data_dir=data_dir).split("train" if split == "train" else "test").images_NHWC
        )
    except RtkError as error:
        yield Entry(name, str(error))
        return
    yield from (Entry(f"{name}[{number}]", content=image_HWC) for number, image_HWC in enumerate(images_NHWC))


def _stdin_paths(stdin: BinaryIO) -> Iterator[str]:
    """Paths up to each NUL, as they are; where there is none, up to each newline or carriage return and newline."""
    rest, separator = b"", b"\n"

    def names(paths: list[bytes]) -> Iterator[str]:
        for path in paths:
            if name := path if separator == b"\0" else path.removesuffix(b"\r"):
                yield os.fsdecode(name)

    while block := stdin.read(1 << 16):
        if b"\0" in block:
            separator = b"\0"
        *whole, rest = (rest + block).split(separator)
        yield from names(whole)
    yield from names([rest])
