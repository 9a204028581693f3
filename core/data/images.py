"""From a file or array to H x W x C uint8 of the model's size: the only preprocessing on the host, for every room.

The steps: decode the first frame; rotate as EXIF says; put transparency onto black, keep the upper 8 bits of 16-bit
samples, multiply floats of 0 to 1 by 255; convert to RGB or grey; scale the shorter side to the model's size with an
antialiased bilinear filter; crop the centre. "letterbox" scales the longer side instead and adds black bars, so nothing
is cut off. The pixels of an image that already has the model's size and mode do not change.
"""

import contextlib
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..card import Input
from ..errors import ImageError
from ..text import one_line
from .libtiff import silence_libtiff

IMAGE_SUFFIXES = frozenset(
    {
        ".bmp",
        ".dib",
        ".gif",
        ".jpeg",
        ".jpg",
        ".jp2",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
        ".ico",
        ".avif",
    }
)
MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded; 64 million pixels decode to 256 MB at most."""
MAX_ASPECT = 200
"""Largest ratio of the sides; a larger one would make the scaled image too large."""
INTERMEDIATE_MODE = {"LAB": "RGB", "La": "LA"}
"""Modes that Pillow converts to one other mode only."""

Source = Path | str | bytes | BinaryIO
Fit = Literal["crop", "letterbox"]


def model_image(
    source: Source | NDArray[np.uint8], size: Input, *, name: str = "", fit: Fit = "crop"
) -> NDArray[np.uint8]:
    """Return the image as the model needs it: uint8, size.height x size.width x size.channels.

    `source`: a path, the file's bytes, an open file, or an array H x W or H x W x 1, 3 or 4. `name`: the name of the
    image in errors. Raises ImageError.
    """
    if isinstance(source, np.ndarray):
        return _fitted(_from_array(source, name or "array"), size, fit)
    with _decoded(source, name or _name(source)) as image:
        return _fitted(image, size, fit)


def native_image(source: Source, *, name: str = "") -> NDArray[np.uint8]:
    """Return the image in its own size, H x W x 1 if it is grey, else H x W x 3. Raises ImageError."""
    with _decoded(source, name or _name(source)) as image:
        grey = image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")
        channels = 1 if grey else 3
        return _array(_converted(image, channels), channels)


class _NoWarnings:
    """Turns warnings off while any thread is inside: the first thread turns them off, the last one on again.

    Pillow also warns through `logging`, which prints what has no handler; that stays off.

    With warnings.catch_warnings in each thread, the threads would restore each other's filters and leave warnings off.
    """

    def __init__(self) -> None:
        self._lock, self._threads = threading.Lock(), 0
        logging.getLogger("PIL").addHandler(logging.NullHandler())

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._threads += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._filters.__exit__(None, None, None)


_NO_WARNINGS = _NoWarnings()


def no_file_reason(path: Path | str) -> str:
    """Return the reason why a path is not a readable file, after os.path.isfile returned False."""
    try:
        os.stat(path)  # noqa: PTH116 - as in _decoded
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return "no such file"
    except OSError as error:  # a link to a name that is too long, or a folder without permission
        return f"cannot be read: {error.strerror}"
    return "not a regular file"


def _is_empty(path: Path | str) -> bool:
    try:
        return os.path.getsize(path) == 0  # noqa: PTH202
    except OSError:  # the file was removed in the meantime
        return False


@contextlib.contextmanager
def _decoded(source: Source, name: str) -> Iterator[Image.Image]:
    """Yield the decoded, rotated image of a checked size; every error, in the block too, becomes an ImageError."""
    if isinstance(source, str | Path) and not os.path.isfile(source):  # noqa: PTH113 - three times faster than Path
        raise ImageError(f"{name}: {no_file_reason(source)}")
    try:
        with (
            _NO_WARNINGS,  # Pillow warns about unusual metadata and about sizes that are checked below
            Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image,
        ):
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(f"{name}: {width} x {height} pixels; at most {MAX_PIXELS:,} are read")
            if max(width, height) > MAX_ASPECT * min(width, height):
                raise ImageError(
                    f"{name}: {width} x {height} pixels: too long and thin; "
                    f"one side may be at most {MAX_ASPECT} times the other"
                )
            if image.format == "TIFF":
                silence_libtiff()
            image.load()
            if image.info or image.format == "TIFF":  # other formats keep EXIF and XMP in `info`
                with contextlib.suppress(Exception):  # damaged EXIF raises many kinds of errors: do not rotate
                    ImageOps.exif_transpose(image, in_place=True)
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        empty = _is_empty(source) if isinstance(source, str | Path) else source == b""
        raise ImageError(f"{name}: {'empty file' if empty else 'not an image that Pillow reads'}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large; at most {MAX_PIXELS:,} pixels are read") from error
    except OSError as error:
        found = f"cannot be read: {error.strerror}" if error.errno else f"damaged image: {one_line(error)}"
        raise ImageError(f"{name}: {found}") from error
    # Pillow's decoders raise many kinds of errors on damaged files, and a damaged file must not stop the others.
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        raise ImageError(f"{name}: damaged image: {reason}") from error


def encoded_image(pixels: NDArray[np.uint8], *, format_: str = "PNG", **options: Any) -> bytes:
    """Encode pixels, H x W or H x W x 1, 3 or 4, as the bytes of an image file. `options`: Pillow's for the format."""
    plain = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plain)).save(buffer, format_, **options)
    return buffer.getvalue()


def _fitted(image: Image.Image, size: Input, fit: Fit) -> NDArray[np.uint8]:
    target = (size.width, size.height)
    plain = _converted(image, size.channels)
    if plain.size != target:
        scale = ImageOps.fit if fit == "crop" else ImageOps.pad
        plain = scale(plain, target, method=Image.Resampling.BILINEAR)
    return _array(plain, size.channels)


def _converted(image: Image.Image, channels: int) -> Image.Image:
    """Convert an image of any mode of Pillow to RGB or L, transparency onto black."""
    mode = "RGB" if channels == 3 else "L"
    if image.mode in INTERMEDIATE_MODE:
        image = image.convert(INTERMEDIATE_MODE[image.mode])
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray(np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8))
    elif image.mode == "F":
        values = np.clip(np.nan_to_num(np.asarray(image)), 0, 255)
        image = Image.fromarray((values * 255 if values.max() <= 1 else values).astype(np.uint8))
    elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _array(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    pixels = np.array(image, np.uint8)
    return pixels if channels == 3 else pixels[..., None]


def _from_array(array: NDArray[np.uint8], name: str) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{name}: {array.dtype} {array.shape}; expected uint8 H x W or H x W x 1, 3 or 4")
    if 0 in array.shape:
        raise ImageError(f"{name}: {array.shape}: an empty image")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _name(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else "image"
