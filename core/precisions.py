"""The precisions an artifact may have, and how far from the fp32 reference a sound one may be.

The limits come from sound exports, with room: fp32 is rounding alone; for the others, errors relative to the spread of
the reference's logits were measured on 10,000 images with a trained resnet20v1, and on 8,000 with a resnet8v1 of random
features, which amplifies errors three to six times: fp16 0.0006 and 0.002, bf16 0.0044 and 0.017, int8 0.021 to 0.030
and 0.08; int8 calibrated on noise, which must be refused, is wrong by twice the spread at its worst, sound
int8 by 0.3 to 0.6 of it. A limit catches what is *wrong*; what precision costs in accuracy is the margin's business.
"""

import math
from dataclasses import dataclass
from typing import Literal

from .errors import UnknownNameError

PrecisionName = Literal["fp32", "fp16", "bf16", "int8"]

EQUAL_LOGITS = 1e-4
"""Largest absolute difference at which two fp32 logits are called equal."""
RELATIVE = 1e-6
"""The same as a share of the largest logit; counts where logits are in the hundreds, as in untrained deep networks."""


@dataclass(frozen=True)
class Precision:
    """What a precision promises."""

    name: PrecisionName
    relative_error: float
    """Root mean square of the logits' differences over the standard deviation of the reference's logits, at most."""
    agreement: float
    """Share of images that must get the reference's answer."""
    margin_pp: float
    """Points of accuracy that may be lost unless the user says otherwise; see bench/verdict.py."""
    largest_share: float
    """What core/closeness.py calls so, at most; for fp32 `equal_within` decides instead."""

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
