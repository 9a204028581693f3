"""How far a fitted temperature can be trusted. Pure NumPy. Shapes: N images, K classes."""

import math

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from .calibration import HIGHEST, LOWEST, fit_temperature, parts_of


def bounded_temperature(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64], *, name: str) -> float:
    """Fit a temperature. Raises DataError, with the `name` of the images, if these images determine none."""
    if len(np.unique(labels_N)) < 2:
        raise DataError(f"{name}: all {len(labels_N):,} images have one label; expected images of several classes")
    temperature = fit_temperature(logits_NK, labels_N)
    right, images = int((logits_NK.argmax(axis=1) == labels_N).sum()), len(labels_N)
    if temperature <= LOWEST:
        raise DataError(
            f"{name}: {right:,} of {images:,} images are predicted right, and no temperature down to {LOWEST:g} is low "
            "enough for them; expected more wrong predictions: use more images, or harder ones"
        )
    if temperature >= HIGHEST:
        raise DataError(
            f"{name}: {right:,} of {images:,} images are predicted right, and no temperature up to {HIGHEST:g} is high "
            "enough for them; expected a model that knows these classes: check the labels"
        )
    return temperature


def standard_error(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64], *, temperature: float) -> float:
    """The standard error of a temperature that was fitted on these images; infinite if they do not determine it.

    By the sandwich estimator of a maximum likelihood estimate, for 1 / temperature, and the delta method: P. J. Huber,
    "The behavior of maximum likelihood estimates under nonstandard conditions", Berkeley Symposium 1967.
    """
    squared_slopes = curvature = 0.0
    for part in parts_of(logits_NK):
        labels_B = labels_N[part]
        logits_BK = logits_NK[part].astype(np.float64)
        logits_BK -= logits_BK.max(axis=1, keepdims=True)
        weights_BK = np.exp(logits_BK / temperature)
        weights_BK /= weights_BK.sum(axis=1, keepdims=True)
        mean_B = (weights_BK * logits_BK).sum(axis=1)
        squared_slopes += float(((mean_B - logits_BK[np.arange(len(labels_B)), labels_B]) ** 2).sum())
        curvature += float((weights_BK * (logits_BK - mean_B[:, None]) ** 2).sum())
    return temperature**2 * math.sqrt(squared_slopes) / curvature if curvature else math.inf
