"""Sources of images as one stream: files, folders, globs, archives, arrays, data set splits, standard input.

Sources are listed only when they are needed. This is in memory at a time: of a folder, the names in the current
sub-folder (about 0.2 KB each) and one number per folder; of a glob, the names that match; of a zip, its directory
(about 1 KB per member); of everything else, one block.

Names of images that are not files: `shard.tar!/dog/1.jpg` in an archive, `images.npy[17]` in an array,
`data.npz!/x_test[17]` in a file of several arrays, `cifar10:test[17]` in a data set split.
"""

import glob
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from ...core.data.images import IMAGE_SUFFIXES, why_no_file
from ...core.errors import RtkError, UsageError
from .entry import Entry

STDIN = "-"
ARCHIVE = re.compile(r".*\.(zip|tar|tar\.(gz|bz2|xz)|tgz|tbz2|txz)", re.IGNORECASE | re.DOTALL)
ARRAY = re.compile(r".*(\.npy|\.npz|\.bin|[.-]idx\d?-ubyte(\.gz)?|\.idx(\.gz)?)", re.IGNORECASE | re.DOTALL)
RECURSIVE = re.compile(r"(|.*?/)/*\*\*(?:/+(.*))?", re.DOTALL)
"""Splits a pattern at its first `**` into the parts before and after it."""
SPLIT = re.compile(r"(cifar10|fashion-mnist|shapes):(train|test)")
_Seen = set[tuple[int, int]]
"""Folders, by device and inode."""


def entries(paths: Iterable[str], *, stdin: BinaryIO | None = None, data_dir: Path | None = None) -> Iterator[Entry]:
    """Yield the images of all paths, one by one and in order; folders are listed while they are read.

    A path is one of: an image file; a folder (with sub-folders; files with the suffix of an image format); a glob; "-"
    for paths on standard input, separated by NUL or newline; an archive (zip, tar, compressed tar; members with the
    suffix of an image format); an array (.npy, .npz, idx, CIFAR binary); a split such as cifar10:test, whose files are
    in `data_dir`.
    """
    for found in listed(paths, stdin=stdin):
        yield from within(found, data_dir=data_dir)


def listed(paths: Iterable[str], *, stdin: BinaryIO | None = None) -> Iterator[Entry]:
    """Yield the sources of all paths, one by one and in order, without opening archives, arrays and splits."""
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
    """Yield the paths, and in place of "-" the paths on standard input. Raises UsageError if it is closed."""
    for path in paths:
        if path != STDIN:
            yield path
        elif stdin is None and sys.stdin is None:
            raise UsageError("-: standard input is closed, expected paths on it")
        else:
            yield from _stdin_paths(stdin or sys.stdin.buffer)


def within(found: Entry, *, data_dir: Path | None = None) -> Iterator[Entry]:
    """Yield the images of one source: itself, or the images of an archive, array or split."""
    path = found.name
    kind = "" if found.error else kind_of(path)
    if not kind:
        yield found
    elif kind == "split":
        yield from _split(path, data_dir)
    elif not os.path.isfile(path):  # noqa: PTH113 - reading a pipe could block
        yield Entry(path, why_no_file(path))
    elif kind == "archive":
        from .archives import archive_entries  # loaded only if needed

        yield from _or_error(archive_entries(path), Entry(path, "no images in this archive"))
    else:
        from .arrays import array_entries

        yield from _or_error(array_entries(path), Entry(path, "no images in this file"))


def count(paths: Iterable[str]) -> int | None:
    """The number of entries; None if listing does not tell it: for standard input, archives, arrays and splits."""
    if STDIN in (wanted := list(paths)):
        return None
    counted = 0
    for found in listed(wanted):
        if not found.error and kind_of(found.name):
            return None
        counted += 1
    return counted


def kind_of(path: str) -> Literal["", "archive", "array", "split"]:
    """The kind of a source with many images, by its name; empty for a file with one image."""
    if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
        return ""
    if ARCHIVE.fullmatch(path):
        return "archive"
    if ARRAY.fullmatch(path):
        return "array"
    return "split" if SPLIT.fullmatch(path) and not os.path.lexists(path) else ""


def _or_error(found: Iterator[Entry], otherwise: Entry) -> Iterator[Entry]:
    """Yield the entries, or `otherwise` if there are none."""
    first = next(found, otherwise)
    yield first
    yield from found


def _matches(pattern: str, root: str, seen: defaultdict[str, _Seen]) -> Iterator[str]:
    """Yield what glob.glob finds below `root`, but each `**` searches a folder only once, even if links repeat it.

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
    """Yield the image files of a folder before those of its sub-folders, each folder once, even if links repeat it."""
    for folder, files in _folders(root, set()):
        if isinstance(files, OSError):
            yield Entry(folder, f"the folder cannot be read: {files.strerror or files}")
        else:
            images = sorted(name for name in files if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)
            yield from (Entry(os.path.join(folder, name)) for name in images)


def _folders(root: str, seen: _Seen, *, hidden: bool = True) -> Iterator[tuple[str, list[str] | OSError]]:
    """Yield the folder and its sub-folders that are not in `seen`, with the names of their files or the error."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        files, folders = [], []
        try:
            status = os.stat(folder or os.curdir)  # noqa: PTH116 - strings, as in this whole module
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
    except OSError:  # a link to itself
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
    """Yield paths that end with NUL; if there is no NUL, paths that end with newline or carriage return and newline."""
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
