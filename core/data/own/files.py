"""The files of a data set by their names, whether they lie in a folder or in archives.

A name is relative to the folder or archive, with `/` between its parts. Of several archives, names begin with the
archive's: `train-000.tar!/cat/1.jpg`.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ...errors import DataError
from ..file_rules import SNIFFED_BYTES, LeftOut, begins_as_image, named_as_image, named_as_text
from ..sources.archives import archive_members
from ..sources.entry import Entry
from ..sources.folders import unreadable_folder, walked_folders

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
        """The content of a file that is named as a text. Raises DataError."""
        ...

    def is_image(self, name: str) -> bool:
        """Whether a file is an image, by its suffix or else by its first bytes."""
        ...

    def stamp(self, name: str) -> tuple[int, ...]:
        """The size of a file in bytes, and when it was changed, in nanoseconds; of a member, those of its archive."""
        ...

    def samples(self, name: str, size: int) -> bytes:
        """The first bytes of a file; empty if it cannot be read, and of members of archives."""
        ...

    def unwrap(self, prefix: str) -> None:
        """Remove these folders from the beginning of all names."""
        ...


@dataclass
class FolderFiles:
    """The files of a folder and its sub-folders. Links are followed, but not to a folder that they are in."""

    root: Path
    left_out: LeftOut = field(default_factory=LeftOut)

    def __post_init__(self) -> None:
        self.names: list[str] = []
        self.errors: list[tuple[str, str]] = []
        self.folders: list[str] = []
        self._base = str(self.root)
        self._images: dict[str, bool] = {}
        for folder, files in walked_folders(self._base, self.left_out):
            name = os.path.relpath(folder, self._base)
            if name != os.curdir:
                self.folders.append(name)
            if isinstance(files, OSError):
                self.errors.append((name, unreadable_folder(files)))
            else:
                self.names += (os.path.normpath(os.path.join(name, file)) for file in files)
        self.names.sort()

    def unwrap(self, prefix: str) -> None:
        """See Files."""
        self._base = os.path.join(self._base, prefix) if prefix else self._base
        inside = [name for name in self.names if name.startswith(prefix)]
        for name in set(self.names) - set(inside):
            self.left_out.add_no_image(name)
        self.names = [name[len(prefix) :] for name in inside]
        self.folders = [name[len(prefix) :] for name in self.folders if name.startswith(prefix)]

    def path_of(self, name: str) -> Path:
        """The path of a file."""
        return Path(os.path.join(self._base, name))

    def entries(self, names: Collection[str]) -> Iterator[tuple[str, Entry]]:
        """See Files."""
        wanted = set(names)
        yield from ((name, Entry(os.path.join(self._base, name))) for name in self.names if name in wanted)

    def read(self, name: str) -> bytes:
        """See Files."""
        try:
            return self.path_of(name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.path_of(name)}: cannot be read: {error.strerror or error}") from error

    def is_image(self, name: str) -> bool:
        """See Files."""
        if named_as_image(name):
            return True
        if name not in self._images:
            self._images[name] = not named_as_text(name) and begins_as_image(self.samples(name, SNIFFED_BYTES))
        return self._images[name]

    def stamp(self, name: str) -> tuple[int, ...]:
        """See Files."""
        try:
            return _stamp(self.path_of(name))
        except OSError:  # a link to nothing
            return 0, 0, 0

    def samples(self, name: str, size: int) -> bytes:
        """See Files."""
        try:
            with self.path_of(name).open("rb") as file:
                return file.read(size)
        except OSError:
            return b""


class ArchiveFiles:
    """The files in one archive, or in several; they are read from their beginning, and never unpacked to disk.

    Of several files with one name, the last counts, as when the archive is unpacked.
    """

    def __init__(self, archives: list[Path], root: Path) -> None:
        """Read the names and the texts; `root`: the archive itself, or the folder that holds all of them."""
        self.root, self.archives = root, archives
        self._by_name = {archive.name: archive for archive in archives}
        self.left_out = LeftOut()
        self.folders: list[str] = []
        self.errors: list[tuple[str, str]] = []
        self._prefix = ""
        self._texts: dict[str, bytes] = {}
        self._images: set[str] = set()
        self._times: Counter[str] = Counter()
        self._backslashes = False
        found: list[tuple[str, Entry]] = []
        for archive in archives:
            for name, entry in self._members(archive, wanted=_not_named_as_image):
                content = entry.content if isinstance(entry.content, bytes) else None
                if content is not None and not named_as_text(name):
                    entry = Entry(entry.name, entry.error, content=content[:SNIFFED_BYTES])
                found.append((name, entry))
        self._backslashes = any("\\" in name for name, _ in found) and not any(
            "/" in name.partition(INSIDE)[2] if INSIDE in name else "/" in name for name, _ in found
        )
        for name, entry in found:
            name = self._plain(name)
            if entry.error:
                self.errors.append((name, entry.error))
                continue
            self._times[name] += 1
            self._images.discard(name)
            if named_as_text(name):
                self._texts[name] = entry.content if isinstance(entry.content, bytes) else b""
            elif not isinstance(entry.content, bytes) or begins_as_image(entry.content):
                self._images.add(name)
        self.names = list(self._times)

    @property
    def repeated(self) -> list[str]:
        """Names that an archive holds more than once."""
        return [name for name, times in self._times.items() if times > 1]

    def is_archive(self, name: str) -> bool:
        """Whether this is the name of an archive, not of one of its members."""
        return name in self._by_name

    def unwrap(self, prefix: str) -> None:
        """See Files."""
        for name in self.names:
            if not name.startswith(prefix):
                self.left_out.add_no_image(name)
        self.names = [name[len(prefix) :] for name in self.names if name.startswith(prefix)]
        self._prefix = prefix

    def _plain(self, name: str) -> str:
        """A name with `/` between its parts, if the archive was made on a system that writes them otherwise."""
        return name.replace("\\", "/") if self._backslashes else name

    def _members(self, archive: Path, *, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Entry]]:
        prefix = "" if archive == self.root else f"{archive.name}{INSIDE}"
        for entry in archive_members(str(archive), self.left_out, wanted=wanted):
            _, inside, member = entry.name.partition(f"{archive}{INSIDE}")
            yield (f"{prefix}{member.removeprefix('./')}" if inside else archive.name), entry

    def entries(self, names: Collection[str]) -> Iterator[tuple[str, Entry]]:
        """See Files."""
        missing = {f"{self._prefix}{name}" for name in names}
        seen: Counter[str] = Counter()
        for archive in self.archives:
            prefix = "" if archive == self.root else f"{archive.name}{INSIDE}"
            inside = {name.removeprefix(prefix) for name in missing if name.startswith(prefix)}
            if not inside:
                continue
            for raw, entry in self._members(archive, wanted=self._one_of(inside)):
                name = self._plain(raw)
                seen[name] += 1
                if name in missing and seen[name] == self._times[name]:
                    yield name[len(self._prefix) :], entry

    def _one_of(self, members: set[str]) -> Callable[[str], bool]:
        def wanted(member: str) -> bool:
            return self._plain(member.removeprefix("./")) in members

        return wanted

    def read(self, name: str) -> bytes:
        """See Files."""
        return self._texts.get(f"{self._prefix}{name}", b"")

    def is_image(self, name: str) -> bool:
        """See Files."""
        return f"{self._prefix}{name}" in self._images

    def stamp(self, name: str) -> tuple[int, ...]:
        """See Files."""
        return _stamp(self._by_name.get(name.partition(INSIDE)[0], self.archives[0]))

    def samples(self, name: str, size: int) -> bytes:
        """See Files."""
        return b""


def _stamp(path: Path) -> tuple[int, ...]:
    """Size, time of change of the content, and time of any change: a copy that keeps the first has another second."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _not_named_as_image(member: str) -> bool:
    return not named_as_image(member)
