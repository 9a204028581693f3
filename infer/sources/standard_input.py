"""Paths on standard input: one per line or separated by NUL, in UTF-8, UTF-16 or UTF-32.

The encoding and the separator are found in the first block. PowerShell writes UTF-16 or UTF-8 with a mark in front
(BOM) into pipes and files; `find -print0` separates by NUL. Images and archives are refused, and so is the root folder:
nobody wants to search the whole disk because of a list that was made wrongly.
"""

import codecs
import itertools
import os
import re
from collections.abc import Iterator
from typing import BinaryIO

from ...core.errors import UsageError

BLOCK_BYTES = 1 << 16
MARKS = {  # the marks of UTF-32 first, because the mark of UTF-16 is a part of one of them
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    codecs.BOM_UTF8: "",
}
"""Encodings by the bytes at the beginning; empty means the encoding of file names, which keeps every byte."""
NOT_PATHS = {
    rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|BM.{4}\0{4}|\0\0\0\x0cjP|\0\0\0.ftyp": "an image",
    rb"PK\x03\x04|\x1f\x8b|BZh[1-9]1AY&SY|\xfd7zXZ\0|.{257}ustar": "an archive",
    rb"\x93NUMPY": "an array",
}
"""What a file is, by a pattern of its first bytes that no list of paths has."""


def paths_on(stdin: BinaryIO) -> Iterator[str]:
    """Yield the paths that are not empty. Raises UsageError if standard input holds no paths, or the root folder."""
    blocks = _blocks(stdin)
    first = next(blocks, b"")
    _check_is_text(first)
    mark = next((mark for mark in MARKS if first.startswith(mark)), b"")
    encoding = MARKS[mark] if mark else _unmarked_encoding(first)
    blocks = itertools.chain([first.removeprefix(mark)], blocks)
    for path in _separated(_as_utf8(blocks, encoding) if encoding else blocks):
        name = os.fsdecode(path)
        _check_not_root(name)
        yield name


def _blocks(stdin: BinaryIO) -> Iterator[bytes]:
    try:
        while block := stdin.read(BLOCK_BYTES):
            yield block
    except OSError as error:  # it is a folder, for example
        raise UsageError(
            f"-: standard input cannot be read: {error.strerror or error}; expected paths on it"
        ) from error


def _as_utf8(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return (decoder.decode(block).encode() for block in blocks)


def _separated(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what ends with NUL if NULs are at least as frequent as newlines, else the lines."""
    rest = next(blocks)
    by_nul = b"\0" in rest and rest.count(b"\0") >= rest.count(b"\n")
    separator, line_end = (b"\0", b"") if by_nul else (b"\n", b"\r")
    for block in blocks:
        *complete, rest = rest.split(separator)
        yield from filter(None, (path.removesuffix(line_end) for path in complete))
        rest += block
    yield from filter(None, (path.removesuffix(line_end) for path in rest.split(separator)))


def _unmarked_encoding(first: bytes) -> str:
    """The UTF-16 that has no mark; empty if this is another text.

    A list that is separated by NUL, read as UTF-16, has characters of East Asia where its letters are, and no newlines.
    """
    for encoding in ("utf-16-le", "utf-16-be"):
        text = first.decode(encoding, "replace")
        if "." in text and "\0" not in text and ("\n" in text or max(text) < "\u0100"):
            return encoding
    return ""


def _check_is_text(first: bytes) -> None:
    for pattern, kind in NOT_PATHS.items():
        if re.match(pattern, first, re.DOTALL):
            raise UsageError(
                f"-: standard input holds {kind}, expected paths; name the file instead: rtk classify FILE"
            )


def _check_not_root(name: str) -> None:
    if not os.path.splitdrive(name)[1].strip("./\\"):  # only these names can be the root; the rest is slower
        path = os.path.abspath(name)  # noqa: PTH100
        if os.path.dirname(path) == path:  # noqa: PTH120
            raise UsageError(
                f"-: standard input holds the root folder {name}, expected files and folders of images; "
                f"to search the whole disk: rtk classify {path}"
            )
