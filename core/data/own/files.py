"""The files of a data set by their names, whether they lie in a folder or in archives.

A name is relative to the folder or archive, with `/` between its parts. Of several archives, names begin with the
archive's: `train-000.tar!/cat/1.jpg`.
"""

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ...errors import DataError
from ..file_rules import SNIFFED_BYTES, LeftOut, begins_as_image, named_as_image
from ..sources.archives import archive_members
from ..sources.entry import Entry
from ..sources.folders import unreadable_folder, walked_folders

TEXT_SUFFIXES = (".cls", ".csv", ".json", ".tsv", ".txt")
"""Files that may hold labels."""
INSIDE = "!/"
"""Between the name of an archive and that of its member."""


class Files(Protocol):
    """The files of a data set, without those that are passed over."""

    root: Path
    names: list[str]
    """In the order in which they are read."""
    left_out: LeftOut
    folders: list[str]
    """The folders, empty ones too; an archive need not list any."""
    errors: list[tuple[str, str]]
    """Folders and members that cannot be read, each with the reason."""

    def entries(self, names: Collection[str]) -> Iterator[tuple[str, Entry]]:
        """Yield the files of these names, each once, in the order of `self.names`."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file with one of TEXT_SUFFIXES. Raises DataError."""
        ...

    def is_image(self, name: str) -> bool:
        """Whether a file is an image, by its suffix or else by its first bytes."""
        ...

    def stamp(self, name: str) -> tuple[int, int]:
        """The size of a file in bytes, and when it was changed, in nanoseconds; of a member, those of its archive."""
        ...

    def start_of(self, name: str, size: int) -> bytes:
        """The first bytes of a file; empty if it cannot be read, and of members of archives."""
        ...


@dataclass
class FolderFiles:
    """The files of a folder and its sub-folders. Links are followed."""

    root: Path
    left_out: LeftOut = field(default_factory=LeftOut)

    def __post_init__(self) -> None:
        self.names: list[str] = []
        self.errors: list[tuple[str, str]] = []
        self.folders: list[str] = []
        start = str(self.root)
        for folder, files in walked_folders(start, self.left_out):
            name = os.path.relpath(folder, start)
            if name != os.curdir:
                self.folders.append(name)
            if isinstance(files, OSError):
                self.errors.append((name, unreadable_folder(files)))
            else:
                self.names += (os.path.normpath(os.path.join(name, file)) for file in files)
        self.names.sort()

    def entries(self, names: Collection[str]) -> Iterator[tuple[str, Entry]]:
        """See Files."""
        start = str(self.root)
        wanted = set(names)
        yield from ((name, Entry(os.path.join(start, name))) for name in self.names if name in wanted)

    def read(self, name: str) -> bytes:
        """See Files."""
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.root / name}: cannot be read: {error.strerror or error}") from error

    def is_image(self, name: str) -> bool:
        """See Files."""
        if named_as_image(name):
            return True
        try:
            with (self.root / name).open("rb") as file:
                return begins_as_image(file.read(SNIFFED_BYTES))
        except OSError:
            return False

    def stamp(self, name: str) -> tuple[int, int]:
        """See Files."""
        try:
            status = (self.root / name).stat()
        except OSError:  # a link to nothing
            return 0, 0
        return status.st_size, status.st_mtime_ns

    def start_of(self, name: str, size: int) -> bytes:
        """See Files."""
        try:
            with (self.root / name).open("rb") as file:
                return file.read(size)
        except OSError:
            return b""


class ArchiveFiles:
    """The files in one archive, or in several; they are read from their beginning, and never unpacked to disk."""

    def __init__(self, archives: list[Path], root: Path) -> None:
        """Read the names and the texts; `root`: the archive itself, or the folder that holds all of them."""
        self.root, self._archives = root, archives
        self.folders: list[str] = []
        self.left_out = LeftOut()
        self.names: list[str] = []
        self.errors: list[tuple[str, str]] = []
        self._texts: dict[str, bytes] = {}
        self._images: set[str] = set()
        for archive in archives:
            for name, entry in self._members(archive, wanted=_not_named_as_image):
                if entry.error:
                    self.errors.append((name, entry.error))
                    continue
                self.names.append(name)
                if not isinstance(entry.content, bytes) or begins_as_image(entry.content[:SNIFFED_BYTES]):
                    self._images.add(name)
                elif name.lower().endswith(TEXT_SUFFIXES):
                    self._texts[name] = entry.content

    def _members(self, archive: Path, *, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Entry]]:
        prefix = "" if archive == self.root else f"{archive.name}{INSIDE}"
        for entry in archive_members(str(archive), self.left_out, wanted=wanted):
            _, inside, member = entry.name.partition(f"{archive}{INSIDE}")
            yield (f"{prefix}{member.removeprefix('./')}" if inside else archive.name), entry

    def entries(self, names: Collection[str]) -> Iterator[tuple[str, Entry]]:
        """See Files."""
        missing = set(names)
        for archive in self._archives:
            prefix = "" if archive == self.root else f"{archive.name}{INSIDE}"
            inside = {name.removeprefix(prefix) for name in missing if name.startswith(prefix)}
            if inside:
                for name, entry in self._members(archive, wanted=_one_of(inside)):
                    if name in missing:
                        missing.discard(name)
                        yield name, entry

    def read(self, name: str) -> bytes:
        """See Files."""
        return self._texts[name]

    def is_image(self, name: str) -> bool:
        """See Files."""
        return name in self._images

    def stamp(self, name: str) -> tuple[int, int]:
        """See Files."""
        archive = self.root if INSIDE not in name else self.root / name.partition(INSIDE)[0]
        status = archive.stat()
        return status.st_size, status.st_mtime_ns

    def start_of(self, name: str, size: int) -> bytes:
        """See Files: the archive's size and name stand for its content."""
        return b""


def _one_of(members: set[str]) -> Callable[[str], bool]:
    def wanted(member: str) -> bool:
        return member.removeprefix("./") in members

    return wanted


def _not_named_as_image(member: str) -> bool:
    return not named_as_image(member)
