"""The checks of the parity gate. Each one finds a kind of fault, except the last, which bounds the loss of accuracy.

Every check has one of three outcomes. Only the last one can be inconclusive: too few images to show what was asked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...core.library_errors import is_out_of_memory
from ...core.tolerances import Precision
from .compare import Parity
from .paired_interval import images_for, images_needed, lower_loss, smallest_resolvable_loss, upper_loss
from .systematic import classes_with_loss
from .trials import ALTERED, Difference, Trial

Outcome = Literal["passed", "inconclusive", "failed"]

PRESETS = {"mlperf-99": 990, "mlperf-99.9": 999}
"""Thousandths of the reference's accuracy that the candidate must reach."""
CLASS_MULTIPLE = 3
"""How many times the margin one class may lose of its recall."""
CHANGES_MULTIPLE = 2
"""How many times as many answers may change as random errors of the measured size would change."""
CONFIDENCE = "two-sided 95 % interval, so one-sided 97.5 %"


@dataclass(frozen=True)
class Check:
    """One of the checks."""

    name: str
    outcome: Outcome
    text: str
    """What was found and what was expected."""

    @property
    def passed(self) -> bool:
        """Whether it found no fault, and the images were enough."""
        return self.outcome == "passed"


def same_card(parity: Parity) -> Check:
    """Whether pixels and logits have the same meaning, by the two cards."""
    different = " and ".join(parity.card_differences)
    text = f"its card has other {different}" if different else "classes, input and preprocessing are those of its card"
    return _check("the reference's card", not different, text)


def complete(parity: Parity) -> Check:
    """Whether every image has one answer with finite logits."""
    text = f"{parity.answered:,} answers to {parity.images:,} images, {parity.not_finite:,} whose logits are not finite"
    return _check("every image answered once", parity.answered == parity.images and parity.not_finite == 0, text)


def within_tolerance(parity: Parity, limits: Precision) -> Check:
    """Whether logits and answers are as close as this precision can be."""
    equal_within = _equal_within(parity, limits)
    relative = limits.error_within(parity.expected_error)
    largest = (
        f"{parity.largest_difference:.2g} (at most {equal_within:.2g})"
        if math.isfinite(equal_within)
        else f"{parity.largest_share:.2g} standard deviations (at most {limits.largest_share:.2g})"
    )
    agreement = parity.agreeing / max(1, parity.images)
    least = min(limits.agreement, 1 - CHANGES_MULTIPLE * parity.explained_changes)
    text = (
        f"relative RMS error {parity.relative_error:.2g} (at most {relative:.2g}), largest logit difference {largest}, "
        f"{parity.agreeing:,} of {parity.images:,} answers the same (at least {least:.2%})"
    )
    passed = (
        parity.relative_error <= relative
        and parity.largest_difference <= equal_within
        and parity.largest_share <= limits.largest_share
        and agreement >= least
    )
    return _check(f"within {limits.name} tolerance", passed, text)


def not_systematic(parity: Parity, limits: Precision, *, margin_pp: float, classes: Sequence[str] = ()) -> Check:
    """Whether errors differ from image to image, as those of rounding do, instead of moving all images alike."""
    shifts = [abs(one) / parity.spread for one in parity.class_shifts]
    shift, allowed = max(shifts, default=0.0), limits.shift_within(parity.expected_error)
    class_margin_pp = CLASS_MULTIPLE * margin_pp
    losers = classes_with_loss(parity.classes, loss=min(class_margin_pp / 100, 0.99))
    text = (
        f"largest mean difference of one logit {shift:.2g} standard deviations (at most {allowed:.2g}), "
        f"slope of the logits {parity.slope:.3f} (within {limits.slope:g} of 1), "
    )
    if losers:
        worst = losers[0]
        text += (
            f"{_class_name(worst.label, classes)} lost {worst.loss_pp:.1f} points of recall ({worst.lost:,} lost, "
            f"{worst.won:,} won of {worst.images:,}), which is more than {class_margin_pp:g}"
        )
    else:
        text += f"no class is shown to have lost more than {class_margin_pp:g} points of recall"
    text += " (95 % confidence for all classes together)"
    passed = shift <= allowed and abs(parity.slope - 1) <= limits.slope and not losers
    return _check("no systematic error", passed, text)


def steady(parity: Parity, limits: Precision) -> Check:
    """Whether an image has the same logits when it is asked again, in batches of every size, and anywhere in them."""
    trials = [one for one in parity.trials if one.name != ALTERED]
    bad = [one for one in trials if not _is_steady(one, parity, limits)]
    shown = max(bad or trials, key=lambda one: (not one.complete, one.itself.relative_error if one.itself else 0.0))
    sizes = ", ".join(one.name.removeprefix("batches of ") for one in trials[1:])
    text = f"{trials[0].name}, and in batches of {sizes}: "
    text += f"{shown.name}: " if bad else ""
    if shown.error and bad:
        text += shown.error
    elif not shown.complete:
        text += (
            f"{shown.answered:,} answers to {shown.images:,} images, {shown.not_finite:,} whose logits are not finite"
        )
    elif shown.itself is not None:
        limit = _equal_within(parity, limits)
        text += (
            f"largest logit difference {shown.itself.largest:.2g} (at most {limit:.2g})"
            if math.isfinite(limit)
            else f"relative RMS difference {shown.itself.relative_error:.2g} (at most {limits.repeat:.2g})"
        )
    if not bad:
        text += "".join(f"; not in {one.name}: {one.error}" for one in trials if one.error)
    return _check("the same in every batch", not bad, text)


def right_elsewhere(parity: Parity, limits: Precision) -> Check:
    """Whether images that are not in the test split are answered as well."""
    trial = next(one for one in parity.trials if one.name == ALTERED)
    relative = limits.error_within(parity.expected_error)
    text = f"{trial.images:,} test images, mirrored and moved: "
    if not trial.complete or trial.error:
        text += trial.error or f"{trial.answered:,} answers, {trial.not_finite:,} whose logits are not finite"
    else:
        text += f"relative RMS error {trial.reference.relative_error:.2g} (at most {relative:.2g})"
    close = trial.reference.relative_error <= relative and trial.reference.largest_share <= limits.largest_share
    return _check("right off the test split", trial.complete and not trial.error and close, text)


def accuracy_kept(parity: Parity, margin_pp: float) -> Check:
    """Whether the loss of accuracy is shown to be below the margin, or shown to be above it."""
    lost, won, images = parity.lost, parity.won, parity.images
    low_pp, high_pp = 100 * lower_loss(lost, won, images), 100 * upper_loss(lost, won, images)
    outcome: Outcome = "passed" if high_pp < margin_pp else "failed" if low_pp > margin_pp else "inconclusive"
    text = (
        f"{parity.candidate_correct:,} right, the reference {parity.reference_correct:,} ({lost:,} lost, {won:,} won): "
        f"{100 * (lost - won) / max(1, images):.3f} points lost, at least {low_pp:.3f} and at most {high_pp:.3f} "
        f"({CONFIDENCE}); the margin is {margin_pp:g}"
    )
    if outcome == "inconclusive":
        text += f"; {_what_is_missing(parity, margin_pp, high_pp)}"
    return Check("accuracy kept", outcome, text)


def mlperf_accuracy(parity: Parity, preset: str) -> Check:
    """Whether the accuracy is MLPerf's share of the reference's: a comparison of two numbers."""
    share = PRESETS[preset]
    return _check(
        "accuracy kept",
        1000 * parity.candidate_correct >= share * parity.reference_correct,
        f"{parity.candidate_correct:,} right, the reference {parity.reference_correct:,}; {preset} requires "
        f"{share / 10:g} % of the reference's: MLPerf's point comparison, which ignores chance",
    )


def _check(name: str, passed: bool, text: str) -> Check:
    return Check(name, "passed" if passed else "failed", text)


def _equal_within(parity: Parity, limits: Precision) -> float:
    return limits.equal_within(parity.largest_logit, rounding=parity.rounding, spread=parity.spread)


def _is_steady(trial: Trial, parity: Parity, limits: Precision) -> bool:
    """Whether all answers came, and are the same as before. A large batch may run out of memory."""
    if not trial.complete or (trial.error and not (trial.large and is_out_of_memory(trial.error))):
        return False
    found, limit = trial.itself or Difference(0.0, 0.0, 0.0), _equal_within(parity, limits)
    return found.largest <= limit if math.isfinite(limit) else found.relative_error <= limits.repeat


def _class_name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if label < len(classes) else f"class {label}"


def _what_is_missing(parity: Parity, margin_pp: float, high_pp: float) -> str:
    """Why the images decide nothing, how many would, and which margin these can show."""
    images = f"{parity.images:,} {'image' if parity.images == 1 else 'images'}"
    if 100 * smallest_resolvable_loss(parity.images) >= margin_pp:
        why = (
            f"{images} cannot show so small a loss even if no answer changes; that needs at least "
            f"{images_for(margin_pp / 100):,}"
        )
    else:
        needed = images_needed(parity.lost, parity.won, parity.images, margin=margin_pp / 100)
        why = f"{images} with so many changed answers are too few"
        why += f"; about {needed:,} would be enough" if needed else ", and the measured loss is not below the margin"
    shown_pp = _rounded_up(high_pp)
    if shown_pp >= 100:
        return why
    return f"{why}; these can show a loss below {shown_pp:g}: --require-parity {shown_pp:g} passes"


def _rounded_up(margin_pp: float) -> float:
    """A margin of two or three digits just above the bound."""
    digits = 3 if margin_pp < 0.1 else 2
    return (math.floor(margin_pp * 10**digits) + 1) / 10**digits
