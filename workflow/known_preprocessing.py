"""Preprocessing that is known without training images: that of networks which were trained elsewhere."""

import math

from ..core.card import Preprocessing
from ..core.errors import UnknownNameError, UsageError
from ..train.data.preprocessing import IMAGENET_DEVIATION, IMAGENET_MEAN, OF_WEIGHTS, PREPROCESSES, find_preprocess
from ..train.data.statistics import repeated

KNOWN = tuple(
    name
    for name, row in PREPROCESSES.items()
    if not {"channel", "pixel"} & {row.mean, row.deviation} and not row.whitening and name != OF_WEIGHTS
)
"""The rows of `rtk train --preprocess` that learn nothing from images."""


def known_preprocessing(
    name: str | None, *, channels: int, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
) -> Preprocessing:
    """Return the preprocessing of that name, or with that mean and deviation, for a network of so many channels.

    `mean` and `std`: one value for each channel, or one for all, in units of pixel / 255. Raises UsageError.
    """
    if name is None:
        assert mean is not None
        assert std is not None
        return Preprocessing(_for_each("--mean", mean, channels), _for_each("--std", std, channels))
    row = find_preprocess(name)
    if row.mean == "imagenet" and channels != len(IMAGENET_MEAN):
        raise UsageError(
            f"--preprocess {name}: is for three channels, but the network takes {channels}; name its own constants: "
            "--mean 0.5 --std 0.5"
        )
    return Preprocessing(
        IMAGENET_MEAN if row.mean == "imagenet" else repeated((0.0,), channels),
        IMAGENET_DEVIATION if row.deviation == "imagenet" else repeated((1.0,), channels),
        image_mean=row.image_mean,
        image_deviation=row.image_deviation,
    )


def check_choice(name: str | None, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    """Raise UsageError unless there is either the name of a known preprocessing, or a mean and a deviation."""
    if name is not None and (mean is not None or std is not None):
        raise UsageError("--preprocess and --mean with --std exclude each other; leave one of them out")
    if name is None and (mean is None or std is None):
        raise UsageError(f"the preprocessing is missing; add --preprocess {'|'.join(KNOWN)}, or both --mean and --std")
    if name is not None and name not in PREPROCESSES:
        raise UnknownNameError("--preprocess", name, KNOWN)
    if name is not None and name not in KNOWN:
        raise UsageError(
            f"--preprocess {name}: is learned from training images, which are not there; expected "
            f"{', '.join(KNOWN)}, or --mean and --std"
        )
    if mean is not None and not all(-1 <= value <= 1 for value in mean):
        raise UsageError(f"--mean {_text(mean)}: expected values in units of pixel / 255, such as 0.485,0.456,0.406")
    if std is not None and not all(0 < value <= 1 for value in std):
        raise UsageError(
            f"--std {_text(std)}: expected values above 0 in units of pixel / 255, such as 0.229,0.224,0.225"
        )


def numbers_of(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read numbers with commas between them; None without a text. Raises UsageError."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise UsageError(
            f"{option} {text}: expected one number, or three with commas between them, such as 0.5,0.5,0.5"
        )
    return values


def _for_each(option: str, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise UsageError(f"{option} {_text(values)}: {len(values)} values, but the network takes {channels} of them")
    return values if len(values) == channels else values * channels


def _text(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
