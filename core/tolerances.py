"""The precisions of artifacts, and how far a correct artifact may be from the fp32 reference.

The limits are measured on correct exports, with some room; `python -m rtk.tools.parity_figures` measures them again.
They find *wrong* artifacts; `margin_pp` limits the accuracy that a precision may cost.

fp32 differs by rounding only, so its limit follows from what rounding does to the very network: how far PyTorch's own
fp32 logits are from its fp64 logits. Sums in another order were 0.35 to 2.4 times as far off, in 22 networks of 8 to
164 layers, trained and untrained.

The error of the other precisions depends on the network too: networks of random features amplify errors more than
trained ones. So the limits are multiples of what 16 bits cost the very network, computed in PyTorch: fp16 for fp16,
bf16 for bf16 and int8. A second, absolute limit holds for every network. In five networks (resnet20v1 trained on
CIFAR-10 and on Fashion-MNIST, resnet8v1 trained on shapes, resnet8v1 and resnet11v2 with random features and a fitted
head), in int8 by rtk's quantiser and by ONNX Runtime's, correct exports had at most:

    precision                           fp16      bf16      int8
    relative RMS error                  0.0027    0.0165    0.099
    the same, as a multiple             1.5       1.1       6.7
    mean difference of a class's logit  0.0051    0.025     0.103
    the same, as a multiple             2.7       1.8       6.6
    slope of the logits                 1.0001    0.9986    0.9899

The largest single error of int8 is twice the standard deviation when it is calibrated on noise, which must be refused,
and 0.3 to 0.8 of it in a correct export.

Shapes: N images, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .errors import UnknownNameError

if TYPE_CHECKING:  # `--help` needs the names of the precisions without NumPy
    import numpy as np
    from numpy.typing import NDArray

EQUAL_LOGITS = 1e-4
"""Largest absolute difference between two fp32 logits that always count as equal in the parity gate."""

RELATIVE = 1e-6
"""Largest difference relative to the largest logit that always counts as rounding: eight units in the last place."""

ROUNDING_MULTIPLE = 8
"""How many times as far off as PyTorch's own fp32 logits those of another fp32 program may be."""

ROUNDING_SHARE = 1e-3
"""The most that rounding may excuse, in standard deviations of the logits, however inexact the reference is."""

PrecisionName = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class Precision:
    """The limits of one precision."""

    name: PrecisionName
    relative_error: float
    """Largest allowed relative RMS error: RMS logit difference / standard deviation of the reference's logits."""
    agreement: float
    """Smallest allowed share of images with the same answer as the reference, unless the network is often unsure: then
    the share that random errors of the same size leave counts; see bench/parity/checks.py."""
    margin_pp: float
    """Default for the accuracy that may be lost, in percentage points; see bench/parity/verdict.py."""
    largest_share: float
    """Largest allowed result of the function `largest_share`; fp32 uses `equal_within` instead."""
    class_shift: float
    """Largest allowed mean difference of a class's logit over all images, in standard deviations of the logits."""
    yardstick: Literal["fp16", "bf16", ""]
    """The precision whose rounding is measured on the very network; empty: none is."""
    error_multiple: float
    """How many times that error the relative RMS error may be."""
    shift_multiple: float
    """How many times that error the mean difference of a class's logit may be, in standard deviations."""
    slope: float
    """How far the slope of the logits on the reference's may be from 1."""
    repeat: float
    """Largest allowed relative RMS difference of logits that an artifact gives to the same images in another batch;
    fp32 uses `equal_within` instead."""

    def equal_within(self, largest_logit: float, *, rounding: float = 0.0, spread: float = 0.0) -> float:
        """Return the largest allowed absolute difference of any logit; it is infinite for precisions other than fp32.

        The arguments are those of `rounding_limit`.
        """
        if self.name != "fp32":
            return math.inf
        return max(EQUAL_LOGITS, rounding_limit(largest_logit, rounding=rounding, spread=spread))

    def error_within(self, expected: float) -> float:
        """Return the largest allowed relative RMS error if the error of `yardstick` in this network is `expected`.

        0: it is not known.
        """
        return _limit(self.relative_error, self.error_multiple * expected)

    def shift_within(self, expected: float) -> float:
        """Return the largest allowed mean difference of a class's logit, in standard deviations.

        `expected`: as for `error_within`.
        """
        return _limit(self.class_shift, self.shift_multiple * expected)


def _limit(absolute: float, of_this_network: float) -> float:
    return min(absolute, of_this_network) if of_this_network > 0 else absolute


PRECISIONS: dict[str, Precision] = {
    one.name: one
    for one in (
        Precision("fp32", 1e-4, 0.9998, 0.05, math.inf, 1e-4, "", 0, 0, slope=1e-4, repeat=1e-4),
        Precision("fp16", 0.005, 0.998, 0.10, 0.05, 0.01, "fp16", 3, 5, slope=0.002, repeat=0.001),
        Precision("bf16", 0.04, 0.99, 0.15, 0.3, 0.06, "bf16", 2, 4, slope=0.006, repeat=0.008),
        Precision("int8", 0.10, 0.975, 0.30, 1.0, 0.15, "bf16", 8.5, 10, slope=0.02, repeat=0.02),
    )
}


def precision_named(name: str) -> Precision:
    """Look up a precision by name. Raises UnknownNameError."""
    if name not in PRECISIONS:
        raise UnknownNameError("precision", name, PRECISIONS)
    return PRECISIONS[name]


def rounding_limit(largest_logit: float, *, rounding: float, spread: float) -> float:
    """Return how far rounding alone may move a logit of a correct fp32 program.

    `largest_logit`: the reference's largest absolute logit. `rounding`: the largest difference of its fp32 logits from
    its fp64 logits. `spread`: the standard deviation of its logits.
    """
    return max(RELATIVE * largest_logit, min(ROUNDING_MULTIPLE * rounding, ROUNDING_SHARE * spread))


def differences(logits_NK: NDArray[np.float32], reference_NK: NDArray[np.floating]) -> tuple[float, float]:
    """Return the largest absolute difference and the relative RMS error of the logits."""
    difference_NK = logits_NK.astype("float64") - reference_NK
    deviation = float(reference_NK.std(dtype="float64")) or 1.0
    return float(abs(difference_NK).max()), math.sqrt((difference_NK**2).mean()) / deviation


def largest_share(logits_NK: NDArray[np.float32], reference_NK: NDArray[np.float32]) -> float:
    """Return the largest difference of any logit, relative to the standard deviation of the reference's logits.

    The standard deviation is that of all logits, or that of the image's own logits if it is larger: the most confident
    answers have logits several times as large as most others; int8 clips them first, and they stay the most confident.
    At 1 the error is as large as the differences between an image's classes. The result is 0 without images.
    """
    if not reference_NK.size:
        return 0.0
    overall = max(float(reference_NK.std(dtype="float64")), 1e-30)
    deviation_N1 = reference_NK.std(axis=1, dtype="float64", keepdims=True).clip(min=overall)
    difference_NK = abs(logits_NK.astype("float64") - reference_NK)
    return float((difference_NK / deviation_N1).max())
