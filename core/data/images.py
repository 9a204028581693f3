"""From a file or array to H x W x C uint8 of the model's size: the only preprocessing on the host, for every room.

The steps: decode the first frame; rotate as EXIF says; put transparency onto black; bring samples of more than 8 bits
into 0 to 255 (see deep_pixels.py); convert to RGB or grey; scale the shorter side to the model's size with an
antialiased bilinear filter; crop the centre. "letterbox" scales the longer side instead and adds black bars, so nothing
is cut off; "stretch" scales both sides. The pixels of an image that already has the model's size and mode stay as they
are.
"""

import contextlib
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..card import Input
from ..errors import ImageError
from ..text import one_line
from .deep_colours import load_all_bits
from .deep_pixels import pixels_from_deep
from .file_rules import SNIFFED_BYTES, is_heif
from .libtiff import silent_libtiff
from .options import MAX_PIXELS, RESIZE_FILTER, Fit

MAX_ASPECT = 200
"""Largest ratio of the sides; a larger one would make the scaled image too large."""
INTERMEDIATE_MODE = {"LAB": "RGB", "La": "LA"}
"""Modes that Pillow converts to one other mode only."""

FILTER = Image.Resampling[RESIZE_FILTER.upper()]
"""Antialiased, as all of Pillow's filters are."""

FIRST_TURNED = 5
"""EXIF orientations from here on swap height and width."""

File = Path | str | bytes | BinaryIO
Source = File | Image.Image
"""An image of Pillow, as a program has it, is rotated and converted as a file is."""


@dataclass(frozen=True)
class Reading:
    """How image files become arrays of the model's size."""

    size: Input
    fit: Fit = "crop"
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class ImageSize:
    """What the beginning of an image file says."""

    height: int
    width: int
    channels: int
    """1 if it is grey, else 3."""


def model_image(
    source: Source | NDArray[np.uint8], size: Input, *, name: str = "", fit: Fit = "crop"
) -> NDArray[np.uint8]:
    """Return the image as the model needs it: uint8, size.height x size.width x size.channels.

    `source`: a path, the file's bytes, an open file, or an array H x W or H x W x 1, 3 or 4. `name`: the name of the
    image in errors. Raises ImageError.
    """
    return read_image(source, Reading(size, fit), name=name)[0]


def read_image(
    source: Source | NDArray[np.uint8], reading: Reading, *, name: str = ""
) -> tuple[NDArray[np.uint8], str]:
    """Return the image as the model needs it, and the range of its samples in words if that is a guess, else "".

    See model_image. Raises ImageError.
    """
    size, fit = reading.size, reading.fit
    if isinstance(source, np.ndarray):
        return _array(_fitted(_from_array(source, size, name or "array"), size, fit), size.channels), ""
    with _decoded(source, name or _name(source), reading.max_pixels) as (image, guessed_colours):
        plain, guessed = _converted(image, size.channels, name or _name(source))
        return _array(_fitted(plain, size, fit), size.channels), guessed or guessed_colours


def native_image(source: Source, *, name: str = "", max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the image in its own size, H x W x 1 if it is grey, else H x W x 3. Raises ImageError."""
    with _decoded(source, name or _name(source), max_pixels) as (image, _):
        channels = 1 if _is_grey(image) else 3
        return _array(_converted(image, channels, name or _name(source))[0], channels)


def image_size(source: Source, *, name: str = "", max_pixels: int = MAX_PIXELS) -> ImageSize:
    """Return the size of an image, as it is shown, and whether it has colours. Decodes no pixels. Raises ImageError."""
    with _opened(source, name or _name(source), max_pixels) as image:
        width, height = image.size
        with contextlib.suppress(Exception):  # damaged EXIF raises many kinds of errors: do not rotate
            if image.getexif().get(ExifTags.Base.Orientation, 1) >= FIRST_TURNED:
                width, height = height, width
        return ImageSize(height, width, 1 if _is_grey(image) else 3)


class _PillowSettings:
    """Settings of the process while any thread reads an image: the first thread sets them, the last one puts them back.

    Warnings are off, and what Pillow logs goes nowhere if nobody listens. libtiff is silent once a TIFF file is read.
    Pillow's own limit, twice MAX_IMAGE_PIXELS, is that of an attack: a larger limit of the user's must not meet it.

    With warnings.catch_warnings in each thread, the threads would restore each other's filters and leave warnings off.
    """

    def __init__(self) -> None:
        self._lock, self._threads = threading.Lock(), 0
        self._log, self._nowhere = logging.getLogger("PIL"), logging.NullHandler()
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._undo.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                self._log.addHandler(self._nowhere)
                self._undo.callback(self._log.removeHandler, self._nowhere)
                self._undo.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
                self._libtiff_speaks = True
            self._threads += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._undo.close()

    def allow(self, pixels: int) -> None:
        """Let Pillow read images of so many pixels. None, with which a program lets it read any, stays."""
        with self._lock:
            if Image.MAX_IMAGE_PIXELS is not None:
                Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, pixels)

    def silence_libtiff(self) -> None:
        """Keep libtiff from printing."""
        with self._lock:
            if self._libtiff_speaks:
                self._undo.enter_context(silent_libtiff())
                self._libtiff_speaks = False


_PILLOW = _PillowSettings()


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
def _decoded(source: Source, name: str, max_pixels: int) -> Iterator[tuple[Image.Image, str]]:
    """Yield the decoded, rotated image of a checked size, and the guessed range of colours of 16 bits.

    Every error, in the block too, becomes an ImageError.
    """
    with _opened(source, name, max_pixels) as image:
        if image.format == "TIFF":
            _PILLOW.silence_libtiff()
        guessed = ""
        if isinstance(source, Image.Image):
            image = image.copy()  # the caller's own stays as it is
        else:
            guessed = load_all_bits(image, lambda: _image_from(source, max_pixels))
        if image.info or image.format == "TIFF":  # other formats keep EXIF and XMP in `info`
            with contextlib.suppress(Exception):  # damaged EXIF raises many kinds of errors: do not rotate
                ImageOps.exif_transpose(image, in_place=True)
        yield image, guessed


@contextlib.contextmanager
def _opened(source: Source, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Yield the image of a checked size before it is decoded; every error, in the block too, becomes an ImageError."""
    if isinstance(source, str | Path) and not os.path.isfile(source):  # noqa: PTH113 - three times faster than Path
        raise ImageError(f"{name}: {no_file_reason(source)}")
    try:
        with (
            _PILLOW,  # it warns about unusual metadata and about sizes that are checked below
            contextlib.nullcontext(source)
            if isinstance(source, Image.Image)
            else _image_from(source, max_pixels) as image,
        ):
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(f"{name}: {width} x {height} pixels; at most {max_pixels:,} are read")
            if max(width, height) > MAX_ASPECT * min(width, height):
                raise ImageError(
                    f"{name}: {width} x {height} pixels: too long and thin; "
                    f"one side may be at most {MAX_ASPECT} times the other"
                )
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: {_unknown_reason(source)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large; at most {max_pixels:,} pixels are read") from error
    except OSError as error:
        found = f"cannot be read: {error.strerror}" if error.errno else f"damaged image: {one_line(error)}"
        raise ImageError(f"{name}: {found}") from error
    # Pillow's decoders raise many kinds of errors on damaged files, and a damaged file must not stop the others.
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        raise ImageError(f"{name}: damaged image: {reason}") from error


def _image_from(source: File, max_pixels: int) -> Image.Image:
    """Open an image. HEIC files are opened by pillow-heif, which is loaded for the first of them."""
    _PILLOW.allow(max_pixels)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        if not (is_heif(_start_of(source)) and find_spec("pillow_heif")):
            raise
        import pillow_heif

        if not isinstance(file, str | Path):
            file.seek(0)
        open_heif: Any = pillow_heif.HeifImageFile  # its types lack a part
        return cast(Image.Image, open_heif(file))  # Pillow itself does not learn the format


def _start_of(source: File) -> bytes:
    """The first bytes of a source; it is read from the beginning again afterwards."""
    if isinstance(source, bytes):
        return source[:SNIFFED_BYTES]
    if isinstance(source, str | Path):
        with open(source, "rb") as file:  # noqa: PTH123 - as in _decoded
            return file.read(SNIFFED_BYTES)
    source.seek(0)
    return source.read(SNIFFED_BYTES)


def _unknown_reason(source: Source) -> str:
    """Why Pillow does not know what a file is."""
    if isinstance(source, Image.Image):
        return "damaged image"
    if _is_empty(source) if isinstance(source, str | Path) else source == b"":
        return "empty file"
    with contextlib.suppress(OSError):
        if is_heif(_start_of(source)):
            return "a HEIC image; reading it needs the package pillow-heif: pip install pillow-heif"
    return "not an image that Pillow reads"


def encoded_image(pixels: NDArray[np.uint8], *, format_: str = "PNG", **options: Any) -> bytes:
    """Encode pixels, H x W or H x W x 1, 3 or 4, as the bytes of an image file. `options`: Pillow's for the format."""
    plain = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plain)).save(buffer, format_, **options)
    return buffer.getvalue()


def _fitted(plain: Image.Image, size: Input, fit: Fit) -> Image.Image:
    target = (size.width, size.height)
    if plain.size == target:
        return plain
    match fit:
        case "crop":
            return ImageOps.fit(plain, target, method=FILTER)
        case "letterbox":
            return ImageOps.pad(plain, target, method=FILTER)
        case "stretch":
            return plain.resize(target, FILTER)


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")


def _converted(image: Image.Image, channels: int, name: str) -> tuple[Image.Image, str]:
    """Convert an image of any mode of Pillow to RGB or L, transparency onto black; the second is a guessed range."""
    mode, guessed = "RGB" if channels == 3 else "L", ""
    if image.mode in INTERMEDIATE_MODE:
        image = image.convert(INTERMEDIATE_MODE[image.mode])
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        pixels, guessed = pixels_from_deep(np.asarray(image), bits=16 if image.mode.startswith("I;16") else 0)
        image = Image.fromarray(pixels)
    elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
    return image if image.mode == mode else image.convert(mode), guessed


def _array(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    pixels = np.array(image, np.uint8)
    return pixels if channels == 3 else pixels[..., None]


def _from_array(array: NDArray[np.uint8], size: Input, name: str) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{name}: {array.dtype} {array.shape}; expected uint8 H x W or H x W x 1, 3 or 4")
    if 0 in array.shape:
        raise ImageError(f"{name}: {array.shape}: an empty image")
    image = Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)
    return _converted(image, size.channels, name)[0]


def _name(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else "image"
