"""Idx files, as MNIST has them (format: yann.lecun.com/exdb/mnist)."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, gzip or not (format: yann.lecun.com/exdb/mnist). Raises DataError."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it to download it again") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{path}: not an idx file of unsigned bytes")
    header_bytes = 4 + 4 * content[3]
    if len(content) < header_bytes or header_bytes == 4:
        raise DataError(f"{path}: its header of {header_bytes} bytes is truncated or has no dimensions")
    shape = tuple(int(size) for size in np.frombuffer(content[4:header_bytes], ">u4"))
    if len(content) != header_bytes + math.prod(shape) or 0 in shape:
        raise DataError(f"{path}: its header says {shape}, but {len(content) - header_bytes:,} bytes follow")
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape).copy()  # a copy is writable
