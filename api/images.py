"""What a program has as images: paths, bytes, open files, pictures of Pillow, arrays and tensors, one or many.

Pillow and PyTorch are not imported here: an image of theirs can only be there if they are loaded.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, Union, get_args

import numpy as np
from numpy.typing import NDArray

from ..core.data.images import native_image
from ..core.data.sources.entry import Entry
from ..core.errors import ImageError, UnknownNameError, UsageError
from ..infer.sources.listing import entries

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

Layout = Literal["HWC", "CHW"]
"""The order of the axes of arrays and tensors: rows, columns, channels; or channels first, as in PyTorch."""
Image: TypeAlias = Union[
    str, os.PathLike[str], bytes, bytearray, memoryview, BinaryIO, NDArray[np.uint8], "Picture", "Tensor"
]
"""One image, or a folder, archive, glob, data set split or array with any number of them."""

CHANNELS = (1, 3, 4)
EXPECTED = "a path, bytes, an open file, an image of Pillow, an array or a tensor"


def image_entries(images: Image | Iterable[Image], *, layout: Layout, max_pixels: int) -> Iterator[Entry]:
    """Yield the images as entries, one by one. Raises UsageError for what cannot be an image."""
    if layout not in get_args(Layout):
        raise UnknownNameError("layout", layout, get_args(Layout))
    if not _is_single(images) and not isinstance(images, Iterable):
        raise UsageError(f"{type(images).__name__}: expected {EXPECTED}, or several of them")
    return _entries([images] if _is_single(images) else images, layout, max_pixels)  # type: ignore[arg-type]


def _entries(images: Iterable[Any], layout: Layout, max_pixels: int) -> Iterator[Entry]:
    for number, image in enumerate(images):
        name = f"image[{number}]"
        if isinstance(image, str | os.PathLike):
            yield from entries([_path(image)])
        elif isinstance(image, bytes | bytearray | memoryview):
            yield Entry(name, content=bytes(image))
        elif isinstance(image, np.ndarray):
            yield from _of_array(image, name, layout)
        elif _is_of(image, "torch", "Tensor"):
            yield from _of_array(image.detach().cpu().numpy(), name, layout)
        elif _is_of(image, "PIL.Image", "Image"):
            yield _of_picture(image, name, max_pixels)
        elif hasattr(image, "read"):
            yield _of_file(image, name)
        else:
            raise UsageError(f"{name}: {type(image).__name__}; expected {EXPECTED}")


def _is_single(images: Any) -> bool:
    """Whether this is one of EXPECTED: some of these can be iterated, but their parts are no images."""
    plain = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray)
    return plain or _is_of(images, "torch", "Tensor") or _is_of(images, "PIL.Image", "Image") or hasattr(images, "read")


def _is_of(image: Any, module: str, name: str) -> bool:
    """Whether it is of that type of a library, which is loaded then."""
    library = sys.modules.get(module)
    return library is not None and isinstance(image, getattr(library, name))


def _path(image: str | os.PathLike[str]) -> str:
    """The path as text; "-" is a file here, not standard input."""
    path = os.fspath(image)
    return str(Path(".", path)) if path == "-" else path


def _of_file(file: Any, name: str) -> Entry:
    """Read an open file. Raises UsageError if it does not give bytes."""
    try:
        content = file.read()
    except (OSError, ValueError) as error:  # ValueError: the file is closed
        return Entry(name, error=f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if not isinstance(content, bytes | bytearray | memoryview):
        raise UsageError(f"{name}: read() of {type(file).__name__} gives {type(content).__name__}; open it as 'rb'")
    return Entry(name, content=bytes(content))


def _of_picture(picture: "Picture", name: str, max_pixels: int) -> Entry:
    """The pixels of an image of Pillow, in its own size, rotated and converted as those of a file."""
    try:
        return Entry(name, content=native_image(picture, name=name, max_pixels=max_pixels))
    except ImageError as error:
        return Entry(name, error=str(error).removeprefix(f"{name}: "))


def _of_array(pixels: NDArray[Any], name: str, layout: Layout) -> Iterator[Entry]:
    """The images of an array. Raises UsageError for another type, and for axes that are not those of the layout."""
    if pixels.dtype != np.uint8:
        raise UsageError(f"{name}: {pixels.dtype} {pixels.shape}: expected uint8, 0 to 255; {_advice(pixels.dtype)}")
    if pixels.ndim == 2:
        yield Entry(name, content=pixels)
        return
    if pixels.ndim not in (3, 4):
        raise UsageError(f"{name}: uint8 {pixels.shape}: expected {_axes(layout)}")
    image = pixels.shape[-3:]
    here, there = (image[-1], image[0]) if layout == "HWC" else (image[0], image[-1])
    if here not in CHANNELS:
        other = "CHW" if layout == "HWC" else "HWC"
        looks = f' it looks like {other}: add layout="{other}"' if there in CHANNELS else _grey(pixels)
        raise UsageError(f"{name}: uint8 {pixels.shape}: expected {_axes(layout)};{looks}")
    if layout == "CHW":
        pixels = np.moveaxis(pixels, -3, -1)
    if pixels.ndim == 3:
        yield Entry(name, content=pixels)
    else:
        yield from (Entry(f"{name}[{n}]", content=pixels_HWC) for n, pixels_HWC in enumerate(pixels))


def _axes(layout: Layout) -> str:
    """The shapes of arrays in this layout, in words."""
    several = "N x H x W x C" if layout == "HWC" else "N x C x H x W"
    return f"H x W, {several.removeprefix('N x ')} or {several}, with C 1, 3 or 4"


def _grey(pixels: NDArray[Any]) -> str:
    if pixels.ndim == 3:
        return " for N grey images give a list of them"
    return " name 1, 3 or 4 channels"


def _advice(dtype: "np.dtype[Any]") -> str:
    """How to make pixels of another type uint8."""
    if dtype.kind == "f":
        return (
            "of pixels from 0 to 1, (255 * images).round().astype('uint8') makes that; the model normalises by itself, "
            "so do not normalise before"
        )
    if dtype.kind == "b":
        return "255 * images.astype('uint8') makes that"
    return "scale them to that range, then images.astype('uint8')"
