"""One rule for folders, archives and data sets: which names are passed over, and which files are images.

Passed over are names that begin with a dot, and the folders and files that systems and programs leave beside images.
A file is an image if its suffix is that of an image format, or else if it begins like an image file.
"""

import os
import re
from collections import Counter
from collections.abc import Callable
from functools import cache

from ..text import first_few

IMAGE_SUFFIXES = frozenset(
    {
        ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm",
        ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
PASSED_OVER = re.compile(
    r"\..*|__MACOSX|Thumbs\.db|desktop\.ini|@eaDir|lost\+found|\$RECYCLE\.BIN|System Volume Information",
    re.IGNORECASE | re.DOTALL,
)
"""Names that are never data. Those that begin with a dot include `._*`, `.Trash*` and `.ipynb_checkpoints`."""
ARCHIVE = re.compile(r".*\.(zip|tar|tar\.(gz|bz2|xz)|tgz|tbz2|txz)", re.IGNORECASE | re.DOTALL)
"""Names of archives."""
TEXT_SUFFIXES = frozenset({".cls", ".csv", ".html", ".json", ".log", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml"})
"""Files that are texts, however they begin: a label may be "BMW"."""
SNIFFED_BYTES = 32
SNIFFED_FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
"""Formats of Pillow that their first bytes show. Those of PPM are also those of many texts."""
BMP_START = re.compile(rb"BM....\0\0\0\0", re.DOTALL)
"""Four bytes of a BMP file are reserved, and zero; a text may begin with BM as well."""
HEIF_START = re.compile(rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)
SHOWN_NAMES = 3


def dataset_name(path: str) -> str:
    """What a folder or archive of images is called: its own name, without the suffix of an archive."""
    name = os.path.basename(os.path.realpath(path))
    match = ARCHIVE.fullmatch(name)
    return name[: -len(match[1]) - 1] if match and not os.path.isdir(path) else name


def is_passed_over(name: str) -> bool:
    """Whether a file or folder of this name, without its path, is never data."""
    return bool(PASSED_OVER.fullmatch(name)) and name not in (os.curdir, os.pardir)


def passed_over_part(path: str) -> str:
    """The first part of a path within a folder or archive that is passed over; empty if the path may be data."""
    return next((part for part in path.split("/") if part and is_passed_over(part)), "")


def named_as_image(path: str) -> bool:
    """Whether the suffix is that of an image format."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def named_as_text(path: str) -> bool:
    """Whether the suffix is that of a text."""
    return os.path.splitext(path)[1].lower() in TEXT_SUFFIXES


def begins_as_image(start: bytes) -> bool:
    """Whether a file that begins with these bytes is an image; `start`: SNIFFED_BYTES, or the whole shorter file."""
    if start.startswith(b"BM") and not BMP_START.match(start):
        return False
    return len(start) > 2 and (is_heif(start) or any(accept(start) for accept in _accepts()))


def is_heif(start: bytes) -> bool:
    """Whether a file that begins with these bytes is in the HEIF format, as phones write it (.heic)."""
    return bool(HEIF_START.match(start))


def is_image_file(path: str) -> bool:
    """Whether a file is an image, by its suffix or else by its first bytes. A file that cannot be read is none."""
    if named_as_image(path):
        return True
    try:
        if named_as_text(path) or not os.path.isfile(path):  # noqa: PTH113 - reading a pipe could block
            return False
        with open(path, "rb") as file:  # noqa: PTH123 - strings, because Path is slow and changes names
            return begins_as_image(file.read(SNIFFED_BYTES))
    except OSError:
        return False


class LeftOut:
    """Counts what a search did not take, for one line that says so."""

    def __init__(self) -> None:
        self.passed_over: Counter[str] = Counter()
        """Names that are never data."""
        self.no_images: list[str] = []
        """The first files that are no images."""
        self.no_image_count = 0
        self.archives: list[str] = []
        """Archives beside other data, which are not read."""

    def add_no_image(self, path: str) -> None:
        """Count a file that is no image."""
        self.no_image_count += 1
        if len(self.no_images) < SHOWN_NAMES:
            self.no_images.append(path)

    def add_archive(self, path: str) -> None:
        """Count an archive that is not read, because it is beside other data."""
        self.archives.append(path)

    def to_text(self) -> str:
        """What was left out, in words; empty if nothing was."""
        parts = []
        if self.passed_over:
            parts.append(f"{self.passed_over.total():,} passed over ({first_few(sorted(self.passed_over))})")
        if self.no_image_count:
            names = ", ".join(self.no_images) + (", ..." * (self.no_image_count > len(self.no_images)))
            kind = "file that is no image" if self.no_image_count == 1 else "files that are no images"
            parts.append(f"{self.no_image_count:,} {kind} ({names})")
        if self.archives:
            names = first_few(self.archives)
            parts.append(f"archives beside other data, which are not read: {names}; unpack them")
        return "; ".join(parts)


@cache
def _accepts() -> tuple[Callable[[bytes], object], ...]:
    """Pillow's own tests of a file's first bytes."""
    from PIL import Image  # slow to import, and rarely needed

    Image.init()
    tests = (Image.OPEN[name][1] for name in SNIFFED_FORMATS if name in Image.OPEN)
    return tuple(test for test in tests if test is not None)
