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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from ...core.data import DATASETS
from ...core.data.file_rules import ARCHIVE, IMAGE_SUFFIXES, LeftOut
from ...core.data.images import no_file_reason
from ...core.data.sources.entry import Entry
from ...core.data.sources.folders import folder_entries, glob_matches
from ...core.errors import RtkError, UsageError
from ...core.urls import url_problem
from .standard_input import paths_on

STDIN = "-"
ARRAY = re.compile(r".*(\.npy|\.npz|\.bin|[.-]idx\d?-ubyte(\.gz)?|\.idx(\.gz)?)", re.IGNORECASE | re.DOTALL)
SPLITS = ("train", "test")
SPLIT = re.compile(r"(cifar10|fashion-mnist|shapes):(train|test)")


def entries(
    paths: Iterable[str],
    *,
    stdin: BinaryIO | None = None,
    data_dir: Path | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[Entry]:
    """Yield the images of all paths, one by one and in order; folders are listed while they are read.

    A path is one of: an image file; a folder (with sub-folders; its images by core/data/file_rules.py); a glob; "-" for
    paths on standard input, separated by NUL or newline; an archive (zip, tar, compressed tar; images as in a folder);
    an array (.npy, .npz, idx, CIFAR binary); a split such as cifar10:test, whose files are in `data_dir`. `left_out`
    counts what folders and archives hold besides images.
    """
    left_out = left_out or LeftOut()
    for found in listed(paths, stdin=stdin, left_out=left_out):
        yield from within(found, data_dir=data_dir, left_out=left_out)


def listed(paths: Iterable[str], *, stdin: BinaryIO | None = None, left_out: LeftOut | None = None) -> Iterator[Entry]:
    """Yield the sources of all paths, one by one and in order, without opening archives, arrays and splits."""
    for path in standard_input(paths, stdin=stdin):
        if os.path.isdir(path):
            yield from _or_error(folder_entries(path, left_out), Entry(path, "no images in this folder"))
        elif os.path.lexists(path):
            yield Entry(path)
        elif problem := url_problem(path):
            yield Entry(path, problem)
        elif glob.has_magic(path) and "\0" not in path:
            matches = (Entry(name) for name in sorted(glob_matches(path)) if not os.path.isdir(name))
            yield from _or_error(matches, Entry(path, "the pattern matches no file"))
        else:
            yield Entry(path, _missing_reason(path))


def standard_input(paths: Iterable[str], *, stdin: BinaryIO | None = None) -> Iterator[str]:
    """Yield the paths, and in place of "-" the paths on standard input.

    Raises UsageError if it is closed, holds no paths, or holds the root folder.
    """
    for path in paths:
        if path != STDIN:
            yield path
        elif stdin is None and sys.stdin is None:
            raise UsageError("-: standard input is closed, expected paths on it")
        else:
            for name in paths_on(stdin or sys.stdin.buffer):
                yield os.path.join(os.curdir, name) if name == STDIN else name  # a line "-" is a file


def within(found: Entry, *, data_dir: Path | None = None, left_out: LeftOut | None = None) -> Iterator[Entry]:
    """Yield the images of one source: itself, or the images of an archive, array or split."""
    path = found.name
    kind = "" if found.error else kind_of(path)
    if not kind:
        yield found
    elif kind == "split":
        yield from _split(path, data_dir)
    elif not os.path.isfile(path):  # noqa: PTH113 - reading a pipe could block
        yield Entry(path, no_file_reason(path))
    elif kind == "archive":
        from ...core.data.sources.archives import archive_entries  # loaded only if needed

        yield from _or_error(archive_entries(path, left_out), Entry(path, "no images in this archive"))
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


def _missing_reason(path: str) -> str:
    """Why a path that does not exist is no source; empty for a split of a data set."""
    dataset, colon, split = path.partition(":")
    if not colon or dataset not in DATASETS:
        return "no such file"
    return "" if split in SPLITS else f"unknown split; known: {', '.join(SPLITS)}"


def _or_error(found: Iterator[Entry], otherwise: Entry) -> Iterator[Entry]:
    """Yield the entries, or `otherwise` if there are none."""
    first = next(found, otherwise)
    yield first
    yield from found


def _split(name: str, data_dir: Path | None) -> Iterator[Entry]:
    from ...core.data.datasets import open_named

    dataset, _, split = name.partition(":")
    try:
        found = open_named(dataset, data_dir=data_dir).split("train" if split == "train" else "test")
    except RtkError as error:
        yield Entry(name, str(error))
        return
    yield from (Entry(f"{name}[{number}]", content=image_HWC) for number, image_HWC in enumerate(found.images_NHWC))
