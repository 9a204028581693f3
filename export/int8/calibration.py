"""Calibration images for int8: drawn at random from the training split, balanced over the classes, and checked.

The images must not come from the test split, because parity is measured there. They must not be random noise: noise has
another spectrum than pictures, so its ranges fit no activation.
Shapes: N images, H rows, W columns, C channels.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.card import ModelCard
from ...core.data.datasets import Dataset, Split
from ...core.errors import DataError
from ..config import FEWEST_CALIBRATION_IMAGES, Int8Config

LARGEST_ROUGHNESS = 0.6
"""Limit of `roughness_of`, which is 1 for white noise and under 0.3 for pictures."""
LARGEST_IMBALANCE = 1.2
"""Limit of the images of the most frequent class over those of the rarest class."""


@dataclass(frozen=True)
class Calibration:
    """Images to measure ranges on, and held-out images to choose the method by; all from the training split."""

    images_NHWC: NDArray[np.uint8]
    held_out_NHWC: NDArray[np.uint8]
    dataset: str
    seed: int

    def note(self) -> dict[str, object]:
        """Return the calibration entry of the card's notes."""
        return {
            "dataset": f"{self.dataset}, training split",
            "images": len(self.images_NHWC),
            "held_out": len(self.held_out_NHWC),
            "seed": self.seed,
            "sha256": hashlib.sha256("".join(content_hashes(self.images_NHWC)).encode()).hexdigest(),
        }


def draw_calibration(
    dataset: Dataset,
    card: ModelCard,
    *,
    images: int = Int8Config.calibration_images,
    held_out: int = 1_000,
    seed: int = 0,
) -> Calibration:
    """Draw images balanced over the classes, without images that are also in the test split, and check them.

    `images` are for the ranges, `held_out` for the choice of the method.
    Raises DataError if the classes are not those of the card, or if `check_images` refuses the images.
    """
    if dataset.classes != card.classes:
        raise DataError(
            f"{dataset.name}: its classes are not the model's: "
            f"found {', '.join(dataset.classes)}, expected {', '.join(card.classes)}"
        )
    train, test = dataset.split("train"), dataset.split("test")
    test_hashes = set(content_hashes(test.images_NHWC))
    usable_N = np.array([one not in test_hashes for one in content_hashes(train.images_NHWC)], bool)
    random, classes = np.random.default_rng(seed), len(card.classes)
    drawn_indices, held_indices = [], []
    for label in range(classes):
        index = random.permutation(np.flatnonzero((train.labels_N == label) & usable_N))
        share = (images + classes - 1 - label) // classes
        kept = max(1, len(index) // 5)  # a small class keeps a fifth as held-out images
        share = min(max(1, share), len(index) - kept)
        drawn_indices.append(index[:share])
        held_indices.append(index[share : share + max(1, held_out // classes)])
    drawn = train.take(np.sort(np.concatenate(drawn_indices)))
    check_images(drawn, card, test=test, name=dataset.name)
    held = train.take(np.sort(np.concatenate(held_indices)))
    return Calibration(drawn.images_NHWC, held.images_NHWC, dataset.name, seed)


def check_images(calibration: Split, card: ModelCard, *, test: Split, name: str) -> None:
    """Raise DataError for a wrong size or label, and if images are too few, unbalanced, noise or in the test split."""
    if calibration.images_NHWC.shape[1:] != card.input.shape:
        raise DataError(
            f"{name}: calibration images {calibration.images_NHWC.shape[1:]}, expected {card.input.shape} (H, W, C)"
        )
    if len(calibration) < FEWEST_CALIBRATION_IMAGES:
        raise DataError(f"{name}: {len(calibration)} calibration images, expected at least {FEWEST_CALIBRATION_IMAGES}")
    classes = len(card.classes)
    if calibration.labels_N.min() < 0 or calibration.labels_N.max() >= classes:
        raise DataError(f"{name}: label {calibration.labels_N.max()} found, expected 0 to {classes - 1}")
    counts = np.bincount(calibration.labels_N, minlength=classes)
    if counts.max() > max(LARGEST_IMBALANCE * counts.min(), counts.min() + 1):
        rare, frequent = card.classes[int(counts.argmin())], card.classes[int(counts.argmax())]
        raise DataError(
            f"{name}: calibration images are not balanced: {counts.min()} of {rare!r}, {counts.max()} of {frequent!r}"
        )
    test_hashes = set(content_hashes(test.images_NHWC))
    leaked = [index for index, one in enumerate(content_hashes(calibration.images_NHWC)) if one in test_hashes]
    if leaked:
        raise DataError(
            f"{name}: {len(leaked)} calibration images are also in the test split, the first at index {leaked[0]}; "
            "calibrate with images of the training split"
        )
    roughness = float(np.median(roughness_of(calibration.images_NHWC)))
    if roughness > LARGEST_ROUGHNESS:
        raise DataError(
            f"{name}: the calibration images are random noise (roughness {roughness:.2f}, expected at most "
            f"{LARGEST_ROUGHNESS})"
        )


def content_hashes(images_NHWC: NDArray[np.uint8]) -> list[str]:
    """Return the SHA-256 of the pixels of each image."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images_NHWC]


def roughness_of(images_NHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return for each image the mean squared difference of horizontal neighbours over twice the variance.

    It is 0 for an image of one colour.
    """
    values_NHWC = images_NHWC.astype(np.float64)
    step_N = (np.diff(values_NHWC, axis=2) ** 2).mean(axis=(1, 2, 3))
    variance_N = values_NHWC.var(axis=(1, 2)).mean(axis=1)
    return np.divide(step_N, 2 * variance_N, out=np.zeros_like(step_N), where=variance_N > 0)
