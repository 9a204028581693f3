"""All 16 bits of the samples of colour images, of which Pillow alone keeps the upper 8.

A raw mode says which byte of a sample Pillow's decoder keeps. An image is decoded twice, once for each byte.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PLANAR_CONFIGURATION, TiffImageFile

from .deep_pixels import pixels_from_deep

FIRST_BYTE, SECOND_BYTE = "16B", "16L"
NATIVE = "16N"
"""Pillow's name for the order of bytes of the processor, in files that libtiff decodes."""
FORMATS = ("PNG", "TIFF")
"""Their decoders take any raw mode."""
MODES = ("RGB;", "RGBA;", "RGBX;")
GREY_WITH_ALPHA = "LA;16B"
"""Of these, the four bytes of a pixel are read as a pixel of four channels."""
PLANES = "RGB"
"""Channels that Pillow can decode from a plane of 16 bits."""
TIFF_BIG_ENDIAN = b"MM"
SEPARATE = 2
"""TIFF's planar configuration of one plane for each channel."""
ALPHA = 3

RawModes = list[tuple[str, str]]
"""For each tile of an image, the raw modes that decode the upper and the lower bytes of its samples."""


def load_all_bits(image: Image.Image, open_again: Callable[[], Image.Image]) -> str:
    """Decode an image in place; return the guessed range of its colours if they have 16 bits, else "".

    `open_again`: opens the same file once more. Raises UnidentifiedImageError for planes that Pillow would give wrong
    samples of, and the errors of Pillow's decoders.
    """
    modes = _raw_modes(image)
    if modes is None:
        image.load()
        return ""
    upper, lower = _decode_bytes(image, [first for first, _ in modes]), None
    if all(second for _, second in modes):
        with open_again() as again:
            lower = _decode_bytes(again, [second for _, second in modes])
    pixels, guessed = _colours_from_deep(_samples_from_bytes(upper, lower))
    image.paste(Image.fromarray(pixels))
    return guessed


def _raw_modes(image: Image.Image) -> RawModes | None:
    """How to decode all bits of an image; None if its samples have 8 bits, or if Pillow gives all their bits."""
    if image.format not in FORMATS:
        return None
    byte_order = _order_of_planes(image) if isinstance(image, TiffImageFile) else ""
    found = [_byte_modes(_raw_mode(tile), image.mode, byte_order) for tile in getattr(image, "tile", ())]
    modes = [one for one in found if one is not None]
    return modes if modes and len(modes) == len(found) else None


def _decode_bytes(image: Image.Image, modes: Sequence[str]) -> NDArray[np.uint8]:
    """Decode the bytes that the raw modes of the tiles select: H x W x C."""
    assert isinstance(image, ImageFile.ImageFile)
    tiles = zip(image.tile, modes, strict=True)
    image.tile = [tile._replace(args=_arguments(tile.args, mode)) for tile, mode in tiles]
    image.load()
    return np.asarray(image)


def _samples_from_bytes(upper: NDArray[np.uint8], lower: NDArray[np.uint8] | None) -> NDArray[np.uint16]:
    """Put the samples of an image together, H x W x C. `lower` is None if `upper` holds grey and alpha, two bytes each.

    Grey becomes three equal channels.
    """
    if lower is not None:
        return _joined(upper, lower)
    grey, alpha = _joined(upper[..., 0], upper[..., 1]), _joined(upper[..., 2], upper[..., 3])
    return np.stack([grey, grey, grey, alpha], axis=2)


def _colours_from_deep(samples: NDArray[np.uint16]) -> tuple[NDArray[np.uint8], str]:
    """Map samples H x W x 3 or 4 to 0 to 255, alpha from a range of its own; also the guessed range of the colours."""
    colours, guessed = pixels_from_deep(samples[..., :ALPHA], bits=16)
    if samples.shape[2] == ALPHA:
        return colours, guessed
    return np.concatenate([colours, pixels_from_deep(samples[..., ALPHA:], bits=16)[0]], axis=2), guessed


def _joined(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return np.bitwise_or(upper.astype(np.uint16) << np.uint16(8), lower, dtype=np.uint16)


def _order_of_planes(image: TiffImageFile) -> str:
    """The order of bytes of samples of 16 bits that lie in one plane for each channel; "" if they do not.

    Pillow takes such planes for bytes, unless libtiff decodes them.
    """
    tags = image.tag_v2
    if tags.get(PLANAR_CONFIGURATION, 1) != SEPARATE or set(tags.get(BITSPERSAMPLE, ())) != {16}:
        return ""
    return FIRST_BYTE if tags.prefix == TIFF_BIG_ENDIAN else SECOND_BYTE


def _byte_modes(raw_mode: str, mode: str, order_of_planes: str) -> tuple[str, str] | None:
    """The raw modes of the upper and the lower bytes, for a tile that has this raw mode."""
    if raw_mode == GREY_WITH_ALPHA and mode == "RGBA":
        return "RGBA", ""
    prefix, order = raw_mode[: -len(NATIVE)], raw_mode[-len(NATIVE) :]
    if order_of_planes and len(raw_mode) == 1:
        if raw_mode not in PLANES:
            raise UnidentifiedImageError
        prefix, order = f"{raw_mode};", order_of_planes
    elif prefix not in MODES:
        return None
    if order == NATIVE:
        order = SECOND_BYTE if sys.byteorder == "little" else FIRST_BYTE
    if order == FIRST_BYTE:
        return prefix + FIRST_BYTE, prefix + SECOND_BYTE
    return (prefix + SECOND_BYTE, prefix + FIRST_BYTE) if order == SECOND_BYTE else None


def _raw_mode(tile: Sequence[Any]) -> str:
    arguments = tile[3]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _arguments(arguments: Any, raw_mode: str) -> Any:
    return (raw_mode, *arguments[1:]) if isinstance(arguments, tuple) else raw_mode
