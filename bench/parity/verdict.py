"""The verdict on a parity: no parity if a check finds a fault, inconclusive if the images are too few, else parity.

checks.py has the checks. The last one asks for a loss of accuracy that is shown to be below a margin: the upper end of
the interval of the loss on paired answers is below it. A loss that is merely not significant is inconclusive. Only a
loss that is shown to be above the margin is no parity. MLPerf's presets replace this check by a plain comparison of two
accuracies, and the text of the check says so.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.errors import InconclusiveError, ParityError, UsageError
from ...core.tolerances import precision_named
from .checks import (
    PRESETS,
    Check,
    Outcome,
    accuracy_kept,
    complete,
    mlperf_accuracy,
    not_systematic,
    right_elsewhere,
    same_card,
    steady,
    within_tolerance,
)
from .compare import Parity
from .paired_interval import upper_loss

WIDTH = 80
"""Columns of a verdict's text."""
MARKS: dict[Outcome, str] = {"passed": "ok", "inconclusive": "??", "failed": "NO"}
WORDS: dict[Outcome, str] = {"passed": "parity", "inconclusive": "inconclusive", "failed": "NO PARITY"}


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
class Verdict:
    """What the parity gate decides about a candidate, and why."""

    candidate: str
    precision: str
    checks: tuple[Check, ...]
    loss_pp: float
    """Accuracy lost, in percentage points; negative when the candidate is better."""
    upper_loss_pp: float
    """The upper end of the two-sided 95 % interval of the loss."""
    margin_pp: float | None
    """None where MLPerf's preset decides."""
    images: int = 0
    """A report of rtk-bench-2 lacks it; reading fills it from `parity`."""
    candidate_correct: int = 0
    reference_correct: int = 0
    changed: int = 0
    """Images with another answer than the reference's, or with none."""

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of a check."""
        found = {check.outcome for check in self.checks}
        return "failed" if "failed" in found else "inconclusive" if "inconclusive" in found else "passed"

    @property
    def passed(self) -> bool:
        """Whether it is parity."""
        return self.outcome == "passed"

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
            f"{self._heading} ({right} of {images}; {changed} changed)",
        )
        return next((line for line in wordings if len(line) <= WIDTH), wordings[-1])

    def to_text(self) -> str:
        """The verdict, then each check, wrapped to 80 columns under a hanging indent."""
        lines = [self._heading]
        for check in self.checks:
            lines += textwrap.wrap(
                f"{MARKS[check.outcome]:3}{check.name}: {check.text}",
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
        return f"{who}: {WORDS[self.outcome]}"

    def enforce(self) -> None:
        """Raise ParityError or InconclusiveError with the numbers of every check that has that outcome."""
        if self.outcome == "passed":
            return
        found = "; ".join(f"{one.name}: {one.text}" for one in self.checks if one.outcome == self.outcome)
        if self.outcome == "failed":
            raise ParityError(f"{self.candidate}: no parity with the reference in {self.precision}: {found}")
        raise InconclusiveError(f"{self.candidate}: inconclusive in {self.precision}: {found}")


def judge(
    parity: Parity, *, precision: str, required: Requirement | None = None, classes: Sequence[str] = ()
) -> Verdict:
    """Judge a candidate that claims `precision`. Raises UnknownNameError for an unknown precision.

    `classes`: the names of the classes, for the text. Without trials, the checks that need them are left out.
    """
    required = required or Requirement()
    limits = precision_named(precision)
    margin_pp = required.margin_pp if required.margin_pp is not None else limits.margin_pp
    checks = [
        same_card(parity),
        complete(parity),
        within_tolerance(parity, limits),
        not_systematic(parity, limits, margin_pp=margin_pp, classes=classes),
    ]
    if parity.trials:
        checks += [steady(parity, limits), right_elsewhere(parity, limits)]
    checks.append(mlperf_accuracy(parity, required.preset) if required.preset else accuracy_kept(parity, margin_pp))
    return Verdict(
        candidate=parity.candidate,
        precision=precision,
        checks=tuple(checks),
        loss_pp=100 * (parity.lost - parity.won) / max(1, parity.images),
        upper_loss_pp=100 * upper_loss(parity.lost, parity.won, parity.images),
        margin_pp=None if required.preset else margin_pp,
        images=parity.images,
        candidate_correct=parity.candidate_correct,
        reference_correct=parity.reference_correct,
        changed=parity.changed,
    )
