"""Search folders and globs for files. Each folder is searched only once, even if links lead to it again."""

import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterator

from ..file_rules import LeftOut, is_image_file, is_passed_over
from .entry import Entry

RECURSIVE = re.compile(r"(|.*?/)/*\*\*(?:/+(.*))?", re.DOTALL)
"""Splits a pattern at its first `**` into the parts before and after it."""
_Seen = set[tuple[int, int]]
"""Folders, by device and inode."""


def folder_entries(root: str, left_out: LeftOut | None = None) -> Iterator[Entry]:
    """Yield the image files of a folder, then those of its sub-folders; an unreadable folder has an error.

    `left_out` counts all other files, and the names that are passed over.
    """
    left_out = left_out or LeftOut()
    for folder, files in _folders(root, set(), left_out):
        if isinstance(files, OSError):
            yield Entry(folder, unreadable_folder(files))
            continue
        for path in (os.path.join(folder, name) for name in sorted(files)):
            if is_image_file(path):
                yield Entry(path)
            else:
                left_out.add_no_image(path)


def walked_folders(root: str, left_out: LeftOut) -> Iterator[tuple[str, list[str] | OSError]]:
    """Yield a folder and its sub-folders with the names of their files or the error; links are followed.

    A folder may be found in several places by links, but not within itself. Without names that are passed over, which
    `left_out` counts.
    """
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            status = os.stat(folder or os.curdir)  # noqa: PTH116 - as in _is_new
            files, folders = _content(folder)
        except OSError as error:
            yield folder, error
            continue
        own = (status.st_dev, status.st_ino)
        if own in above:  # a link to a folder that it is in
            left_out.passed_over[os.path.basename(folder)] += 1
            continue
        yield folder, _kept(files, left_out)
        inner = sorted(_kept(folders, left_out), reverse=True)
        waiting += ((os.path.join(folder, name), above | {own}) for name in inner)


def _kept(names: list[str], left_out: LeftOut) -> list[str]:
    """The names that are not passed over; `left_out` counts the others."""
    left_out.passed_over.update(name for name in names if is_passed_over(name))
    return [name for name in names if not is_passed_over(name)]


def unreadable_folder(error: OSError) -> str:
    """Why the content of a folder cannot be listed."""
    return f"the folder cannot be read: {error.strerror or error}"


def glob_matches(pattern: str) -> Iterator[str]:
    """Yield what glob.glob finds, unsorted, but each `**` searches a folder only once."""
    yield from _matches(pattern, "", defaultdict(set))


def _matches(pattern: str, root: str, seen: defaultdict[str, _Seen]) -> Iterator[str]:
    """Yield the matches below `root`. `seen`: the folders that each `**` has searched, by the pattern after it."""
    parts = RECURSIVE.fullmatch(pattern)
    if parts is None:
        yield from (os.path.join(root, name) for name in glob.iglob(pattern, root_dir=root, recursive=True))
        return
    head, tail = parts[1], "*" if parts[2] is None else parts[2]
    for start in sorted(_matches(head, root, seen)) if head else [root]:
        for folder, _ in _folders(start, seen[tail], LeftOut()):
            yield from _matches(tail, folder, seen)


def _folders(root: str, seen: _Seen, left_out: LeftOut) -> Iterator[tuple[str, list[str] | OSError]]:
    """Yield the folder and its sub-folders that are not in `seen`, with the names of their files or the error.

    Without names that are passed over.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            if not _is_new(folder, seen):
                continue
            files, folders = _content(folder)
        except OSError as error:
            yield folder, error
            continue
        yield folder, _kept(files, left_out)
        shown = sorted(_kept(folders, left_out), reverse=True)
        waiting += (os.path.join(folder, name) for name in shown)


def _is_new(folder: str, seen: _Seen) -> bool:
    """Whether the folder is not in `seen`; adds it. Raises OSError."""
    status = os.stat(folder or os.curdir)  # noqa: PTH116 - strings, because Path is slow and changes names
    number = (status.st_dev, status.st_ino)
    if number in seen:
        return False
    seen.add(number)
    return True


def _content(folder: str) -> tuple[list[str], list[str]]:
    """Names of the files and of the sub-folders of a folder. Raises OSError."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder or os.curdir) as items:
        for item in items:
            (folders if _is_folder(item) else files).append(item.name)
    return files, folders


def _is_folder(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link to itself
        return False
