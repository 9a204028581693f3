"""Samples of more than 8 bits become 0 to 255 by one rule, for training and classification alike.

Files of 16 or 32 bits rarely say which range their samples use. The range is from 0 to the first of these numbers that
no sample of the image exceeds:

    1 (floats only)    255 (8 bits)    4,095 (12 bits)    65,535 (16 bits)

If a sample is negative or larger than that, the range is from the smallest to the largest sample of the image. The
samples are mapped linearly from the range to 0 to 255 and rounded. NaN becomes the smallest, infinite the nearest end.
"""

import numpy as np
from numpy.typing import NDArray

RANGES = (1, 255, 4_095, 65_535)


def pixels_from_deep(samples: NDArray[np.generic], *, bits: int = 0) -> tuple[NDArray[np.uint8], str]:
    """Map samples to 0 to 255; return them, and their range in words if it is a guess, else "".

    `bits`: the depth that the file states; 0 if it states none. Samples that need all of these bits are no guess, and
    neither are floats between 0 and 1.
    """
    is_float = np.issubdtype(samples.dtype, np.floating)
    finite = samples[np.isfinite(samples)] if is_float else samples
    lowest, highest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    low, high = _range_of(lowest, highest, is_float=is_float)
    if samples.dtype.kind == "u" and samples.dtype.itemsize == 2:
        pixels = _mapped(np.arange(1 << 16, dtype=np.float64), low, high)[samples]
    else:
        pixels = _mapped(samples.astype(np.float64), low, high)
    certain = (is_float and (low, high) == (0, 1)) or (bits == 16 and high == RANGES[-1]) or lowest == highest == 0
    return pixels, "" if certain else f"{low:,.6g} to {high:,.6g}"


def _mapped(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    values = np.clip(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)
    return ((values - low) * (255 / (high - low)) + 0.5).astype(np.uint8)


def _range_of(lowest: float, highest: float, *, is_float: bool) -> tuple[float, float]:
    """The range that samples between these two are mapped from; it is never empty."""
    if lowest >= 0:
        for end in RANGES if is_float else RANGES[1:]:
            if highest <= end:
                return 0.0, float(end)
    if highest > lowest:
        return lowest, highest
    return (0.0, highest) if highest > 0 else (lowest, 0.0)
