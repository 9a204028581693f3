"""The figures of an evaluation, from logits and labels. Pure NumPy. Shapes: N images, K classes."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..parity.paired_interval import Z
from .result import Averages, ClassFigures, ConfusedPair, Interval

TOP = 5
PAIRS = 10
"""Confused pairs that are listed."""


def wilson_interval(right: int, images: int) -> Interval:
    """The two-sided 95 % score interval of a share.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927), 209-212. It stays within 0 and 1, and is valid for few images.
    """
    assert 0 <= right <= images > 0
    middle = (right + Z * Z / 2) / (images + Z * Z)
    half = Z / (images + Z * Z) * math.sqrt(right * (images - right) / images + Z * Z / 4)
    low = middle - half if right else 0.0
    return Interval(low, middle + half if right < images else 1.0)


def ranks_of(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many classes have a higher logit than the label; of equal logits, that of the first class is higher."""
    own_N1 = np.take_along_axis(logits_NK, labels_N[:, None], axis=1)
    before_NK = np.arange(logits_NK.shape[1]) < labels_N[:, None]
    return ((logits_NK > own_N1) | ((logits_NK == own_N1) & before_NK)).sum(axis=1)


def top_correct(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64], top: int = TOP) -> int:
    """The number of images whose label is among the `top` most probable classes."""
    return int((ranks_of(logits_NK, labels_N) < top).sum())


def confusion_of(labels_N: NDArray[np.int64], predictions_N: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts, K x K: a row for each label, a column for each prediction."""
    counts = np.bincount(labels_N * classes + predictions_N, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def class_figures(confusion_KK: NDArray[np.int64], names: Sequence[str]) -> tuple[ClassFigures, ...]:
    """Precision, recall, F1 and support of each class. As scikit-learn's with zero_division=nan, where nan is None."""
    rows = zip(
        names,
        confusion_KK.sum(axis=1).tolist(),
        confusion_KK.sum(axis=0).tolist(),
        confusion_KK.diagonal().tolist(),
        strict=True,
    )
    return tuple(
        ClassFigures(
            name=name,
            support=support,
            predicted=predicted,
            right=right,
            precision=right / predicted if predicted else None,
            recall=right / support if support else None,
            f1=2 * right / (support + predicted) if support + predicted else None,
        )
        for name, support, predicted, right in rows
    )


def macro_average(classes: Sequence[ClassFigures]) -> Averages:
    """The means over the classes; each counts the same. The mean recall is the balanced accuracy."""
    return _averages(classes, [1] * len(classes))


def weighted_average(classes: Sequence[ClassFigures]) -> Averages:
    """The means over the classes, weighted by their support."""
    return _averages(classes, [one.support for one in classes])


def _averages(classes: Sequence[ClassFigures], weights: Sequence[int]) -> Averages:
    def mean(values: Sequence[float | None]) -> float | None:
        defined = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
        total = sum(weight for _, weight in defined)
        return sum(value * weight for value, weight in defined) / total if total else None

    return Averages(
        mean([one.precision for one in classes]),
        mean([one.recall for one in classes]),
        mean([one.f1 for one in classes]),
    )


def confused_pairs(confusion_KK: NDArray[np.int64], count: int = PAIRS) -> tuple[ConfusedPair, ...]:
    """The most frequent pairs of a label and a wrong prediction, the most frequent first."""
    wrong_KK = confusion_KK.copy()
    np.fill_diagonal(wrong_KK, 0)
    order = np.argsort(-wrong_KK, axis=None, kind="stable")[:count]
    labels, predictions = np.unravel_index(order, wrong_KK.shape)
    pairs = zip(labels.tolist(), predictions.tolist(), wrong_KK[labels, predictions].tolist(), strict=True)
    return tuple(ConfusedPair(label, prediction, images) for label, prediction, images in pairs if images)
