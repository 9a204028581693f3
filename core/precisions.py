"""The precisions an artifact may have, and how far from the fp32 reference a sound one may be.

The limits come from sound exports, with room: fp32 is rounding alone; for the others, the relative error and the share
of changed answers were measured on exports of trained networks, and each limit is two to four times the largest
error found. `tests/test_bench_parity_limits.py` measures again. A limit catches what is *wrong*; what precision costs
in accuracy is the margin's business.
"""

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
    largest_difference: float | None = None
    """Of any logit, absolute; None where rounding alone may change one logit by much."""

    def largest_allowed(self, largest_logit: float) -> float:
        """The largest absolute difference of any logit, where the reference's reach up to `largest_logit`."""
        if self.largest_difference is None:
            return float("inf")
        return max(self.largest_difference, RELATIVE * largest_logit)


PRECISIONS: dict[str, Precision] = {
    one.name: one
    for one in (
        Precision("fp32", 1e-4, 0.9998, 0.05, largest_difference=EQUAL_LOGITS),
        Precision("fp16", 0.005, 0.998, 0.10),
        Precision("bf16", 0.04, 0.99, 0.15),
        Precision("int8", 0.10, 0.975, 0.30),
    )
}


def precision_named(name: str) -> Precision:
    """The precision of that name. Raises UnknownNameError."""
    if name not in PRECISIONS:
        raise UnknownNameError("precision", name, PRECISIONS)
    return PRECISIONS[name]
