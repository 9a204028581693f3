"""Image files with 16 bits in each sample, which Pillow cannot write. Samples are H x W x C uint16."""

import struct
import zlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
RGB = 2
"""The photometric interpretation of TIFF."""
SHORT, LONG = 3, 4
DEFLATE, UNCOMPRESSED = 8, 1


def deep_png(samples: NDArray[np.uint16]) -> bytes:
    """A PNG of grey, grey with alpha, RGB or RGBA. Source: PNG specification, third edition, sections 5 and 11.2."""
    height, width, channels = samples.shape
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    unfiltered = np.zeros((height, 1), np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(np.hstack([unfiltered, rows]).tobytes()), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


def deep_tiff(
    samples: NDArray[np.uint16], *, order: Literal["<", ">"] = "<", deflate: bool = False, extra: int | None = None
) -> bytes:
    """A TIFF of one strip. Source: TIFF 6.0, sections 2, 6 and 18.

    `order`: of the bytes. `extra`: what the fourth channel is: 0 nothing, 2 alpha.
    """
    height, width, channels = samples.shape
    strip = samples.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if deflate else strip
    tags = 9 if extra is None else 10
    bits_at = 8 + 2 + 12 * tags + 4
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    entries = [
        (256, LONG, 1, width),
        (257, LONG, 1, height),
        (258, SHORT, channels, bits_at),
        (259, SHORT, 1, DEFLATE if deflate else UNCOMPRESSED),
        (262, SHORT, 1, RGB),
        (273, LONG, 1, bits_at + len(bits)),
        (277, SHORT, 1, channels),
        (278, LONG, 1, height),
        (279, LONG, 1, len(strip)),
        *([(338, SHORT, 1, extra)] if extra is not None else []),
    ]
    table = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (struct.pack(f"{order}HH", value, 0) if (kind, count) == (SHORT, 1) else struct.pack(f"{order}I", value))
        for tag, kind, count, value in entries
    )
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    return start + table + struct.pack(f"{order}I", 0) + bits + strip
