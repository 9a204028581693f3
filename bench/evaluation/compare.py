"""Two models on the same images: what changed from the first to the second, image by image."""

import numpy as np
from numpy.typing import NDArray

from ...core.data.datasets import Split
from ...core.errors import DataError
from ..parity.paired_interval import lower_loss, upper_loss
from ..pictures import picture_of
from .answers import Answers
from .calibration import scores_of
from .result import ChangedImage, ClassChange, Comparison, Evaluation, Interval

SHOWN = 24
"""Images of each outcome in the gallery."""


def check_comparable(first: tuple[str, ...], second: tuple[str, ...], *, names: tuple[str, str]) -> None:
    """Raise DataError unless two models have the same classes in the same order. `names`: what to call the models."""
    if first == second:
        return
    if set(first) == set(second):
        raise DataError(f"{names[1]}: has the classes of {names[0]} in another order; expected the same order")
    only = [[name for name in one if name not in other] for one, other in ((first, second), (second, first))]
    parts = [f"only {name} has {classes[0]!r}" for name, classes in zip(names, only, strict=True) if classes]
    counts = f"{len(first):,} and {len(second):,} classes"
    raise DataError(f"{names[0]} and {names[1]} have other classes ({counts}; {', '.join(parts)}); expected the same")


def comparison_of(
    first: Evaluation, first_answers: Answers, second: Evaluation, second_answers: Answers, split: Split
) -> Comparison:
    """What changed from the first to the second model. `split`: the images, for pictures.

    Raises DataError unless both answered the same labelled images.
    """
    labels_N = first_answers.labels_N
    if list(first_answers.names) != list(second_answers.names) or not np.array_equal(labels_N, second_answers.labels_N):
        raise DataError(
            f"{first.card.name} and {second.card.name} read other images of {first.data.name}: "
            f"{first.images:,} and {second.images:,}; expected the same; remove the unreadable ones"
        )
    one = scores_of(first_answers.logits_NK, labels_N, temperature=first.card.temperature)
    other = scores_of(second_answers.logits_NK, labels_N, temperature=second.card.temperature)
    first_right_N, second_right_N = one.predictions_N == labels_N, other.predictions_N == labels_N
    lost_N, won_N = first_right_N & ~second_right_N, ~first_right_N & second_right_N
    both_wrong_N = ~first_right_N & ~second_right_N
    changed_N = one.predictions_N != other.predictions_N
    images, lost, won = len(labels_N), int(lost_N.sum()), int(won_N.sum())
    # In each group, the most confident wrong answer first.
    wrong_confidence_N = np.where(
        lost_N,
        other.confidences_N,
        np.where(won_N, one.confidences_N, np.maximum(one.confidences_N, other.confidences_N)),
    )
    order_N = np.argsort(-wrong_confidence_N, kind="stable")
    shown = [
        index
        for group_N in (lost_N, won_N, both_wrong_N & changed_N)
        for index in order_N[group_N[order_N]][:SHOWN].tolist()
    ]
    classes = len(first.card.classes)

    def count(chosen_N: NDArray[np.bool_]) -> list[int]:
        return np.bincount(labels_N[chosen_N], minlength=classes).tolist()

    counts = zip(
        first.card.classes,
        count(np.ones(images, bool)),
        *map(count, (first_right_N, second_right_N, lost_N, won_N)),
        strict=True,
    )
    return Comparison(
        first=first,
        second=second,
        both_right=int((first_right_N & second_right_N).sum()),
        lost=lost,
        won=won,
        both_wrong=int(both_wrong_N.sum()),
        both_wrong_changed=int((both_wrong_N & changed_N).sum()),
        difference=Interval(-upper_loss(lost, won, images), -lower_loss(lost, won, images)),
        classes=tuple(ClassChange(*row) for row in counts),
        changed=tuple(
            ChangedImage(
                index=index,
                name=first_answers.name(index),
                label=int(labels_N[index]),
                first=int(one.predictions_N[index]),
                second=int(other.predictions_N[index]),
                first_confidence=float(one.confidences_N[index]),
                second_confidence=float(other.confidences_N[index]),
                picture=picture_of(split, index),
            )
            for index in shown
        ),
    )
