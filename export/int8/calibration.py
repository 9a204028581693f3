"""Calibration images for int8: drawn at random from the training split, balanced over the classes, and checked.

A class with too few images gives what it has, and classes with more give the rest; a warning says so.

The images must not come from the test split, because parity is measured there. They must not be random noise: noise has
another spectrum than pictures, so its ranges fit no activation.
Shapes: N images, H rows, W columns, C channels.
"""

import hashlib
import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.card import ModelCard
from ...core.data.datasets import Dataset, Split
from ...core.errors import DataError
from ...core.text import wrapped
from ..config import ENOUGH_CALIBRATION_IMAGES, FEWEST_CALIBRATION_IMAGES, Int8Config

_log = logging.getLogger(__name__)

LARGEST_ROUGHNESS = 0.6
"""Limit of `roughness_of`, which is 1 for white noise and under 0.3 for pictures."""
LARGEST_IMBALANCE = 1.2
"""Images of the most frequent class over those of the rarest class, above which a warning says so."""
HELD_OUT_SHARE = 5
"""One in so many images of a small set is held out."""


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
    """Draw images balanced over the classes as far as there are images, without those that are also in the test split.

    `images` are for the ranges, `held_out` for the choice of the method. A warning, once per process, says if they are
    few or uneven. Raises DataError if the classes are not those of the card, if the training split has fewer than
    FEWEST_CALIBRATION_IMAGES usable images, or if `check_images` refuses the images.
    """
    if dataset.classes != card.classes:
        raise DataError(
            f"{dataset.name}: its classes are not the model's: "
            f"found {', '.join(dataset.classes)}, expected {', '.join(card.classes)}"
        )
    train, test = dataset.split("train"), dataset.scored()
    test_hashes = set(content_hashes(test.images_NHWC))
    usable_N = np.array([one not in test_hashes for one in content_hashes(train.images_NHWC)], bool)
    if usable_N.sum() < FEWEST_CALIBRATION_IMAGES:
        leaked = len(train) - int(usable_N.sum())
        without = f" that are not in the test split too (found {len(train)}, of which {leaked} are)" if leaked else ""
        raise DataError(
            f"{dataset.name}: {usable_N.sum()} training images{without}, expected at least "
            f"{FEWEST_CALIBRATION_IMAGES} to calibrate int8; add images, or use --precision fp16"
        )
    random, classes = np.random.default_rng(seed), len(card.classes)
    indices = [random.permutation(np.flatnonzero((train.labels_N == label) & usable_N)) for label in range(classes)]
    shares = shares_of([len(index) for index in indices], images)
    drawn_indices = [index[:share] for index, share in zip(indices, shares, strict=True)]
    held_indices = [
        index[share : share + max(1, held_out // classes)] for index, share in zip(indices, shares, strict=True)
    ]
    drawn = train.take(np.sort(np.concatenate(drawn_indices)))
    check_images(drawn, card, test=test, name=dataset.name)
    held = train.take(np.sort(np.concatenate(held_indices)))
    _warn_of_few(shares, card, name=dataset.name)
    return Calibration(drawn.images_NHWC, held.images_NHWC, dataset.name, seed)


def shares_of(available: list[int], images: int) -> list[int]:
    """Return how many images of each class are for the ranges: equally many, and at least one of each.

    If a class has too few, a fifth of all images stays held out, and the classes that have more give the rest.
    """
    classes = len(available)
    equal = [max(1, (images + classes - 1 - label) // classes) for label in range(classes)]
    if all(share <= count - max(1, count // HELD_OUT_SHARE) for share, count in zip(equal, available, strict=True)):
        return equal
    room_K = np.array([count - count // HELD_OUT_SHARE for count in available])
    for _ in range(int(room_K.sum()) - (sum(available) - sum(available) // HELD_OUT_SHARE)):
        room_K[room_K.argmax()] -= 1  # the largest classes give what tiny classes cannot
    share_K = np.minimum(room_K, 1)
    for _ in range(min(images, int(room_K.sum())) - int(share_K.sum())):
        share_K[np.where(share_K < room_K, share_K, np.iinfo(np.int64).max).argmin()] += 1
    return [int(share) for share in share_K]


_warned: set[str] = set()
"""Warnings of this process: a benchmark draws the same images once for each kind of int8 graph."""


def _warn_of_few(shares: list[int], card: ModelCard, *, name: str) -> None:
    """Log what to expect if the images are few or uneven."""
    total, rarest, most = sum(shares), int(np.argmin(shares)), int(np.argmax(shares))
    found = []
    if total < ENOUGH_CALIBRATION_IMAGES:
        found.append(f"only {total} calibration images, {ENOUGH_CALIBRATION_IMAGES} or more are better")
    if shares[most] > max(LARGEST_IMBALANCE * shares[rarest], shares[rarest] + 1):
        found.append(
            f"uneven calibration images, {shares[rarest]} of {card.classes[rarest]!r} and {shares[most]} of "
            f"{card.classes[most]!r}"
        )
    text = (
        f"{name}: {'; '.join(found)}: the int8 ranges are less certain, and more answers may change; "
        "--require-parity measures it on the test split"
    )
    if found and text not in _warned:
        _warned.add(text)
        _log.warning(wrapped(text))


def check_images(calibration: Split, card: ModelCard, *, test: Split, name: str) -> None:
    """Raise DataError for a wrong size or label, and if images are noise or in the test split."""
    if calibration.images_NHWC.shape[1:] != card.input.shape:
        raise DataError(
            f"{name}: calibration images {calibration.images_NHWC.shape[1:]}, expected {card.input.shape} (H, W, C)"
        )
    classes = len(card.classes)
    if calibration.labels_N.min() < 0 or calibration.labels_N.max() >= classes:
        raise DataError(f"{name}: label {calibration.labels_N.max()} found, expected 0 to {classes - 1}")
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
