"""All 16 bits of the samples of colour images, of which Pillow alone keeps the upper 8.

A raw mode says which byte of a sample Pillow's decoder keeps. An image is decoded twice, once for each byte.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from .deep_pixels import pixels_from_deep

FIRST_BYTE, SECOND_BYTE = "16B", "16L"
NATIVE = "16N"
"""Pillow's name for the order of bytes of the processor, in files that libtiff decodes."""
FORMATS = ("PNG", "TIFF")
"""Their decoders take any raw mode."""
MODES = ("RGB;", "RGBA;", "RGBX;")
GREY_WITH_ALPHA = "LA;16B"
"""Of these, the four bytes of a pixel are read as a pixel of four channels."""
ALPHA = 3


def raw_modes(image: Image.Image) -> tuple[str, str] | None:
    """The raw modes that decode the upper and the lower bytes of an image that is not decoded yet.

    None if its samples have 8 bits, or if Pillow gives all their bits.
    """
    if image.format not in FORMATS:
        return None
    found = {_raw_mode(tile) for tile in getattr(image, "tile", ())}
    raw_mode = found.pop() if len(found) == 1 else ""
    if raw_mode == GREY_WITH_ALPHA and image.mode == "RGBA":
        return "RGBA", ""
    prefix, order = raw_mode[: -len(NATIVE)], raw_mode[-len(NATIVE) :]
    if prefix not in MODES:
        return None
    if order == NATIVE:
        order = SECOND_BYTE if sys.byteorder == "little" else FIRST_BYTE
    if order == FIRST_BYTE:
        return prefix + FIRST_BYTE, prefix + SECOND_BYTE
    return (prefix + SECOND_BYTE, prefix + FIRST_BYTE) if order == SECOND_BYTE else None


def decode_bytes(image: Image.Image, raw_mode: str) -> NDArray[np.uint8]:
    """Decode the bytes that a raw mode selects: H x W x C."""
    assert isinstance(image, ImageFile.ImageFile)
    image.tile = [tile._replace(args=_arguments(tile.args, raw_mode)) for tile in image.tile]
    image.load()
    return np.asarray(image)


def samples_from_bytes(upper: NDArray[np.uint8], lower: NDArray[np.uint8] | None) -> NDArray[np.uint16]:
    """Put the samples of an image together, H x W x C. `lower` is None if `upper` holds grey and alpha, two bytes each.

    Grey becomes three equal channels.
    """
    if lower is not None:
        return _joined(upper, lower)
    grey, alpha = _joined(upper[..., 0], upper[..., 1]), _joined(upper[..., 2], upper[..., 3])
    return np.stack([grey, grey, grey, alpha], axis=2)


def colours_from_deep(samples: NDArray[np.uint16]) -> tuple[NDArray[np.uint8], str]:
    """Map samples H x W x 3 or 4 to 0 to 255, alpha from a range of its own; also the guessed range of the colours."""
    colours, guessed = pixels_from_deep(samples[..., :ALPHA], bits=16)
    if samples.shape[2] == ALPHA:
        return colours, guessed
    return np.concatenate([colours, pixels_from_deep(samples[..., ALPHA:], bits=16)[0]], axis=2), guessed


def _joined(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return np.bitwise_or(upper.astype(np.uint16) << np.uint16(8), lower, dtype=np.uint16)


def _raw_mode(tile: Sequence[Any]) -> str:
    arguments = tile[3]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _arguments(arguments: Any, raw_mode: str) -> Any:
    return (raw_mode, *arguments[1:]) if isinstance(arguments, tuple) else raw_mode
