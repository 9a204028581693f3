"""Sort images by their predicted class: copy or link each into a folder for its class."""

import filecmp
import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...core.data.images import encoded_image
from ...core.data.sources.entry import Entry
from ...core.errors import DataError, OutputError, UsageError
from ...core.files import make_folder, whole_file
from ..classify import Answer

NAME_BYTES = 200
"""Longest file name: a longer one keeps its end, and so its suffix. File systems take 255 bytes, and digits and
temporary suffixes are added."""
FORBIDDEN_IN_NAMES = re.compile(r'[/\\:*?"<>|]')


class Sorter:
    """Puts each readable image into DIR/<label>/.

    Sorting the same image again changes nothing. If two images have the same name, the later one gets the first eight
    digits of the SHA-256 of its full path.
    """

    def __init__(self, folder: Path, classes: Iterable[str], *, link: bool = False) -> None:
        """`link`: make symbolic links instead of copies. Images from archives and arrays are always written."""
        self.folder, self.link = folder, link
        self._names = folder_names(classes)

    def put(self, answer: Answer) -> None:
        """Put the image of this answer into its folder. The answer must carry its entry.

        Raises OutputError, and DataError if the image can no longer be read.
        """
        assert answer.entry is not None
        if answer.predictions:
            self._put(answer.entry, make_folder(self.folder / self._names[answer.predictions[0].index]))

    def _put(self, entry: Entry, folder: Path) -> None:
        content, suffix = entry.content, ""
        if isinstance(content, np.ndarray):
            content, suffix = encoded_image(content), ".png"
        target = folder / (plain_name(entry.name) + suffix)
        try:
            if os.path.lexists(target) and not self._is_there(target, entry.name, content):
                digits = hashlib.sha256(os.fsencode(os.path.realpath(entry.name))).hexdigest()[:8]
                target = target.with_name(f"{target.stem}-{digits}{target.suffix}")
            if not self._is_there(target, entry.name, content):
                self._write(target, entry.name, content)
        except OSError as error:
            if error.filename == entry.name:
                raise _source_error(entry.name, error) from error
            raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error

    def _write(self, target: Path, name: str, content: bytes | None) -> None:
        if target.is_symlink():  # otherwise the file that it links to would be overwritten
            target.unlink()
        if content is not None:
            with whole_file(target) as file:
                file.write(content)
        elif self.link:
            target.unlink(missing_ok=True)
            target.symlink_to(os.path.realpath(name))
        else:
            try:
                with open(name, "rb") as source, whole_file(target) as file:  # noqa: PTH123
                    shutil.copyfileobj(source, file)
            except OSError as error:  # of reading: errors of writing are OutputErrors already
                raise _source_error(name, error) from error

    def _is_there(self, target: Path, name: str, content: bytes | None) -> bool:
        """Return whether the target already is this image, as a copy or link as requested."""
        if content is not None:
            return target.is_file() and target.stat().st_size == len(content) and target.read_bytes() == content
        if self.link or target.is_symlink():
            return target.is_symlink() and os.path.realpath(target) == os.path.realpath(name)
        return target.is_file() and filecmp.cmp(target, name, shallow=False)


def _source_error(name: str, error: OSError) -> DataError:
    return DataError(f"{name}: was classified, but can no longer be read, to copy it: {error.strerror or error}")


def check_outside(folder: Path, sources: Iterable[str]) -> None:
    """Raise UsageError if `folder` is inside a source: a later run would find the sorted images there again."""
    target = os.path.realpath(folder)
    for source in sources:
        root = os.path.realpath(source)
        if os.path.isdir(source) and os.path.commonpath([target, root]) == root:
            raise UsageError(f"--sort-into {folder}: is inside the source {source}; choose a folder elsewhere")


def folder_names(classes: Iterable[str]) -> list[str]:
    """A folder name for each class: characters that file systems forbid become _, and all names differ."""
    names: list[str] = []
    for label in classes:
        name = plain_name(FORBIDDEN_IN_NAMES.sub("_", label)) or "_"
        while name.casefold() in {other.casefold() for other in names}:
            name += "_"
        names.append(name)
    return names


def plain_name(path: str) -> str:
    """The last part of a path as a safe file name: not hidden, and without separators or `..`."""
    last = path.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    name = "".join(c if c.isprintable() else "_" for c in last)
    name = FORBIDDEN_IN_NAMES.sub("_", name).strip().encode()[-NAME_BYTES:].decode(errors="ignore")
    return "_" + name if name.startswith(".") or not name else name
