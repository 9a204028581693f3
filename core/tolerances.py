"""The precisions an artifact may have, and how far from the fp32 reference a sound one may be.

The limits come from sound exports, with room: fp32 is rounding alone; for the others, errors relative to the spread of
the reference's logits were measured on 10,000 images with a trained resnet20v1, and on 8,000 with a resnet8v1 of random
features, which amplifies errors three to six times: fp16 0.0006 and 0.002, bf16 0.0044 and 0.017, int8 0.021 to 0.030
and 0.08; int8 calibrated on noise, which must be refused, is wrong by twice the spread at its worst, sound
int8 by 0.3 to 0.6 of it. A limit catches what is *wrong*; what precision costs in accuracy is the margin's business.

Shapes: N images, K classes.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import UnknownNameError

EQUAL_LOGITS = 1e-4
"""Largest absolute difference at which two fp32 logits are called equal."""

RELATIVE = 1e-6
"""The same as a share of the largest logit; counts where logits are in the hundreds, as in untrained deep networks."""

PrecisionName = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class Precision:
    """What a precision promises."""

    name: PrecisionName
    relative_error: float
    """Root mean square of the logits' differences over the standard deviation of the reference's logits, at most."""
    agreement: float
    """Share of images that must get the reference's answer."""
    margin_pp: float
    """Points of accuracy that may be lost unless the user says otherwise; see bench/parity/verdict.py."""
    largest_share: float
    """What `largest_share` returns, at most; for fp32 `equal_within` decides instead."""

    def equal_within(self, largest_logit: float) -> float:
        """The largest absolute difference of any logit, by the reference's largest; infinite but for fp32."""
        return max(EQUAL_LOGITS, RELATIVE * largest_logit) if self.name == "fp32" else math.inf


PRECISIONS: dict[str, Precision] = {
    one.name: one
    for one in (
        Precision("fp32", 1e-4, 0.9998, 0.05, math.inf),
        Precision("fp16", 0.005, 0.998, 0.10, 0.05),
        Precision("bf16", 0.04, 0.99, 0.15, 0.3),
        Precision("int8", 0.10, 0.975, 0.30, 1.0),
    )
}


def precision_named(name: str) -> Precision:
    """The precision of that name. Raises UnknownNameError."""
    if name not in PRECISIONS:
        raise UnknownNameError("precision", name, PRECISIONS)
    return PRECISIONS[name]


def differences(logits_NK: NDArray[np.float32], reference_NK: NDArray[np.float32]) -> tuple[float, float]:
    """The largest absolute difference, and the root mean square as a share of the reference's standard deviation."""
    difference_NK = logits_NK.astype(np.float64) - reference_NK
    spread = float(reference_NK.std(dtype=np.float64)) or 1.0
    return float(np.abs(difference_NK).max()), float(np.sqrt((difference_NK**2).mean())) / spread


def largest_share(logits_NK: NDArray[np.float32], reference_NK: NDArray[np.float32]) -> float:
    """The largest difference of any logit over the standard deviation of the reference's logits.

    Of all of them, or of its own image's where that is more: the surest answers have logits several times as large as
    most, which are the first to be clipped in int8, and stay the surest. At 1 an error is as large as what tells an
    image's classes apart. 0 without images.
    """
    if not reference_NK.size:
        return 0.0
    spread_N1 = np.maximum(
        reference_NK.std(dtype=np.float64), reference_NK.std(axis=1, dtype=np.float64, keepdims=True)
    )
    difference_NK = np.abs(logits_NK.astype(np.float64) - reference_NK)
    return float((difference_NK / np.maximum(spread_N1, 1e-30)).max())
