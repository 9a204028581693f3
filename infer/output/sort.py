"""Images sorted by their answers: copied or linked into a folder for each class."""

import filecmp
import hashlib
import os
import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ...core.data.images import encoded_image
from ...core.errors import OutputError, UsageError
from ...core.files import make_folder, whole_file
from ..classify import Answer
from ..sources.entry import Entry

NAME_BYTES = 200
"""Of a name, at most: its end, so that the suffix stays; file systems take 255, and something is put around it."""
NOT_IN_NAMES = re.compile(r'[/\\:*?"<>|]')


class Sorter:
    """Puts each answered image into DIR/<label>/; unreadable ones go nowhere.

    Sorting the same image again changes nothing. Two images of one name: the later one's gets eight digits of its
    whole path's SHA-256. Between question and answer the files of an archive are held in memory.
    """

    def __init__(self, folder: Path, classes: Iterable[str], *, link: bool = False) -> None:
        """`link`: make symbolic links instead of copies; what comes from archives and arrays is written in any case."""
        self.folder, self.link = folder, link
        self._names = folder_names(classes)
        self._asked: deque[Entry] = deque()

    def noted(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries, remembered until their answers come."""
        for entry in entries:
            self._asked.append(entry)
            yield entry

    def sorted(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """The answers to these entries, each after its image has been put into its folder. Raises OutputError."""
        for answer in answers:
            entry = self._asked.popleft()
            assert entry.name == answer.file
            if answer.guesses:
                self._put(entry, make_folder(self.folder / self._names[answer.guesses[0].index]))
            yield answer

    def _put(self, entry: Entry, folder: Path) -> None:
        content = encoded_image(entry.content) if isinstance(entry.content, np.ndarray) else entry.content
        target = folder / (plain_name(entry.name) + (".png" if isinstance(entry.content, np.ndarray) else ""))
        try:
            if os.path.lexists(target) and not self._is_there(target, entry.name, content):
                digits = hashlib.sha256(os.fsencode(os.path.realpath(entry.name))).hexdigest()[:8]
                target = target.with_name(f"{target.stem}-{digits}{target.suffix}")
            if self._is_there(target, entry.name, content):
                return
            if target.is_symlink():  # or what it leads to would be written over
                target.unlink()
            if content is not None:
                with whole_file(target) as file:
                    file.write(content)
            elif self.link:
                target.unlink(missing_ok=True)
                target.symlink_to(os.path.realpath(entry.name))
            else:
                with open(entry.name, "rb") as source, whole_file(target) as file:  # noqa: PTH123
                    shutil.copyfileobj(source, file)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error

    def _is_there(self, target: Path, name: str, content: bytes | None) -> bool:
        """Whether this very image is there already, in the way that was asked for."""
        if content is not None:
            return target.is_file() and target.stat().st_size == len(content) and target.read_bytes() == content
        if self.link or target.is_symlink():
            return target.is_symlink() and os.path.realpath(target) == os.path.realpath(name)
        return target.is_file() and filecmp.cmp(target, name, shallow=False)


def check_outside(folder: Path, sources: Iterable[str]) -> None:
    """Raises UsageError when `folder` lies in a source, where the images sorted into it would be found again."""
    target = os.path.realpath(folder)
    for source in sources:
        within = os.path.realpath(source)
        if os.path.isdir(source) and os.path.commonpath([target, within]) == within:
            raise UsageError(f"--sort-into {folder}: lies in {source}, which is classified; choose a folder elsewhere")


def folder_names(classes: Iterable[str]) -> list[str]:
    """A folder's name for each class: what no file system takes becomes _, and no two are the same."""
    names: list[str] = []
    for label in classes:
        name = plain_name(NOT_IN_NAMES.sub("_", label)) or "_"
        while name.casefold() in {other.casefold() for other in names}:
            name += "_"
        names.append(name)
    return names


def plain_name(path: str) -> str:
    """The last part of a path as a name that is one file's, neither hidden nor a way out."""
    name = "".join(c if c.isprintable() else "_" for c in path.rstrip("/\\").replace("\\", "/").rpartition("/")[2])
    name = NOT_IN_NAMES.sub("_", name).strip().encode()[-NAME_BYTES:].decode(errors="ignore")
    return "_" + name if name.startswith(".") or not name else name
