"""A model's answers to all images of a split. Shapes: N images, K classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...core.data.datasets import Split
from ...core.errors import BackendError, DataError
from ...core.progress import progress_bar
from ...infer.backend import Backend
from ..parity.compare import logits_of
from . import BATCH


@dataclass(frozen=True)
class Answers:
    """The logits of labelled images, in the order of the split."""

    logits_NK: NDArray[np.float32]
    """Finite ones."""
    labels_N: NDArray[np.int64]
    names: Sequence[str] = field(default=())
    """The names of the files; empty for a data set with a name."""

    def name(self, index: int) -> str:
        """The name of an image's file, or nothing."""
        return self.names[index] if self.names else ""


def answers_of(backend: Backend, split: Split, *, names: Sequence[str] = (), batch: int = BATCH) -> Answers:
    """Run the backend on every image, in batches of `batch` or of its largest size.

    Raises DataError without images, and BackendError if an answer is missing or has a logit that is not finite.
    """
    if not len(split):
        raise DataError("no images to evaluate; expected one at least")
    with progress_bar("evaluating", len(split), unit="images") as advance:
        size = min(batch, backend.max_batch or batch)
        batches = (split.part(slice(start, min(start + size, len(split)))) for start in range(0, len(split), size))
        logits_NK = logits_of(backend, batches, advance=advance)
    expected = (len(split), len(backend.card.classes))
    if logits_NK.shape != expected:
        raise BackendError(f"{backend.name}: logits {logits_NK.shape}, expected {expected}: one row for each image")
    wrong_N = np.flatnonzero(~np.isfinite(logits_NK).all(axis=1))
    if len(wrong_N):
        answers = Answers(logits_NK, split.labels_N, names)
        first = answers.name(int(wrong_N[0])) or f"image {wrong_N[0]:,}"
        raise BackendError(
            f"{backend.name}: {len(wrong_N):,} of {len(split):,} images have logits that are not finite, the first: "
            f"{first}; expected finite ones; rtk bench shows which backends and precisions have them"
        )
    return Answers(logits_NK, split.labels_N, names)
