"""The verdict on a parity: three tests, and all must hold.

(a) Every image is answered once, every logit finite. (b) Logits and answers are as close to the reference's as the
precision that the artifact claims allows; see core/precisions.py. (c) The accuracy lost is shown to be below a margin:
the upper 95 % bound of the loss on paired answers. That nothing significant was found is not enough. MLPerf's presets
put a plain comparison of two accuracies in place of (c), and say so.
"""

import math
from dataclasses import dataclass

from ...core.errors import ParityError, UsageError
from ...core.tolerances import precision_named
from .compare import Parity
from .paired_interval import images_for, smallest_resolvable_loss, upper_loss

PRESETS = {"mlperf-99": 990, "mlperf-99.9": 999}
"""Thousandths of the reference's accuracy that the candidate must reach."""


@dataclass(frozen=True)
class Requirement:
    """What --require-parity asks for; nothing named means the margin of the artifact's precision."""

    margin_pp: float | None = None
    """Points of accuracy that must be shown not to be lost."""
    preset: str | None = None
    """mlperf-99 or mlperf-99.9."""

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in PRESETS:
            raise UsageError(f"--require-parity {self.preset}: expected points of accuracy, or {' or '.join(PRESETS)}")
        if self.margin_pp is not None and not 0 < self.margin_pp < 100:
            raise UsageError(f"--require-parity {self.margin_pp}: expected more than 0 and less than 100 points")


def requirement(text: str) -> Requirement:
    """Read "0.3", "mlperf-99", or "default". Raises UsageError."""
    if text == "default":
        return Requirement()
    try:
        return Requirement(margin_pp=float(text))
    except ValueError:
        return Requirement(preset=text)


@dataclass(frozen=True)
class Check:
    """One of the three tests."""

    name: str
    passed: bool
    text: str
    """What was found and what was expected."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a candidate, and why."""

    candidate: str
    precision: str
    checks: tuple[Check, ...]
    loss_pp: float
    """Accuracy lost, in points; negative when the candidate is better."""
    upper_loss_pp: float
    """Its upper 95 % bound."""
    margin_pp: float | None
    """None where MLPerf's preset decides."""

    @property
    def passed(self) -> bool:
        """Whether all three tests hold."""
        return all(check.passed for check in self.checks)

    def to_text(self) -> str:
        """One line for the verdict and one for each test."""
        named = self.candidate.endswith(f" {self.precision}")
        who = self.candidate if named else f"{self.candidate} ({self.precision})"
        lines = [f"{who}: {'parity' if self.passed else 'NO PARITY'}"]
        lines += [f"  {'ok' if check.passed else 'NO':3}{check.name}: {check.text}" for check in self.checks]
        return "\n".join(lines)

    def enforce(self) -> None:
        """Raise ParityError with the numbers of every test that does not hold."""
        failed = [f"{check.name}: {check.text}" for check in self.checks if not check.passed]
        if failed:
            raise ParityError(
                f"{self.candidate}: no parity with the reference in {self.precision}: {'; '.join(failed)}"
            )


def judge(parity: Parity, *, precision: str, required: Requirement | None = None) -> Verdict:
    """Judge a candidate that claims `precision`. Raises UnknownNameError for a precision that there is not."""
    required = required or Requirement()
    limits = precision_named(precision)
    margin_pp = required.margin_pp if required.margin_pp is not None else limits.margin_pp
    bound = upper_loss(parity.lost, parity.won, parity.images)
    equivalent = _mlperf(parity, required.preset) if required.preset else _equivalent(parity, bound, margin_pp)
    return Verdict(
        candidate=parity.candidate,
        precision=precision,
        checks=(_complete(parity), _close(parity, precision), equivalent),
        loss_pp=100 * (parity.lost - parity.won) / max(1, parity.images),
        upper_loss_pp=100 * bound,
        margin_pp=None if required.preset else margin_pp,
    )


def _complete(parity: Parity) -> Check:
    passed = parity.answered == parity.images and parity.not_finite == 0
    text = f"{parity.answered:,} answers to {parity.images:,} images, {parity.not_finite:,} with logits not finite"
    return Check("every image answered once", passed, text)


def _close(parity: Parity, precision: str) -> Check:
    limits = precision_named(precision)
    equal_within = limits.equal_within(parity.largest_logit)
    worst = (
        f"by {parity.largest_difference:.2g} in the worst (at most {equal_within:.2g})"
        if math.isfinite(equal_within)
        else f"by {parity.largest_share:.2g} of it in the worst (at most {limits.largest_share:.2g})"
    )
    agreement = parity.agreeing / max(1, parity.images)
    text = (
        f"logits off by {parity.relative_error:.2g} of their spread (at most {limits.relative_error:.2g}), "
        f"{worst}; "
        f"{parity.agreeing:,} of {parity.images:,} answers the same (at least {limits.agreement:.2%})"
    )
    passed = (
        parity.relative_error <= limits.relative_error
        and parity.largest_difference <= equal_within
        and parity.largest_share <= limits.largest_share
        and agreement >= limits.agreement
    )
    return Check(f"as close as {precision} is", passed, text)


def _equivalent(parity: Parity, bound: float, margin_pp: float) -> Check:
    lost_pp = 100 * (parity.lost - parity.won) / max(1, parity.images)
    text = (
        f"{parity.candidate_correct:,} right, the reference {parity.reference_correct:,} "
        f"({parity.lost:,} lost, {parity.won:,} won): {lost_pp:.3f} points lost, "
        f"at most {100 * bound:.3f} with 95 % confidence, margin {margin_pp:g}"
    )
    if 100 * smallest_resolvable_loss(parity.images) >= margin_pp:
        text += (
            f"; {parity.images:,} images cannot resolve this margin even without a change, "
            f"which takes {images_for(margin_pp / 100):,}"
        )
    return Check("accuracy kept", 100 * bound < margin_pp, text)


def _mlperf(parity: Parity, preset: str) -> Check:
    share = PRESETS[preset]
    passed = 1000 * parity.candidate_correct >= share * parity.reference_correct
    return Check(
        "accuracy kept",
        passed,
        f"{parity.candidate_correct:,} right of the reference's {parity.reference_correct:,}; {preset} wants "
        f"{share / 10:g} % of them: MLPerf's point comparison, which says nothing of chance",
    )
