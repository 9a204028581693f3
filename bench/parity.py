"""Parity: how a candidate's answers differ from the reference's on the same labelled images, image by image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.datasets import Split
from ..core.errors import DataError
from ..infer.backend import Backend

BATCH = 250


@dataclass(frozen=True)
class Parity:
    """Counts over all images; nothing is rounded."""

    candidate: str
    images: int
    reference_correct: int
    candidate_correct: int
    agreeing: int
    """Images that both answer alike, rightly or wrongly."""
    lost: int
    """Right in the reference, wrong in the candidate."""
    won: int
    """Wrong in the reference, right in the candidate."""
    largest_difference: float
    """Of any logit, absolute."""
    mean_difference: float
    not_finite: int
    """Images with a NaN or infinite logit in the candidate."""

    @property
    def same_answers(self) -> bool:
        """Whether every image gets the same, finite answer from both."""
        return self.agreeing == self.images and self.not_finite == 0


def all_logits(
    backend: Backend, images_NHWC: NDArray[np.uint8], *, advance: Callable[[int], None] = lambda count: None
) -> NDArray[np.float32]:
    """The backend's logits N x K of all images, in batches of 250 or as many as it takes."""
    batch = min(BATCH, backend.max_batch or BATCH)
    parts = []
    for logits_BK in backend.stream(images_NHWC[start : start + batch] for start in range(0, len(images_NHWC), batch)):
        parts.append(logits_BK)
        advance(len(logits_BK))
    logits_NK = np.concatenate(parts)
    if len(logits_NK) != len(images_NHWC):
        raise DataError(f"{backend.name}: {len(logits_NK):,} answers to {len(images_NHWC):,} images")
    return logits_NK


def compare(
    candidate: str,
    reference_NK: NDArray[np.float32],
    candidate_NK: NDArray[np.float32],
    labels_N: NDArray[np.int64],
) -> Parity:
    """Compare two backends' logits on the same labelled images."""
    assert reference_NK.shape == candidate_NK.shape
    finite_N = np.isfinite(candidate_NK).all(axis=1)
    reference_N, candidate_N = reference_NK.argmax(axis=1), candidate_NK.argmax(axis=1)
    reference_right_N, candidate_right_N = reference_N == labels_N, (candidate_N == labels_N) & finite_N
    with np.errstate(invalid="ignore"):
        difference_NK = np.abs(candidate_NK.astype(np.float64) - reference_NK)
    return Parity(
        candidate=candidate,
        images=len(labels_N),
        reference_correct=int(reference_right_N.sum()),
        candidate_correct=int(candidate_right_N.sum()),
        agreeing=int(((reference_N == candidate_N) & finite_N).sum()),
        lost=int((reference_right_N & ~candidate_right_N).sum()),
        won=int((~reference_right_N & candidate_right_N).sum()),
        largest_difference=float(difference_NK[finite_N].max(initial=0)),
        mean_difference=float(difference_NK[finite_N].mean()) if finite_N.any() else float("nan"),
        not_finite=int((~finite_N).sum()),
    )


def labelled_as(classes: tuple[str, ...], split: Split, dataset_classes: tuple[str, ...], *, name: str) -> None:
    """Raise DataError when the labels of a data set do not mean what the model's classes mean."""
    if classes != dataset_classes:
        first = next(
            (k for k, pair in enumerate(zip(classes, dataset_classes, strict=False)) if pair[0] != pair[1]), -1
        )
        found = dataset_classes[first] if first >= 0 else f"{len(dataset_classes)} classes"
        expected = classes[first] if first >= 0 else f"{len(classes)}"
        raise DataError(f"{name}: its classes are not the model's: found {found!r}, expected {expected!r}")
    if split.labels_N.min() < 0 or split.labels_N.max() >= len(classes):
        raise DataError(f"{name}: label {split.labels_N.max()} found, expected 0 to {len(classes) - 1}")
