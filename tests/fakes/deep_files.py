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
    samples: NDArray[np.uint16],
    *,
    order: Literal["<", ">"] = "<",
    deflate: bool = False,
    extra: int | None = None,
    planes: bool = False,
) -> bytes:
    """A TIFF of one strip, or of one for each channel. Source: TIFF 6.0, sections 2, 6, 8 and 18.

    `order`: of the bytes. `extra`: what the fourth channel is: 0 nothing, 2 alpha. `planes`: each channel by itself.
    """
    height, width, channels = samples.shape
    parts = [samples[..., index] for index in range(channels)] if planes else [samples]
    strips = [part.astype(f"{order}u2").tobytes() for part in parts]
    strips = [zlib.compress(strip) for strip in strips] if deflate else strips
    bits_at = 8 + 2 + 12 * (10 if extra is None else 11) + 4
    lengths_at = bits_at + 2 * channels
    starts_at = lengths_at + 4 * len(strips)
    lengths = [len(strip) for strip in strips]
    starts = [starts_at + 4 * len(strips) + sum(lengths[:index]) for index in range(len(strips))]
    arrays = struct.pack(f"{order}{channels}H", *[16] * channels)
    arrays += struct.pack(f"{order}{2 * len(strips)}I", *lengths, *starts)
    entries = [
        (256, LONG, 1, width),
        (257, LONG, 1, height),
        (258, SHORT, channels, bits_at),
        (259, SHORT, 1, DEFLATE if deflate else UNCOMPRESSED),
        (262, SHORT, 1, RGB),
        (273, LONG, len(strips), starts_at if planes else starts[0]),
        (277, SHORT, 1, channels),
        (278, LONG, 1, height),
        (279, LONG, len(strips), lengths_at if planes else lengths[0]),
        (284, SHORT, 1, 2 if planes else 1),
        *([(338, SHORT, 1, extra)] if extra is not None else []),
    ]
    table = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (struct.pack(f"{order}HH", value, 0) if (kind, count) == (SHORT, 1) else struct.pack(f"{order}I", value))
        for tag, kind, count, value in entries
    )
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    return start + table + struct.pack(f"{order}I", 0) + arrays + b"".join(strips)
