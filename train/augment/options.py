"""Augmentation: the random changes of training images, as values that `rtk train --augment NAME=VALUE` sets."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ...core.errors import UnknownNameError, UsageError

Flip = Literal["none", "random", "alternate"]
Fill = Literal["constant", "nearest", "reflect", "wrap"]

GEOMETRIC = ("shift", "rotation", "zoom", "shear")
"""The changes that together make one affine map."""
LARGEST = {
    "crop": 512, "shift": 512, "rotation": 180, "zoom": 0.99, "shear": 80, "channel_shift": 255, "brightness": 1,
    "erasing": 1, "cutout": 512, "mixup": 100,
}  # fmt: skip
LEAST_MIXUP = 0.05


def option_name(field: str) -> str:
    """The name of a field as users write it."""
    return field.replace("_", "-")


@dataclass(frozen=True)
class Augmentation:
    """The largest extent of each change, which is drawn uniformly for each image unless noted; 0 disables it.

    Lengths below 1 are shares of the image's side, others are pixels.
    """

    crop: float = 0.0
    """Border added on each side before a random crop: 4, or 0.125 of 32 pixels."""
    flip: Flip = "none"
    """alternate: flipped in every second epoch, so that two epochs show both sides (arXiv 2404.00498)."""
    shift: float = 0.0
    """Up or down and left or right, including fractions of pixels."""
    rotation: float = 0.0
    """Degrees in either direction."""
    zoom: float = 0.0
    """Separate factors for height and width, from 1 minus this to 1 plus this."""
    shear: float = 0.0
    """Degrees in either direction, as in Keras' `shear_range`."""
    channel_shift: float = 0.0
    """Added to all channels (0 to 255), clipped to the image's own extremes: Keras' `channel_shift_range`."""
    brightness: float = 0.0
    """Pixels times a factor from 1 minus this to 1 plus this."""
    erasing: float = 0.0
    """Probability that a random rectangle is replaced by noise (arXiv 1708.04896)."""
    cutout: float = 0.0
    """Side of a square of the mean colour, with its centre anywhere in the image (arXiv 1708.04552)."""
    mixup: float = 0.0
    """Alpha of the beta distribution of the share at which two images and labels are mixed (arXiv 1710.09412)."""
    fill: Fill = "constant"
    """Pixels outside the image: the mean colour, the nearest pixel, the image mirrored, or the image repeated."""

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if not 0 <= value <= largest or not math.isfinite(value):
                raise UsageError(f"--augment {option_name(name)}={value:g}: expected 0 to {largest:g}")
        if 0 < self.mixup < LEAST_MIXUP:  # for a smaller alpha, draws underflow in fp32
            raise UsageError(f"--augment mixup={self.mixup:g}: expected 0, or {LEAST_MIXUP:g} to {LARGEST['mixup']:g}")
        for name, known in (("flip", get_args(Flip)), ("fill", get_args(Fill))):
            if getattr(self, name) not in known:
                raise UnknownNameError(f"--augment {name}", getattr(self, name), known)

    @property
    def affine(self) -> bool:
        """Whether an affine map is needed, which samples between pixels."""
        return any(getattr(self, name) for name in GEOMETRIC)


NAMES = {option_name(field.name): field.name for field in dataclasses.fields(Augmentation)}
"""Option names as users write them, and the fields that they set."""


def augmentation_with(base: Augmentation, options: Sequence[str]) -> Augmentation:
    """`base` with options such as rotation=15 applied; a first option `none` disables everything in `base`.

    Raises UsageError for an option that is not NAME=VALUE, appears twice, or has no effect because of another.
    """
    if options and options[0] == "none":
        base, options = Augmentation(), options[1:]
    values: dict[str, Any] = {}
    for one in options:
        name, _, value = one.partition("=")
        if name == "none":
            raise UsageError("--augment none: expected first, because it removes the recipe's augmentation")
        if name not in NAMES:
            raise UnknownNameError("--augment", name, ("none", *NAMES))
        if NAMES[name] in values:
            raise UsageError(f"--augment {name}: given twice; expected once")
        values[NAMES[name]] = value if name in ("flip", "fill") else _number(name, value)
    augmentation = dataclasses.replace(base, **values)
    if "fill" in values and not (augmentation.crop or augmentation.affine):
        raise UsageError(
            f"--augment fill={augmentation.fill}: has no effect without pixels outside the image; add one of "
            f"crop, {', '.join(GEOMETRIC)}"
        )
    return augmentation


def pixels(length: float, side: int) -> float:
    """A length in pixels: below 1 it is a share of the side."""
    return length * side if length < 1 else length


def whole_pixels(length: float, side: int) -> int:
    """A length in whole pixels: at least one, unless it is 0."""
    return max(1, round(pixels(length, side))) if length else 0


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--augment {name}={text}: expected a number, such as {name}=0.1") from None
