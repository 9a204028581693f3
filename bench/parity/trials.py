"""Trials of a candidate beside the test split: other batch sizes, the same images twice, and images off the test split.

A graph can be right in batches of one size and wrong in others, it can answer by chance, and it can know the answers to
the test split and nothing else. Each trial is small, and is compared with the reference's logits, and where the
candidate has answered the same images before, with its own logits.

Shapes: N images, H rows, W columns, C channels, K classes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BackendError, noted
from ...core.tolerances import largest_share
from ...infer.backend import Backend

BATCH = 250
"""Batch size of the comparison on the whole test split."""
ALWAYS = (1, 13, 64)
"""Batch sizes that are tried with every candidate."""
TRIED_IMAGES = 256
"""Images of a trial, at least; enough for two batches if the test split has them."""
ALTERED_IMAGES = 500
"""Images that are not in the test split."""
LARGEST_MOVE = 3
"""Pixels by which an altered image is moved, at most."""
AGAIN, ALTERED = "asked again", "images off the test split"


@dataclass(frozen=True)
class Answered:
    """Images, and the reference's logits of them."""

    images_NHWC: NDArray[np.uint8]
    logits_NK: NDArray[np.float32]


@dataclass(frozen=True)
class Difference:
    """How far the logits of a trial are from others; core/tolerances.py defines the three figures."""

    largest: float
    relative_error: float
    """Relative to the spread of the whole test split, as the limits are."""
    largest_share: float

    @classmethod
    def between(cls, logits_NK: NDArray[np.float32], other_NK: NDArray[np.float32], *, spread: float) -> "Difference":
        """Compare logits that are all finite."""
        if not len(logits_NK):
            return cls(0.0, 0.0, 0.0)
        difference_NK = logits_NK.astype(np.float64) - other_NK
        relative = float(np.sqrt((difference_NK**2).mean())) / spread
        return cls(float(abs(difference_NK).max()), relative, largest_share(logits_NK, other_NK))


@dataclass(frozen=True)
class Trial:
    """One trial of a candidate."""

    name: str
    """For example: batches of 13."""
    images: int
    """Images that were asked; fewer than planned if a batch failed."""
    answered: int
    not_finite: int
    reference: Difference
    """From the reference's logits of the same images, where both are finite."""
    itself: Difference | None = None
    """From the candidate's logits of the same images in the whole test split; None if it has none."""
    error: str = ""
    """Why a batch failed; empty if none did."""
    large: bool = False
    """Whether its batches are larger than those of the whole test split, so that they may need too much memory."""

    @property
    def complete(self) -> bool:
        """Whether every image has one answer with finite logits."""
        return self.answered == self.images and self.not_finite == 0


def sizes_to_try(backend: Backend, timed: Iterable[int] = ()) -> tuple[int, ...]:
    """The batch sizes: 1, an odd one, those that are timed, and the best and the largest of the backend."""
    wanted = {*ALWAYS, *timed, backend.opt_batch or 1, backend.max_batch or 1}
    return tuple(size for size in sorted(wanted) if backend.max_batch is None or size <= backend.max_batch)


def trials_of(
    backend: Backend,
    split: Answered,
    altered: Answered,
    own_NK: NDArray[np.float32],
    *,
    timed: Iterable[int] = (),
) -> tuple[Trial, ...]:
    """Ask the candidate again, in every batch size, and about `altered` images, which are not in the test split.

    `own_NK`: its logits of the whole test split, complete. In each batch size, images are in another order, so each one
    stands elsewhere in its batch. A batch that fails is an `error` of its trial.
    """
    if not len(own_NK):
        return ()
    spread = float(split.logits_NK.std(dtype=np.float64)) or 1.0
    again_N = np.arange(min(2 * BATCH, len(own_NK)))
    trials = [_trial(AGAIN, backend, split, again_N, _main_batch(backend), spread=spread, own_NK=own_NK, stream=True)]
    for size in sizes_to_try(backend, timed):
        index_N = _shuffled(len(own_NK), size)
        trials.append(_trial(f"batches of {size:,}", backend, split, index_N, size, spread=spread, own_NK=own_NK))
    every_N = np.arange(len(altered.images_NHWC))
    return (*trials, _trial(ALTERED, backend, altered, every_N, _main_batch(backend), spread=spread))


def _main_batch(backend: Backend) -> int:
    return min(BATCH, backend.max_batch or BATCH)


def _shuffled(images: int, size: int) -> NDArray[np.int64]:
    """Indices of random images for batches of `size`: the last batch is shorter, and images repeat if there are few."""
    count = max(TRIED_IMAGES, size)
    if size > 1 and count % size == 0:
        count += size // 2
    order_N = np.random.default_rng(size).permutation(images)
    return np.resize(order_N, count)


def _parts(index_N: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    return (index_N[start : start + size] for start in range(0, len(index_N), size))


def _trial(
    name: str,
    backend: Backend,
    known: Answered,
    index_N: NDArray[np.int64],
    size: int,
    *,
    spread: float,
    own_NK: NDArray[np.float32] | None = None,
    stream: bool = False,
) -> Trial:
    """Run the images with these indices in batches of `size`."""
    batches = (np.ascontiguousarray(known.images_NHWC[part_B]) for part_B in _parts(index_N, size))
    parts, problem = [np.empty((0, known.logits_NK.shape[1]), np.float32)], ""
    try:
        parts += backend.stream(batches) if stream else map(backend, batches)
    except BackendError as error:
        problem = noted(error)
    answers_NK = np.concatenate(parts)
    answered, asked = len(answers_NK), len(index_N)
    answers_NK = answers_NK[:asked]
    index_N = index_N[: len(answers_NK)]
    finite_N = np.isfinite(answers_NK).all(axis=1)
    itself = None
    if own_NK is not None:
        both_N = finite_N & np.isfinite(own_NK[index_N]).all(axis=1)
        itself = Difference.between(answers_NK[both_N], own_NK[index_N][both_N], spread=spread)
    return Trial(
        name=name,
        images=answered if problem else asked,
        answered=answered,
        not_finite=int((~finite_N).sum()),
        reference=Difference.between(answers_NK[finite_N], known.logits_NK[index_N][finite_N], spread=spread),
        itself=itself,
        error=problem,
        large=size > _main_batch(backend),
    )


def some_of(images: int) -> NDArray[np.int64]:
    """All indices in a random order, the same each time."""
    return np.random.default_rng(0).permutation(images)


def altered_images(images_NHWC: NDArray[np.uint8], *, count: int = ALTERED_IMAGES) -> NDArray[np.uint8]:
    """Some images, mirrored and moved by one to three pixels in both directions; the border is repeated."""
    random = np.random.default_rng(0)
    chosen_N = some_of(len(images_NHWC))[:count]
    height, width = images_NHWC.shape[1:3]
    altered = []
    for index in chosen_N:
        down, right = random.integers(1, LARGEST_MOVE + 1, 2) * random.choice([-1, 1], 2)
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)[::-1]
        altered.append(images_NHWC[index][rows][:, columns])
    return np.array(altered, np.uint8).reshape(-1, *images_NHWC.shape[1:])
