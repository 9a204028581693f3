"""Calibration: whether probabilities tell how often predictions are right. Pure NumPy. Shapes: N images, K classes.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017: the expected
calibration error (ECE) with 15 bins of equal width, and temperature scaling. A temperature changes no prediction.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from .result import Calibration, ConfidenceBin

BINS = 15
LOWEST, HIGHEST = 0.05, 20.0
"""The range of fitted temperatures. Where every prediction is right, no temperature is low enough."""
PRECISE = 1e-7
CHUNK = 1 << 22
"""Logits that are converted to float64 at a time."""


@dataclass(frozen=True)
class Scores:
    """What the probabilities of a model say about each image."""

    predictions_N: NDArray[np.int64]
    confidences_N: NDArray[np.float64]
    """Probability of the prediction."""
    label_log_N: NDArray[np.float64]
    """Logarithm of the label's probability."""

    @property
    def label_probabilities_N(self) -> NDArray[np.float64]:
        """Probability of the label."""
        return np.exp(self.label_log_N)


def scores_of(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64], *, temperature: float = 1.0) -> Scores:
    """The predictions with their probabilities: the softmax of the logits divided by `temperature`, in float64."""
    predictions_N = logits_NK.argmax(axis=1).astype(np.int64)
    confidences_N, label_log_N = np.empty(len(labels_N)), np.empty(len(labels_N))
    for part in parts_of(logits_NK):
        scaled_BK = logits_NK[part].astype(np.float64) / temperature
        scaled_BK -= scaled_BK.max(axis=1, keepdims=True)
        total_B = np.exp(scaled_BK).sum(axis=1)
        confidences_N[part] = 1 / total_B
        label_log_N[part] = scaled_BK[np.arange(len(scaled_BK)), labels_N[part]] - np.log(total_B)
    return Scores(predictions_N, confidences_N, label_log_N)


def calibration_of(
    logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64], *, temperature: float = 1.0, bins: int = BINS
) -> Calibration:
    """ECE with its bins, and the negative log-likelihood, with the logits divided by `temperature`.

    Bin k holds the images whose confidence is above k / bins and at most (k + 1) / bins.
    """
    scores = scores_of(logits_NK, labels_N, temperature=temperature)
    right_N = scores.predictions_N == labels_N
    bin_N = np.clip(np.ceil(scores.confidences_N * bins).astype(np.int64) - 1, 0, bins - 1)
    images_M = np.bincount(bin_N, minlength=bins)
    right_M = np.bincount(bin_N[right_N], minlength=bins)
    confidence_M = np.bincount(bin_N, weights=scores.confidences_N, minlength=bins)
    rows = zip(images_M.tolist(), right_M.tolist(), confidence_M.tolist(), strict=True)
    return Calibration(
        temperature=temperature,
        ece=float(np.abs(right_M - confidence_M).sum() / len(labels_N)),
        loss=float(-scores.label_log_N.mean()),
        confidence=float(scores.confidences_N.mean()),
        bins=tuple(
            ConfidenceBin(k / bins, (k + 1) / bins, images, right, total / images if images else None)
            for k, (images, right, total) in enumerate(rows)
        ),
    )


def fit_temperature(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> float:
    """The temperature with the least negative log-likelihood of these labels, between LOWEST and HIGHEST.

    The likelihood is a concave function of 1 / temperature, so bisection of its slope finds the only maximum. Fit it on
    images that neither the training nor the score uses. Raises DataError without images.
    """
    if not len(labels_N):
        raise DataError("no images to fit a temperature on; expected one at least")
    low, high = 1 / HIGHEST, 1 / LOWEST
    if _slope(logits_NK, labels_N, low) >= 0:
        return HIGHEST
    if _slope(logits_NK, labels_N, high) <= 0:
        return LOWEST
    while high - low > PRECISE * low:
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(logits_NK, labels_N, middle) < 0 else (low, middle)
    return 2 / (low + high)


def _slope(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64], inverse: float) -> float:
    """The derivative of the summed negative log-likelihood by the inverse temperature."""
    total = 0.0
    for part in parts_of(logits_NK):
        logits_BK = logits_NK[part].astype(np.float64)
        logits_BK -= logits_BK.max(axis=1, keepdims=True)
        weights_BK = np.exp(logits_BK * inverse)
        mean_B = (weights_BK * logits_BK).sum(axis=1) / weights_BK.sum(axis=1)
        total += float((mean_B - logits_BK[np.arange(len(logits_BK)), labels_N[part]]).sum())
    return total


def parts_of(logits_NK: NDArray[np.float32]) -> list[slice]:
    """Parts of at most CHUNK logits."""
    step = max(1, CHUNK // max(1, logits_NK.shape[1]))
    return [slice(start, start + step) for start in range(0, len(logits_NK), step)]
