"""Which size and how many channels the images of a data set are read with, if no option and no card says so."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...card import Input
from ...errors import ImageError
from ..images import image_size
from .files import Files

LARGEST_COMMON_SIDE = 96
"""The common size of all images is kept up to this many pixels."""


@dataclass(frozen=True)
class Chosen:
    """The input of a model, and why."""

    input: Input
    reason: str
    """In words; empty if the size was requested."""


def choose_input(
    files: Files, names: list[str], *, side: int, max_pixels: int, requested: tuple[int, int] | None = None
) -> Chosen:
    """Choose the size: the requested one, else the common one of all images if it is small, else `side`.

    There is one channel if all images are grey, else three. Only the beginnings of files are read, and no more files
    than necessary.
    """
    common: tuple[int, int] | None = None
    same, colour, seen = True, False, 0
    for height, width, channels in _sizes(files, names, max_pixels):
        seen += 1
        common = common or (height, width)
        same = same and (height, width) == common and max(common) <= LARGEST_COMMON_SIDE
        colour = colour or channels == 3
        if colour and (requested or not same):
            break
    channels = 3 if colour or not seen else 1
    if requested:
        return Chosen(Input(*requested, channels), "")
    if same and common:
        return Chosen(Input(*common, channels), f"the size of all images, {common[0]} x {common[1]}, is kept")
    if not seen:
        return Chosen(Input(side, side, channels), "")
    reason = f"images are read at {side} x {side} pixels, because they are larger than {LARGEST_COMMON_SIDE} or differ"
    return Chosen(Input(side, side, channels), reason)


def _sizes(files: Files, names: list[str], max_pixels: int) -> Iterator[tuple[int, int, int]]:
    """Height, width and channels of each readable image."""
    for name, entry in files.entries(names):
        if entry.error:
            continue
        try:
            found = image_size(
                entry.name if entry.content is None else entry.content,  # type: ignore[arg-type] # bytes of a member
                name=name,
                max_pixels=max_pixels,
            )
        except ImageError:
            continue
        yield found.height, found.width, found.channels
