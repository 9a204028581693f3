"""The reference's answers, computed once, and the comparison of every candidate with them.

Shapes: N images, H rows, W columns, C channels, K classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...core.card import ModelCard
from ...core.data.datasets import Split
from ...core.errors import DataError
from ...core.tolerances import precision_named
from ...infer.backend import Backend
from .compare import Parity, all_logits, compare, rounding_of
from .trials import Answered, altered_images, trials_of


def _advance_nothing(count: int) -> None:
    del count


@dataclass(frozen=True)
class Reference:
    """The reference's answers to the test split and to images off it."""

    card: ModelCard
    split: Split
    logits_NK: NDArray[np.float32]
    rounding: float
    """See `rounding_of`."""
    altered: Answered
    """Images that are not in the test split."""
    error_in: Callable[[str], float]
    """The relative RMS error that fp16 or bf16 alone causes in this network; 0 where it is not known.

    The first call for a precision needs the reference open."""

    @classmethod
    def of(cls, backend: Backend, split: Split, *, advance: Callable[[int], None] = _advance_nothing) -> "Reference":
        """Run the reference on all images. `advance` is called with numbers of images of the test split.

        Raises BackendError, and DataError if it does not answer every image with finite logits.
        """
        logits_NK = all_logits(backend, split.images_NHWC, advance=advance)
        if len(logits_NK) != len(split) or not np.isfinite(logits_NK).all():
            raise DataError(
                f"the reference gave {len(logits_NK):,} answers, expected {len(split):,} with finite logits"
            )
        altered_NHWC = altered_images(split.images_NHWC)
        few_NHWC = split.images_NHWC[: len(altered_NHWC)]

        @cache
        def error_in(precision: str) -> float:
            return backend.error_in(few_NHWC, precision) if precision else 0.0

        return cls(
            card=backend.card,
            split=split,
            logits_NK=logits_NK,
            rounding=rounding_of(backend, split.images_NHWC),
            altered=Answered(altered_NHWC, all_logits(backend, altered_NHWC)),
            error_in=error_in,
        )

    def parity_of(
        self,
        label: str,
        backend: Backend,
        *,
        precision: str,
        timed: Iterable[int] = (),
        advance: Callable[[int], None] = _advance_nothing,
    ) -> Parity:
        """Compare a candidate's answers with the reference's.

        `timed`: batch sizes that are timed too. Raises BackendError, and DataError if its number of classes differs.
        """
        logits_NK = all_logits(backend, self.split.images_NHWC, advance=advance)
        complete = logits_NK.shape == self.logits_NK.shape
        split = Answered(self.split.images_NHWC, self.logits_NK)
        return compare(
            label,
            self.logits_NK,
            logits_NK,
            self.split.labels_N,
            rounding=self.rounding,
            expected_error=self.error_in(precision_named(precision).yardstick),
            trials=trials_of(backend, split, self.altered, logits_NK, timed=timed) if complete else (),
            card_differences=card_differences(backend.card, self.card),
        )


def card_differences(card: ModelCard, reference: ModelCard) -> tuple[str, ...]:
    """What a candidate's card says otherwise than the reference's, of what decides the meaning of pixels and logits."""
    pairs = {
        "classes": (card.classes, reference.classes),
        "input": (card.input, reference.input),
        "preprocessing": (card.preprocessing, reference.preprocessing),
    }
    return tuple(name for name, (found, expected) in pairs.items() if found != expected)
