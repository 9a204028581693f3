"""Images in arrays: .npy and .npz, idx (plain or gzip), CIFAR binary files. Files are read in blocks, never whole.

An array is uint8 with one of these shapes: N x H x W x C with C 1, 3 or 4; N x C x H x W with C 1 or 3; N x H x W. A
.npy file may also hold one image, H x W or H x W x C. Arrays of other types or with fewer dimensions in a .npz, such as
labels, are skipped; an unreadable array does not affect the others.
"""

import gzip
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...core.data.official import CIFAR10_ROW_BYTES
from ...core.data.options import MAX_PIXELS
from ...core.data.sources.entry import Entry
from ...core.text import one_line

BLOCK_BYTES = 1 << 20
"""Size of a block, unless one image is larger."""
CIFAR100_ROW_BYTES = 1 + CIFAR10_ROW_BYTES
MAX_RATIO = 200
"""Largest ratio of content to compressed size."""
SMALL_BYTES = 1 << 28
"""Content up to this size may have any ratio."""

Bytes = NDArray[np.uint8]
Convert = Callable[[Bytes], Bytes]
"""Converts K rows of a file, K x bytes, to images K x H x W or K x H x W x C."""


class _Refused(Exception):
    """Why a file is not read, or not read to its end."""


def array_entries(path: str) -> Iterator[Entry]:
    """Yield the images of the file in order; a problem of the file becomes an entry with the reason as its error."""
    suffix = os.path.splitext(path)[1].lower()
    read = {".npy": _npy, ".npz": _npz, ".bin": _cifar}.get(suffix, _idx)
    return _with_reason(read(path), path)


def _with_reason(images: Iterator[Entry], name: str) -> Iterator[Entry]:
    """Yield the images and, if reading ends early, an entry with the reason."""
    try:
        yield from images
    except OSError as error:
        yield Entry(name, f"cannot be read: {error.strerror or error}")
    # NumPy, zipfile and gzip raise many kinds of errors on damaged files, and none may stop the other sources.
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        yield Entry(name, reason if isinstance(error, _Refused) else f"damaged: {reason}")


def _npy(path: str) -> Iterator[Entry]:
    with open(path, "rb") as file:  # noqa: PTH123 - strings, as in listing
        shape, dtype, fortran = _npy_header(file)
        if dtype != np.uint8:
            raise _Refused(f"an array of {dtype}, expected uint8")
        if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)):
            shape = (1, *shape)
        yield from _images(file, shape, path, fortran=fortran)


def _npz(path: str) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = f"{path}!/{member.filename.removesuffix('.npy')}"
            yield from _with_reason(_npz_member(archive, member, name), name)


def _npz_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Iterator[Entry]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Refused(f"refused: compression method {member.compress_type}")
    if member.file_size > max(SMALL_BYTES, MAX_RATIO * member.compress_size):
        size = f"{member.compress_size:,} bytes become {member.file_size:,}"
        raise _Refused(f"refused: a compression bomb: {size}")
    if member.filename.endswith(".npy"):
        with archive.open(member) as file:
            shape, dtype, fortran = _npy_header(file)
            if dtype == np.uint8 and len(shape) in (3, 4):
                yield from _images(file, shape, name, fortran=fortran)


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type, and whether the order is Fortran's. This runs and unpickles nothing from the file."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, dtype, fortran


def _idx(path: str) -> Iterator[Entry]:
    with open(path, "rb") as raw:  # noqa: PTH123
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
        start = file.read(4)
        if len(start) < 4 or start[:3] != b"\0\0\x08":
            raise _Refused("not an idx file of unsigned bytes")
        sizes = file.read(4 * start[3])
        if len(sizes) < 4 * start[3]:
            raise _Refused("truncated in its header")
        shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
        if len(shape) < 3:
            raise _Refused(f"an idx file of shape {shape}: labels, not images")
        limit = max(SMALL_BYTES, MAX_RATIO * Path(path).stat().st_size)
        if packed and math.prod(shape) > limit:
            raise _Refused(f"refused: a compression bomb: its header says {shape}")
        yield from _images(file, shape, path)


def _cifar(path: str) -> Iterator[Entry]:
    size = Path(path).stat().st_size
    row = next((row for row in (CIFAR10_ROW_BYTES, CIFAR100_ROW_BYTES) if size and size % row == 0), None)
    if row is None:
        raise _Refused(
            f"{size:,} bytes are not rows of {CIFAR10_ROW_BYTES:,} or {CIFAR100_ROW_BYTES:,}: "
            "truncated, or not a CIFAR binary file"
        )

    def convert(rows: Bytes) -> Bytes:
        return rows[:, -3072:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    with open(path, "rb") as file:  # noqa: PTH123
        yield from _rows(file, row, size // row, convert, path)


def _images(file: IO[bytes], shape: tuple[int, ...], name: str, *, fortran: bool = False) -> Iterator[Entry]:
    """Yield the images of an array whose bytes follow in `file`. Raises _Refused for an unsupported shape or order."""
    if fortran:  # every image is spread over the whole file
        raise _Refused("an array in Fortran order; save np.ascontiguousarray(array) instead")
    count, *image = shape
    channels_last = len(image) == 3 and image[2] in (1, 3, 4)
    channels_first = len(image) == 3 and not channels_last and image[0] in (1, 3)
    if 0 in shape or not (len(image) == 2 or channels_last or channels_first):
        raise _Refused(f"an array of shape {shape}, expected N x H x W x C, N x C x H x W or N x H x W")
    if math.prod(image) > 4 * MAX_PIXELS:
        raise _Refused(f"an array of shape {shape}: at most {MAX_PIXELS:,} pixels per image are read")

    def convert(rows: Bytes) -> Bytes:
        images = rows.reshape(-1, *image)
        return images.transpose(0, 2, 3, 1) if channels_first else images

    yield from _rows(file, math.prod(image), count, convert, name)


def _rows(file: IO[bytes], row_bytes: int, count: int, convert: Convert, name: str) -> Iterator[Entry]:
    """Yield `count` images of `row_bytes` each, read in blocks. Raises _Refused if the file ends before."""
    block_rows = max(BLOCK_BYTES // row_bytes, 1)
    done = 0
    while done < count:
        wanted = min(block_rows, count - done)
        content = file.read(wanted * row_bytes)
        complete = len(content) // row_bytes
        if complete:
            rows = np.frombuffer(content, np.uint8, complete * row_bytes).reshape(complete, -1)
            for number, image in enumerate(convert(rows), done):
                yield Entry(f"{name}[{number}]", content=image)
        done += complete
        if complete < wanted:
            raise _Refused(f"truncated: {count:,} images expected, {done:,} found")
