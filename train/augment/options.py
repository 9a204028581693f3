"""Augmentation: what happens to training images at random, as values; `rtk train --augment` calls them by name."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ...core.errors import UnknownNameError, UsageError

Flip = Literal["none", "random", "alternate"]
Fill = Literal["constant", "nearest", "reflect", "wrap"]

GEOMETRIC = ("shift", "rotation", "zoom", "shear")
"""Those that make one affine map together."""
LARGEST = {
    "crop": 512, "shift": 512, "rotation": 180, "zoom": 0.99, "shear": 80, "channel_shift": 255, "brightness": 1,
    "erasing": 1, "cutout": 512, "mixup": 100,
}  # fmt: skip
LEAST_MIXUP = 0.05


def spelled(field: str) -> str:
    """A field's name as users write it."""
    return field.replace("_", "-")


@dataclass(frozen=True)
class Augmentation:
    """Each value is how far a change goes at most, drawn evenly for every image unless said otherwise; 0 is none.

    Lengths below 1 are shares of the image's side, others pixels.
    """

    crop: float = 0.0
    """Border added on each side before a random crop: 4, or 0.125, of 32 pixels."""
    flip: Flip = "none"
    """alternate: mirrored in every other epoch, so that two epochs show both sides (arXiv 2404.00498)."""
    shift: float = 0.0
    """Up or down and left or right, by fractions of pixels too."""
    rotation: float = 0.0
    """Degrees either way."""
    zoom: float = 0.0
    """Height and width, each by a factor of its own, of 1 minus this to 1 plus this."""
    shear: float = 0.0
    """Degrees either way, as Keras means them: its `shear_range`."""
    channel_shift: float = 0.0
    """Of 255, added to all channels alike and kept within the image's own extremes: Keras' `channel_shift_range`."""
    brightness: float = 0.0
    """Pixels times a factor of 1 minus this to 1 plus this."""
    erasing: float = 0.0
    """Probability that a random rectangle is replaced by noise (arXiv 1708.04896)."""
    cutout: float = 0.0
    """Side of a square of the mean colour, its centre anywhere in the image (arXiv 1708.04552)."""
    mixup: float = 0.0
    """Alpha of the beta distribution that two images and their labels are mixed by (arXiv 1710.09412)."""
    fill: Fill = "constant"
    """What lies beyond the border: the mean colour, the nearest pixel, the image mirrored, or the image once more."""

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if not 0 <= value <= largest or not math.isfinite(value):
                raise UsageError(f"--augment {spelled(name)}={value:g}: expected 0 to {largest:g}")
        if 0 < self.mixup < LEAST_MIXUP:  # the draws of a smaller alpha are smaller than any number of fp32
            raise UsageError(f"--augment mixup={self.mixup:g}: expected 0, or {LEAST_MIXUP:g} to {LARGEST['mixup']:g}")
        for name, known in (("flip", get_args(Flip)), ("fill", get_args(Fill))):
            if getattr(self, name) not in known:
                raise UnknownNameError(f"--augment {name}", getattr(self, name), known)

    @property
    def moves(self) -> bool:
        """Whether images are sampled between their pixels."""
        return any(getattr(self, name) for name in GEOMETRIC)


NAMES = {spelled(field.name): field.name for field in dataclasses.fields(Augmentation)}
"""As users write them, and the fields that they set."""


def changed(base: Augmentation, wishes: Sequence[str]) -> Augmentation:
    """`base` with wishes such as rotation=15; a first wish `none` takes everything out of `base`.

    Raises UsageError for a wish that is not NAME=VALUE, that comes twice, or that another makes meaningless.
    """
    if wishes and wishes[0] == "none":
        base, wishes = Augmentation(), wishes[1:]
    values: dict[str, Any] = {}
    for wish in wishes:
        name, _, value = wish.partition("=")
        if name == "none":
            raise UsageError("--augment none: takes everything out that the recipe has, so it comes first")
        if name not in NAMES:
            raise UnknownNameError("--augment", name, ("none", *NAMES))
        if NAMES[name] in values:
            raise UsageError(f"--augment {name}: given twice; leave one of them out")
        values[NAMES[name]] = value if name in ("flip", "fill") else _number(name, value)
    augmentation = dataclasses.replace(base, **values)
    if "fill" in values and not (augmentation.crop or augmentation.moves):
        raise UsageError(
            f"--augment fill={augmentation.fill}: nothing shows what lies beyond the border; add one of "
            f"crop, {', '.join(GEOMETRIC)}"
        )
    return augmentation


def pixels(length: float, side: int) -> float:
    """A length in pixels: below 1 it is a share of the side."""
    return length * side if length < 1 else length


def whole_pixels(length: float, side: int) -> int:
    """The same, rounded, but at least one where there is any."""
    return max(1, round(pixels(length, side))) if length else 0


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--augment {name}={text}: expected a number, such as {name}=0.1") from None
