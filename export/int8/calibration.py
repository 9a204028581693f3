"""Which images int8 ranges are measured on: drawn from the training split by a seed, evenly over the classes, guarded.

An image of the test split among them would make the parity that is measured there worth less; random noise has another
spectrum than pictures, so that its ranges fit no activation. Shapes: N images, H rows, W columns, C channels.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.card import ModelCard
from ...core.data.datasets import Dataset, Split
from ...core.errors import DataError

FEWEST = 500
NOISE = 0.6
"""Mean squared step between neighbouring pixels over twice the variance: 1 in white noise, under 0.3 in pictures."""
UNEVEN = 1.2
"""The most frequent class may have so many times the images of the rarest."""


@dataclass(frozen=True)
class Calibration:
    """Images to measure ranges on, and others to choose the method by; all of the training split."""

    images_NHWC: NDArray[np.uint8]
    held_out_NHWC: NDArray[np.uint8]
    dataset: str
    seed: int

    def note(self) -> dict[str, object]:
        """What the card tells of them."""
        return {
            "dataset": f"{self.dataset}, training split",
            "images": len(self.images_NHWC),
            "held_out": len(self.held_out_NHWC),
            "seed": self.seed,
            "sha256": hashlib.sha256("".join(content_hashes(self.images_NHWC)).encode()).hexdigest(),
        }


def draw_calibration(
    dataset: Dataset, card: ModelCard, *, images: int = 1_000, held_out: int = 1_000, seed: int = 0
) -> Calibration:
    """Draw images evenly over the classes, none of them also in the test split, and guard them.

    Raises DataError when the classes are not the card's, or there are too few, uneven, noisy or foreign images.
    """
    if dataset.classes != card.classes:
        raise DataError(
            f"{dataset.name}: its classes are not the model's: "
            f"found {', '.join(dataset.classes)}, expected {', '.join(card.classes)}"
        )
    train, test = dataset.split("train"), dataset.split("test")
    seen = set(content_hashes(test.images_NHWC))
    fresh_N = np.array([one not in seen for one in content_hashes(train.images_NHWC)], bool)
    random, classes = np.random.default_rng(seed), len(card.classes)
    for_ranges, for_choice = [], []
    for label in range(classes):
        index = random.permutation(np.flatnonzero((train.labels_N == label) & fresh_N))
        share = (images + classes - 1 - label) // classes
        share = min(share, len(index) - max(1, len(index) // 5))  # of few images some are left to choose by
        for_ranges.append(index[:share])
        for_choice.append(index[share : share + max(1, held_out // classes)])
    drawn = train.take(np.sort(np.concatenate(for_ranges)))
    guard(drawn, card, test=test, name=dataset.name)
    chosen = train.take(np.sort(np.concatenate(for_choice)))
    return Calibration(drawn.images_NHWC, chosen.images_NHWC, dataset.name, seed)


def guard(calibration: Split, card: ModelCard, *, test: Split, name: str) -> None:
    """Raise DataError when these images are not fit for calibration."""
    if calibration.images_NHWC.shape[1:] != card.input.shape:
        raise DataError(
            f"{name}: calibration images {calibration.images_NHWC.shape[1:]}, expected {card.input.shape} (H, W, C)"
        )
    if len(calibration) < FEWEST:
        raise DataError(f"{name}: {len(calibration)} calibration images, expected at least {FEWEST}")
    classes = len(card.classes)
    if calibration.labels_N.min() < 0 or calibration.labels_N.max() >= classes:
        raise DataError(f"{name}: label {calibration.labels_N.max()} found, expected 0 to {classes - 1}")
    counts = np.bincount(calibration.labels_N, minlength=classes)
    if counts.max() > UNEVEN * counts.min():
        rare, frequent = card.classes[int(counts.argmin())], card.classes[int(counts.argmax())]
        raise DataError(
            f"{name}: calibration images are not balanced: {counts.min()} of {rare!r}, {counts.max()} of {frequent!r}"
        )
    foreign = set(content_hashes(test.images_NHWC))
    leaked = [index for index, one in enumerate(content_hashes(calibration.images_NHWC)) if one in foreign]
    if leaked:
        raise DataError(
            f"{name}: {len(leaked)} calibration images are in the test split too, the first at {leaked[0]}; "
            "calibrate with images of the training split"
        )
    roughness = float(np.median(roughness_of(calibration.images_NHWC)))
    if roughness > NOISE:
        raise DataError(
            f"{name}: the calibration images are random noise (roughness {roughness:.2f}, pictures stay under {NOISE})"
        )


def content_hashes(images_NHWC: NDArray[np.uint8]) -> list[str]:
    """The SHA-256 of every image's pixels."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images_NHWC]


def roughness_of(images_NHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """For every image the mean squared step to the right over twice the variance; 0 for a flat one."""
    values_NHWC = images_NHWC.astype(np.float64)
    step_N = (np.diff(values_NHWC, axis=2) ** 2).mean(axis=(1, 2, 3))
    variance_N = values_NHWC.var(axis=(1, 2)).mean(axis=1)
    return np.divide(step_N, 2 * variance_N, out=np.zeros_like(step_N), where=variance_N > 0)
