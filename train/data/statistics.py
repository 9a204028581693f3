"""Statistics of the training images for preprocessing: means, deviations, the mean image, the whitening matrix."""

import numpy as np
import torch
from numpy.typing import NDArray

from ...core.card import MAX_WHITENED_VALUES, Preprocessing
from ...core.data.datasets import Split
from ...core.errors import UsageError
from ...core.models.normalise import Normalise
from ..recipes import Recipe
from .preprocessing import IMAGENET_DEVIATION, IMAGENET_MEAN, find_preprocess

ZCA_EPSILON = 1e-6
"""Added to every variance before its square root becomes a divisor; in (pixel / 255) squared; Keras' default."""
CHUNK = 4_096

Doubles = NDArray[np.float64]


def preprocessing_of(recipe: Recipe, split: Split) -> Preprocessing:
    """The recipe's preprocessing for these images, as on the card. Raises UsageError if it does not suit them."""
    row = find_preprocess(recipe.preprocess)
    height, width, channels = split.image_shape
    into = 3 if recipe.rgb and channels == 1 else channels
    if row.whitening and height * width * channels > MAX_WHITENED_VALUES:
        raise UsageError(
            f"--preprocess {row.name}: images of {height} x {width} x {channels} have {height * width * channels:,} "
            f"values, expected at most {MAX_WHITENED_VALUES:,}"
        )
    if row.whitening and into != channels:
        raise UsageError(f"--preprocess {row.name}: not possible with --rgb on grey images; add --no-rgb")
    if "imagenet" in (row.mean, row.deviation) and into != 3:
        raise UsageError(f"--preprocess {row.name}: the images are grey; add --rgb, which repeats them to 3 channels")
    learned = {"channel", "pixel"} & {row.mean, row.deviation}  # only then are all images read
    mean, deviation = split.statistics() if learned else ((), ())
    nothing, one = (0.0,) * channels, (1.0,) * channels
    means = {"none": nothing, "channel": mean, "pixel": mean, "imagenet": IMAGENET_MEAN}
    deviations = {"none": one, "channel": deviation, "imagenet": IMAGENET_DEVIATION}
    return Preprocessing(
        mean=repeated(means[row.mean], into),
        deviation=repeated(deviations[row.deviation], into),
        per_pixel=row.mean == "pixel",
        image_mean=row.image_mean,
        image_deviation=row.image_deviation,
        whitening=row.whitening,
        resize=(recipe.resize, recipe.resize) if recipe.resize else None,
    )


def repeated(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value per channel, from one value per channel or from a single value."""
    return values * (channels // len(values))


def learn_maps(normalise: Normalise, preprocessing: Preprocessing, split: Split) -> None:
    """Set the mean image and the whitening matrix, which the card does not hold, from these images."""
    if not preprocessing.per_pixel:
        return
    sum_HWC = np.zeros(split.image_shape)
    for images_BHWC in split.parts():
        sum_HWC += images_BHWC.sum(axis=0, dtype=np.float64)  # exact: sums of integers
    mean_CHW = (sum_HWC / len(split) / 255).transpose(2, 0, 1)
    normalise.mean.copy_(torch.from_numpy(mean_CHW))
    if preprocessing.whitening:
        normalise.whitening.copy_(torch.from_numpy(whitening_matrix(split, mean_CHW)))


def whitening_matrix(split: Split, mean_CHW: Doubles) -> Doubles:
    """The symmetric matrix, CHW x CHW, that makes the values of centred images uncorrelated with variance one."""
    covariance = np.zeros((mean_CHW.size, mean_CHW.size))
    for start in range(0, len(split), CHUNK):
        images_NCHW = split.part(slice(start, start + CHUNK)).transpose(0, 3, 1, 2) / 255 - mean_CHW
        flat = images_NCHW.reshape(len(images_NCHW), -1)
        covariance += flat.T @ flat
    variances, directions = np.linalg.eigh(covariance / len(split))
    whitened: Doubles = directions / np.sqrt(np.maximum(variances, 0) + ZCA_EPSILON) @ directions.T
    return whitened
