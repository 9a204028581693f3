"""The reference's answers, computed once, and the comparison of every candidate with them.

Shapes: N images, H rows, W columns, C channels, K classes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.card import ModelCard
from ...core.data.datasets import Split
from ...core.errors import DataError
from ...core.tolerances import differences, precision_named
from ...infer.backend import Backend
from .compare import Parity, all_logits, compare, rounding_of
from .trials import Answered, altered_images, some_of, trials_of

ROUNDED_IMAGES = 256
"""Images that measure what 16 bits cost the network: twice as many change the figure by a few per cent."""


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
    expected_errors: Mapping[str, float]
    """The relative RMS error that fp16 or bf16 alone causes in this network, where it is known."""

    @classmethod
    def of(
        cls,
        backend: Backend,
        split: Split,
        *,
        precisions: Iterable[str] = (),
        advance: Callable[[int], None] = _advance_nothing,
    ) -> "Reference":
        """Run the reference on all images. `advance` is called with numbers of images of the test split.

        `precisions`: those of the candidates. Raises BackendError, and DataError if it does not answer every image with
        finite logits.
        """
        logits_NK = all_logits(backend, split.images_NHWC, advance=advance)
        if len(logits_NK) != len(split) or not np.isfinite(logits_NK).all():
            raise DataError(
                f"the reference gave {len(logits_NK):,} answers, expected {len(split):,} with finite logits"
            )
        altered_NHWC = altered_images(split.images_NHWC)
        chosen_N = some_of(len(split))[:ROUNDED_IMAGES]  # of all classes, also where images are sorted by class
        chosen_NHWC = np.ascontiguousarray(split.images_NHWC[chosen_N])
        expected: dict[str, float] = {}
        for name in {precision_named(one).yardstick for one in precisions} - {""}:
            rounded_NK = backend.rounded(chosen_NHWC, name) if len(chosen_N) else None
            if rounded_NK is not None:
                expected[name] = differences(rounded_NK, logits_NK[chosen_N])[1]
        return cls(
            card=backend.card,
            split=split,
            logits_NK=logits_NK,
            rounding=rounding_of(backend, chosen_NHWC),
            altered=Answered(altered_NHWC, all_logits(backend, altered_NHWC)),
            expected_errors=expected,
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
            expected_error=self.expected_errors.get(precision_named(precision).yardstick, 0.0),
            trials=trials_of(backend, split, self.altered, logits_NK, timed=timed) if complete else (),
            card_differences=backend.card.differences_from(self.card),
        )
