"""How far logits are from the reference's.

Shapes: N images, K classes.
"""

import numpy as np
from numpy.typing import NDArray


def differences(logits_NK: NDArray[np.float32], reference_NK: NDArray[np.float32]) -> tuple[float, float]:
    """The largest absolute difference, and the root mean square as a share of the reference's standard deviation."""
    difference_NK = logits_NK.astype(np.float64) - reference_NK
    spread = float(reference_NK.std(dtype=np.float64)) or 1.0
    return float(np.abs(difference_NK).max()), float(np.sqrt((difference_NK**2).mean())) / spread


def largest_share(logits_NK: NDArray[np.float32], reference_NK: NDArray[np.float32]) -> float:
    """The largest difference of any logit over the standard deviation of the reference's logits.

    Of all of them, or of its own image's where that is more: the surest answers have logits several times as large as
    most, which are the first to be clipped in int8, and stay the surest. At 1 an error is as large as what tells an
    image's classes apart. 0 without images.
    """
    if not reference_NK.size:
        return 0.0
    spread_N1 = np.maximum(
        reference_NK.std(dtype=np.float64), reference_NK.std(axis=1, dtype=np.float64, keepdims=True)
    )
    difference_NK = np.abs(logits_NK.astype(np.float64) - reference_NK)
    return float((difference_NK / np.maximum(spread_N1, 1e-30)).max())
