"""The verdict on a parity: three checks, and all of them must pass.

(a) Every image is answered once, and every logit is finite. (b) Logits and answers are within the tolerance of the
precision that the artifact claims; see core/tolerances.py. (c) The loss of accuracy is shown to be below a margin: the
upper 95 % bound of the loss on paired answers is below it. A loss that is merely not significant does not pass.
MLPerf's presets replace (c) by a plain comparison of two accuracies, and the text of the check says so.
"""

import math
import textwrap
from dataclasses import dataclass

from ...core.errors import ParityError, UsageError
from ...core.tolerances import precision_named
from .compare import Parity
from .paired_interval import images_for, smallest_resolvable_loss, upper_loss

PRESETS = {"mlperf-99": 990, "mlperf-99.9": 999}
"""Thousandths of the reference's accuracy that the candidate must reach."""
WIDTH = 80
"""Columns of a verdict's text."""


@dataclass(frozen=True)
class Requirement:
    """What --require-parity asks for; the default is the margin of the artifact's precision."""

    margin_pp: float | None = None
    """The loss of accuracy, in percentage points, that must be ruled out."""
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
    """One of the three checks."""

    name: str
    passed: bool
    text: str
    """What was found and what was expected."""


@dataclass(frozen=True)
class Verdict:
    """What the parity gate decides about a candidate, and why."""

    candidate: str
    precision: str
    checks: tuple[Check, ...]
    loss_pp: float
    """Accuracy lost, in percentage points; negative when the candidate is better."""
    upper_loss_pp: float
    """The upper 95 % bound of the loss."""
    margin_pp: float | None
    """None where MLPerf's preset decides."""
    images: int = 0
    """A report of rtk-bench-2 lacks it; reading fills it from `parity`."""
    candidate_correct: int = 0
    reference_correct: int = 0
    changed: int = 0
    """Images with another answer than the reference's, or with none."""

    @property
    def passed(self) -> bool:
        """Whether all three checks pass."""
        return all(check.passed for check in self.checks)

    def summary(self) -> str:
        """The verdict and its counts in one line of at most 80 columns; the wording is shorter where counts are long.

        For example: onnx (fp32): parity (9,278 of 10,000 right, reference 9,278; 0 answers changed)
        """
        right, images = f"{self.candidate_correct:,}", f"{self.images:,}"
        reference, changed = f"reference {self.reference_correct:,}", f"{self.changed:,}"
        wordings = (
            f"{self._heading} ({right} of {images} right, {reference}; {changed} answers changed)",
            f"{self._heading} ({right} of {images} right, {reference}; {changed} changed)",
            f"{self._heading} ({right} of {images}, {reference}; {changed} changed)",
        )
        return next((line for line in wordings if len(line) <= WIDTH), wordings[-1])

    def to_text(self) -> str:
        """The verdict, then each check, wrapped to 80 columns under a hanging indent."""
        lines = [self._heading]
        for check in self.checks:
            text = f"{'ok' if check.passed else 'NO':3}{check.name}: {check.text}"
            lines += textwrap.wrap(
                text,
                WIDTH,
                initial_indent="  ",
                subsequent_indent="     ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        return "\n".join(lines)

    @property
    def _heading(self) -> str:
        named = self.candidate.endswith(f" {self.precision}")
        who = self.candidate if named else f"{self.candidate} ({self.precision})"
        return f"{who}: {'parity' if self.passed else 'NO PARITY'}"

    def enforce(self) -> None:
        """Raise ParityError with the numbers of every check that fails."""
        failed = [f"{check.name}: {check.text}" for check in self.checks if not check.passed]
        if failed:
            raise ParityError(
                f"{self.candidate}: no parity with the reference in {self.precision}: {'; '.join(failed)}"
            )


def judge(parity: Parity, *, precision: str, required: Requirement | None = None) -> Verdict:
    """Judge a candidate that claims `precision`. Raises UnknownNameError for an unknown precision."""
    required = required or Requirement()
    limits = precision_named(precision)
    margin_pp = required.margin_pp if required.margin_pp is not None else limits.margin_pp
    bound = upper_loss(parity.lost, parity.won, parity.images)
    equivalent = _mlperf(parity, required.preset) if required.preset else _equivalent(parity, bound, margin_pp)
    return Verdict(
        candidate=parity.candidate,
        precision=precision,
        checks=(_complete(parity), _within_tolerance(parity, precision), equivalent),
        loss_pp=100 * (parity.lost - parity.won) / max(1, parity.images),
        upper_loss_pp=100 * bound,
        margin_pp=None if required.preset else margin_pp,
        images=parity.images,
        candidate_correct=parity.candidate_correct,
        reference_correct=parity.reference_correct,
        changed=parity.changed,
    )


def _complete(parity: Parity) -> Check:
    passed = parity.answered == parity.images and parity.not_finite == 0
    text = f"{parity.answered:,} answers to {parity.images:,} images, {parity.not_finite:,} whose logits are not finite"
    return Check("every image answered once", passed, text)


def _within_tolerance(parity: Parity, precision: str) -> Check:
    limits = precision_named(precision)
    equal_within = limits.equal_within(parity.largest_logit, rounding=parity.rounding, spread=parity.spread)
    largest = (
        f"{parity.largest_difference:.2g} (at most {equal_within:.2g})"
        if math.isfinite(equal_within)
        else f"{parity.largest_share:.2g} standard deviations (at most {limits.largest_share:.2g})"
    )
    agreement = parity.agreeing / max(1, parity.images)
    text = (
        f"relative RMS error {parity.relative_error:.2g} (at most {limits.relative_error:.2g}), "
        f"largest logit difference {largest}, "
        f"{parity.agreeing:,} of {parity.images:,} answers the same (at least {limits.agreement:.2%})"
    )
    passed = (
        parity.relative_error <= limits.relative_error
        and parity.largest_difference <= equal_within
        and parity.largest_share <= limits.largest_share
        and agreement >= limits.agreement
    )
    return Check(f"within {precision} tolerance", passed, text)


def _equivalent(parity: Parity, bound: float, margin_pp: float) -> Check:
    lost_pp = 100 * (parity.lost - parity.won) / max(1, parity.images)
    text = (
        f"{parity.candidate_correct:,} right, the reference {parity.reference_correct:,} "
        f"({parity.lost:,} lost, {parity.won:,} won): {lost_pp:.3f} points lost, "
        f"at most {100 * bound:.3f} with 95 % confidence (margin {margin_pp:g})"
    )
    if 100 * smallest_resolvable_loss(parity.images) >= margin_pp:
        text += (
            f"; {parity.images:,} images cannot resolve this margin even if no answer changes; "
            f"that needs at least {images_for(margin_pp / 100):,}"
        )
    return Check("accuracy kept", 100 * bound < margin_pp, text)


def _mlperf(parity: Parity, preset: str) -> Check:
    share = PRESETS[preset]
    passed = 1000 * parity.candidate_correct >= share * parity.reference_correct
    return Check(
        "accuracy kept",
        passed,
        f"{parity.candidate_correct:,} right, the reference {parity.reference_correct:,}; {preset} requires "
        f"{share / 10:g} % of the reference's: MLPerf's point comparison, which ignores chance",
    )
