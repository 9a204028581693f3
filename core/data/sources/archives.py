"""Images in zip and tar archives, including WebDataset shards, read without unpacking to disk.

Archives are untrusted. A member is refused, with its name in the message, if its name leads out of the archive, if it
is a link or otherwise not a plain file, or if its content is much larger than its compressed size. No single read takes
more memory than the largest allowed image file. Members that are no images are skipped, unless all members are wanted.
"""

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import IO

from ...text import one_line
from ..file_rules import SNIFFED_BYTES, LeftOut, begins_as_image, named_as_image, named_as_text, passed_over_part
from .entry import Entry

MAX_MEMBER_BYTES = 1 << 26
"""The largest image file that is read from an archive: 64 MiB."""
MAX_RATIO = 200
"""Largest ratio of content to compressed size; image files can hardly be compressed."""
SMALL_MEMBER_BYTES = 1 << 20
"""Members up to this size may have any ratio."""
SMALL_STREAM_BYTES = 1 << 28
"""A compressed tar may have any ratio until it has given this much content."""
SKIP_BYTES = 1 << 20
"""Block size for skipping content in a compressed tar."""
OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)


def _gzip(raw: IO[bytes]) -> IO[bytes]:
    return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]


DECOMPRESSORS: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    rb"\x1f\x8b": _gzip,
    rb"BZh[1-9]1AY&SY": bz2.BZ2File,
    rb"\xfd7zXZ\0": lzma.LZMAFile,
}
"""Decompressors for compressed tars, by a pattern of the first bytes. The patterns are long because a plain tar begins
with a file name, which could match a short one."""
MAGIC_BYTES = 10


class _Refused(Exception):
    """Why reading an archive ends early."""


def archive_entries(path: str, left_out: LeftOut | None = None) -> Iterator[Entry]:
    """Yield the images of a zip or tar, in the archive's order; refused ones have the reason as their error.

    Damage that ends the reading becomes an entry with the archive's own name. `left_out` counts the members that are no
    images, and the names that are passed over.
    """
    return _entries(path, left_out or LeftOut(), None)


def archive_members(path: str, left_out: LeftOut, *, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """Yield all files of a zip or tar as archive_entries does, images or not.

    `wanted`: whether the content of the member of this name is read; the entries of others have none.
    """
    return _entries(path, left_out, wanted)


def _entries(path: str, left_out: LeftOut, wanted: Callable[[str], bool] | None) -> Iterator[Entry]:
    """Yield the images if `wanted` is None, else all files."""
    read = _zip_entries if path.lower().endswith(".zip") else _tar_entries
    try:
        yield from read(path, left_out, wanted)
    except OSError as error:
        yield Entry(path, f"cannot be read: {error.strerror or error}")
    # zipfile and tarfile raise many kinds of errors on malicious archives, and none may stop the other sources.
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        yield Entry(path, str(error) if isinstance(error, _Refused) else f"damaged archive: {reason}")


def _is_passed_over(member: str, left_out: LeftOut) -> bool:
    """Whether a member is never data; counts it."""
    part = passed_over_part(member)
    if part:
        left_out.passed_over[part] += 1
    return bool(part)


def _zip_entries(path: str, left_out: LeftOut, wanted: Callable[[str], bool] | None) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = f"{path}!/{member.filename}"
            if reason := _zip_refusal(member):
                yield Entry(name, f"refused: {reason}")
            elif member.is_dir() or _is_passed_over(member.filename, left_out):
                continue
            elif wanted and not wanted(member.filename):
                yield Entry(name)
            elif not (wanted or named_as_image(member.filename) or _begins_as_image(archive, member)):
                left_out.add_no_image(name)
            elif reason := _zip_unreadable(member):
                yield Entry(name, f"refused: {reason}")
            else:
                yield _zip_entry(archive, member, name)


def _begins_as_image(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    if named_as_text(member.filename):
        return False
    try:
        with archive.open(member) as file:
            return begins_as_image(file.read(SNIFFED_BYTES))
    except Exception:  # as above; a member that cannot be read and is not named as an image is none
        return False


def _zip_entry(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Entry:
    try:
        with archive.open(member) as file:
            content = file.read(member.file_size)  # always with a size, to bound the memory
    except Exception as error:  # as above; a damaged member must not affect the others
        return Entry(name, f"damaged archive member: {one_line(error) or type(error).__name__}")
    if len(content) < member.file_size:
        return Entry(name, "damaged archive member: truncated")
    return Entry(name, content=content)


def _zip_refusal(member: zipfile.ZipInfo) -> str:
    """Why this member is refused; empty if it may be read."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if OUTSIDE.match(member.filename):
        return "its name leads out of the archive"
    if stat.S_ISLNK(kind):
        return "a link"
    if kind and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        return "not a plain file"
    return ""


def _zip_unreadable(member: zipfile.ZipInfo) -> str:
    """Why the content of this member is not read; empty if it may be."""
    if member.flag_bits & 1:
        return "encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compression method {member.compress_type}; stored and deflated members are read"
    if member.file_size > MAX_MEMBER_BYTES:
        return f"{member.file_size:,} bytes; at most {MAX_MEMBER_BYTES:,} are read"
    if member.file_size > max(SMALL_MEMBER_BYTES, MAX_RATIO * member.compress_size):
        return f"a compression bomb: {member.compress_size:,} bytes become {member.file_size:,}"
    return ""


def _tar_entries(path: str, left_out: LeftOut, wanted: Callable[[str], bool] | None) -> Iterator[Entry]:
    with open(path, "rb") as raw:  # noqa: PTH123 - strings, as in listing
        start = raw.read(MAGIC_BYTES)
        decompress = next((opened for magic, opened in DECOMPRESSORS.items() if re.match(magic, start)), None)
        raw.seek(0)
        file = _GuardedReader(raw, decompress(raw) if decompress else None)
        with tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                archive.members.clear()  # otherwise the list would grow with the archive
                name = f"{path}!/{member.name}"
                if member.size < 0:
                    raise _Refused(f"damaged archive: a member of {member.size:,} bytes")
                if reason := _tar_refusal(member):
                    yield Entry(name, f"refused: {reason}")
                elif not member.isreg() or _is_passed_over(member.name, left_out):
                    continue
                elif wanted and not wanted(member.name):
                    yield Entry(name)
                else:
                    content = archive.extractfile(member)
                    assert content is not None
                    sniffed = not (wanted or named_as_image(member.name))
                    try:
                        start = content.read(SNIFFED_BYTES) if sniffed else b""
                        if sniffed and (named_as_text(member.name) or not begins_as_image(start)):
                            left_out.add_no_image(name)
                        elif member.size > MAX_MEMBER_BYTES:
                            yield Entry(name, f"refused: {member.size:,} bytes; at most {MAX_MEMBER_BYTES:,} are read")
                        else:
                            yield Entry(name, content=start + content.read())
                    except (tarfile.TarError, EOFError) as error:
                        yield Entry(name, f"damaged archive: {error}")
                        return
        if file.last_read.strip(b"\0"):
            raise _Refused(f"damaged archive: no member starts at byte {file.tell() - len(file.last_read):,}")
        if not file.last_read:
            raise _Refused("truncated archive: it has no end mark")


def _tar_refusal(member: tarfile.TarInfo) -> str:
    """Why this member is refused; empty if it may be read."""
    if OUTSIDE.match(member.name):
        return "its name leads out of the archive"
    if member.issym() or member.islnk():
        return "a link"
    if member.isdir():
        return ""
    return "" if member.isreg() and not member.issparse() else "not a plain file"


class _GuardedReader:
    """The bytes of a tar, decompressed if necessary. Raises _Refused for large reads, bombs and backward seeks.

    Reading members in order only goes forward: a backward seek, from a header's negative size, would never end.
    Skipping in a compressed tar reads in blocks, so that the skipped bytes count towards the ratio.
    """

    def __init__(self, raw: IO[bytes], unpacked: IO[bytes] | None) -> None:
        self.raw, self.unpacked, self.position = raw, unpacked, 0
        self.last_read = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_MEMBER_BYTES:
            raise _Refused(f"refused: its header asks for {size:,} bytes at once")
        if self.unpacked is None:
            self.last_read = self.raw.read(size)
            return self.last_read
        self.last_read = self.unpacked.read(size)
        self.position += len(self.last_read)
        if self.position > max(SMALL_STREAM_BYTES, MAX_RATIO * self.raw.tell()):
            raise _Refused(f"refused: a compression bomb: {self.raw.tell():,} bytes became {self.position:,}")
        return self.last_read

    def tell(self) -> int:
        return self.raw.tell() if self.unpacked is None else self.position

    def seek(self, position: int) -> None:
        if position < self.tell():
            raise _Refused("damaged archive: a header points backwards")
        if self.unpacked is None:
            self.raw.seek(position)
            return
        while self.position < position and self.read(min(position - self.position, SKIP_BYTES)):
            pass
