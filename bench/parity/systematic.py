"""Systematic errors: small errors of all logits in one direction, which the RMS error of a low precision would hide.

Rounding moves a logit up in one image and down in the next. A fault, such as a wrong mean of the pixels or a wrong
bias, moves all images alike. So three figures tell them apart: the mean difference of each class's logit, the slope of
the logits on the reference's, and the recall that each class lost.

Shapes: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .paired_interval import chance_of_loss


@dataclass(frozen=True)
class ClassAnswers:
    """The answers to the images of one class."""

    label: int
    images: int
    lost: int
    """Right in the reference, wrong in the candidate."""
    won: int
    """Wrong in the reference, right in the candidate."""

    @property
    def loss_pp(self) -> float:
        """Recall lost, in percentage points; negative when the candidate is better."""
        return 100 * (self.lost - self.won) / self.images


def class_shifts(candidate_NK: NDArray[np.float32], reference_NK: NDArray[np.float32]) -> tuple[float, ...]:
    """The mean difference of each class's logit over all images, with its sign, in units of the logits."""
    if not len(reference_NK):
        return ()
    difference_NK = candidate_NK.astype(np.float64) - reference_NK
    return tuple(difference_NK.mean(axis=0).tolist())


def slope_of(candidate_NK: NDArray[np.float32], reference_NK: NDArray[np.float32]) -> float:
    """The slope of the regression of the candidate's logits on the reference's, after subtracting each class's mean.

    1 without images, and if the reference's logits do not vary.
    """
    if not len(reference_NK):
        return 1.0
    reference_NK = reference_NK - reference_NK.mean(axis=0, dtype=np.float64)
    candidate_NK = candidate_NK - candidate_NK.mean(axis=0, dtype=np.float64)
    variation = float((reference_NK**2).sum())
    return float((candidate_NK * reference_NK).sum()) / variation if variation > 0 else 1.0


def answers_by_class(
    labels_N: NDArray[np.int64], lost_N: NDArray[np.bool_], won_N: NDArray[np.bool_], *, classes: int
) -> tuple[ClassAnswers, ...]:
    """The answers to the images of each class that has images."""
    images, lost, won = (
        np.bincount(labels_N[chosen_N], minlength=classes).tolist()
        for chosen_N in (np.ones(len(labels_N), bool), lost_N, won_N)
    )
    return tuple(
        ClassAnswers(label, images[label], lost[label], won[label]) for label in range(classes) if images[label]
    )


def classes_with_loss(answers: Sequence[ClassAnswers], *, loss: float, chance: float = 0.05) -> list[ClassAnswers]:
    """The classes that have lost more recall than `loss`, a share; the worst first.

    With a probability of at most `chance`, any class is listed whose true loss is not above `loss`: the chance is
    divided by the number of classes (Bonferroni).
    """
    allowed = chance / max(1, len(answers))
    found = [(chance_of_loss(one.lost, one.won, one.images, loss=loss), one) for one in answers]
    listed = sorted((pair for pair in found if pair[0] <= allowed), key=lambda pair: pair[0])
    return [one for _, one in listed]
