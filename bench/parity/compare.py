"""Parity: how a candidate's answers differ from the reference's on the same labelled images.

Shapes: N images, K classes.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.data.datasets import Split
from ...core.errors import BackendError, DataError
from ...core.tolerances import largest_share
from ...infer.backend import Backend
from .systematic import ClassAnswers, answers_by_class, class_shifts, slope_of
from .trials import BATCH, Trial

ROUNDING_IMAGES = 64
WORST = 20
"""Number of images that are listed."""


@dataclass(frozen=True)
class Changed:
    """Images that the reference answers with one class and the candidate with another."""

    reference: int
    candidate: int
    images: int


@dataclass(frozen=True)
class WorstImage:
    """One of the images that the candidate answers worst."""

    index: int
    """Index in the split, from 0."""
    label: int
    reference: int
    """The reference's answer."""
    candidate: int | None
    """The candidate's answer; None if it is missing or a logit is not finite."""
    largest_difference: float
    """Largest absolute difference of its logits."""


@dataclass(frozen=True)
class Parity:
    """Counts over all images, not rounded. An image without an answer counts as wrong."""

    candidate: str
    images: int
    reference_correct: int
    candidate_correct: int
    agreeing: int
    """Images with the same answer from both, right or wrong."""
    lost: int
    """Right in the reference, wrong in the candidate."""
    won: int
    """Wrong in the reference, right in the candidate."""
    largest_difference: float
    """Largest absolute difference of any logit."""
    mean_difference: float
    not_finite: int
    """Images with a NaN or infinite logit in the candidate."""
    answered: int
    """Rows of logits from the candidate; a number other than `images` is an error of the program that ran it."""
    largest_share: float
    """Largest difference of any logit, in standard deviations; see core/tolerances.py."""
    relative_error: float
    """Relative RMS error: root mean square of the differences, divided by `spread`."""
    largest_logit: float
    """Largest absolute logit of the reference."""
    spread: float
    """Standard deviation of the reference's logits."""
    divergence: float
    """Mean Kullback-Leibler divergence of the candidate's probabilities from the reference's, in nats."""
    confusion: tuple[Changed, ...]
    """Changed answers by class, the most frequent first."""
    worst: tuple[WorstImage, ...]
    """The twenty worst: no finite answer, then lost, then otherwise changed, then the largest differences."""
    rounding: float = 0.0
    """Largest difference of the reference's logits from its logits in fp64, on a few images; 0 if not measured."""
    class_shifts: tuple[float, ...] = ()
    """Mean difference of each class's logit, with its sign; see systematic.py. Empty in reports of earlier versions."""
    slope: float = 1.0
    """Slope of its logits on the reference's."""
    classes: tuple[ClassAnswers, ...] = ()
    """Lost and won answers of each class."""
    explained_changes: float = 0.0
    """The share of answers that random errors of the same RMS would change; a network that is often unsure has more."""
    expected_error: float = 0.0
    """The relative RMS error that the precision's `yardstick` alone causes in this network; 0: not measured."""
    trials: tuple[Trial, ...] = ()
    """Its answers in other batch sizes, to the same images again, and to images off the test split."""
    card_differences: tuple[str, ...] = ()
    """What its card says otherwise than the reference's: classes, input, preprocessing."""

    @property
    def changed(self) -> int:
        """Images with another answer than the reference's, or without one."""
        return self.images - self.agreeing

    @property
    def same_answers(self) -> bool:
        """Whether every image gets the same, finite answer from both."""
        return self.agreeing == self.images == self.answered and self.not_finite == 0


def all_logits(
    backend: Backend, images_NHWC: NDArray[np.uint8], *, advance: Callable[[int], None] = lambda count: None
) -> NDArray[np.float32]:
    """The backend's logits of all images, in batches of 250 or of its largest size. `compare` checks their number."""
    batch = min(BATCH, backend.max_batch or BATCH)
    batches = (images_NHWC[start : start + batch] for start in range(0, len(images_NHWC), batch))
    return logits_of(backend, batches, advance=advance)


def logits_of(
    backend: Backend, batches: Iterable[NDArray[np.uint8]], *, advance: Callable[[int], None]
) -> NDArray[np.float32]:
    """The backend's logits of all batches, one after the other. Raises BackendError for another number of classes."""
    parts = [np.empty((0, len(backend.card.classes)), np.float32)]
    for logits_BK in backend.stream(batches):
        if logits_BK.shape[1:] != parts[0].shape[1:]:
            raise BackendError(
                f"{backend.name}: {logits_BK.shape[1]} logits per image, expected {parts[0].shape[1]}, as its card says"
            )
        parts.append(logits_BK)
        advance(len(logits_BK))
    return np.concatenate(parts)


def rounding_of(reference: Backend, images_NHWC: NDArray[np.uint8]) -> float:
    """Return how far the reference's logits are from those in fp64, on the first of these images: fp64 takes longer."""
    return reference.rounding(images_NHWC[:ROUNDING_IMAGES])


def compare(
    candidate: str,
    reference_NK: NDArray[np.float32],
    candidate_NK: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    *,
    rounding: float = 0.0,
    expected_error: float = 0.0,
    trials: tuple[Trial, ...] = (),
    card_differences: tuple[str, ...] = (),
) -> Parity:
    """Compare two backends' logits on the same labelled images.

    `rounding`: the result of `rounding_of` for the reference. The other options are fields of Parity.

    Raises DataError when the reference's logits are incomplete or not finite, or the numbers of classes differ.
    """
    images, answered = len(labels_N), len(candidate_NK)
    if reference_NK.shape[0] != images or not np.isfinite(reference_NK).all():
        raise DataError(f"the reference gave {len(reference_NK):,} answers, expected {images:,} with finite logits")
    if candidate_NK.shape[1:] != reference_NK.shape[1:]:
        raise DataError(f"{candidate}: {candidate_NK.shape[1]} logits per image, expected {reference_NK.shape[1]}")
    missing = np.full((max(0, images - answered), reference_NK.shape[1]), np.nan, np.float32)
    candidate_NK = np.concatenate([candidate_NK[:images], missing])
    finite_N = np.asarray(np.isfinite(candidate_NK).all(axis=1))
    reference_N, candidate_N = reference_NK.argmax(axis=1), candidate_NK.argmax(axis=1)
    reference_right_N, candidate_right_N = reference_N == labels_N, (candidate_N == labels_N) & finite_N
    same_N = (reference_N == candidate_N) & finite_N
    lost_N, won_N = reference_right_N & ~candidate_right_N, ~reference_right_N & candidate_right_N
    with np.errstate(invalid="ignore"):
        difference_NK = np.abs(candidate_NK.astype(np.float64) - reference_NK)
    spread = float(reference_NK.std(dtype=np.float64)) or 1.0
    finite_NK = difference_NK[finite_N]
    pairs = Counter(
        zip(reference_N[finite_N & ~same_N].tolist(), candidate_N[finite_N & ~same_N].tolist(), strict=True)
    )
    largest_N = np.where(finite_N, difference_NK.max(axis=1), np.inf)
    worst_first = np.lexsort((-largest_N, same_N, ~lost_N, finite_N))[:WORST]
    return Parity(
        candidate=candidate,
        images=images,
        reference_correct=int(reference_right_N.sum()),
        candidate_correct=int(candidate_right_N.sum()),
        agreeing=int(same_N.sum()),
        lost=int(lost_N.sum()),
        won=int(won_N.sum()),
        largest_difference=float(finite_NK.max(initial=0)),
        largest_share=largest_share(candidate_NK[finite_N], reference_NK[finite_N]),
        mean_difference=float(finite_NK.mean()) if finite_N.any() else float("nan"),
        not_finite=int((~finite_N[:answered]).sum()),
        answered=answered,
        relative_error=float(np.sqrt((finite_NK**2).mean())) / spread if finite_N.any() else float("nan"),
        largest_logit=float(np.abs(reference_NK).max(initial=0)),
        spread=spread,
        divergence=_divergence(reference_NK[finite_N], candidate_NK[finite_N]),
        confusion=tuple(Changed(was, now, count) for (was, now), count in pairs.most_common()),
        worst=tuple(
            WorstImage(
                index=int(i),
                label=int(labels_N[i]),
                reference=int(reference_N[i]),
                candidate=int(candidate_N[i]) if finite_N[i] else None,
                largest_difference=float(largest_N[i]),
            )
            for i in worst_first
        ),
        rounding=rounding,
        class_shifts=class_shifts(candidate_NK[finite_N], reference_NK[finite_N]),
        slope=slope_of(candidate_NK[finite_N], reference_NK[finite_N]),
        classes=answers_by_class(labels_N, lost_N, won_N, classes=reference_NK.shape[1]),
        explained_changes=_explained_changes(reference_NK, finite_NK),
        expected_error=expected_error,
        trials=trials,
        card_differences=card_differences,
    )


def _explained_changes(reference_NK: NDArray[np.float32], difference_NK: NDArray[np.float64]) -> float:
    """The share of images whose two largest logits would change places by normal errors of the same RMS."""
    if not difference_NK.size or reference_NK.shape[1] < 2:
        return 0.0
    error = float(np.sqrt((difference_NK**2).mean()))
    second_N, first_N = np.partition(reference_NK, -2, axis=1)[:, -2:].astype(np.float64).T
    deviations_N = (first_N - second_N) / max(math.sqrt(2) * error, 1e-30)  # of the difference of two such errors
    return float(np.mean([0.5 * math.erfc(one / math.sqrt(2)) for one in deviations_N.tolist()]))


def _divergence(reference_NK: NDArray[np.float32], candidate_NK: NDArray[np.float32]) -> float:
    """Mean over images of the sum of p log(p / q); p is the reference's softmax, q the candidate's."""
    if len(reference_NK) == 0:
        return float("nan")
    log_p, log_q = (_log_softmax(logits_NK) for logits_NK in (reference_NK, candidate_NK))
    return max(0.0, float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()))


def _log_softmax(logits_NK: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted_NK = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted_NK - np.log(np.exp(shifted_NK).sum(axis=1, keepdims=True))
    return result


def check_labels(classes: tuple[str, ...], split: Split, dataset_classes: tuple[str, ...], *, name: str) -> None:
    """Raise DataError when a data set's labels do not match the model's classes."""
    if classes != dataset_classes:
        first = next(
            (k for k, pair in enumerate(zip(classes, dataset_classes, strict=False)) if pair[0] != pair[1]), -1
        )
        found = dataset_classes[first] if first >= 0 else f"{len(dataset_classes)} classes"
        expected = classes[first] if first >= 0 else f"{len(classes)}"
        raise DataError(f"{name}: its classes are not the model's: found {found!r}, expected {expected!r}")
    outside = split.labels_N[(split.labels_N < 0) | (split.labels_N >= len(classes))]
    if len(outside):
        raise DataError(f"{name}: label {outside[0]} found, expected 0 to {len(classes) - 1}")
