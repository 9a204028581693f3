"""How much accuracy a candidate may have lost: the score interval for paired answers, and how often a gate passes.

Both answer the same images, so only the images that one answers rightly and the other wrongly tell of a difference.
The interval is the score interval of T. Tango, "Equivalence test and confidence interval for the difference in
proportions for the paired-sample design", Statistics in Medicine 17 (1998), 891-908. Unlike the normal approximation
it stays honest when nothing, or nearly nothing, changed.
"""

import math

import numpy as np

Z = 1.959963984540054
"""Normal quantile of 97.5 %: the bound is the upper end of the two-sided 95 % interval, so that a candidate whose true
loss is the margin passes in about one case of forty."""
PRECISE = 1e-9


def upper_loss(lost: int, won: int, images: int) -> float:
    """The upper 95 % bound of the share of right answers lost, of all images: 0.003 means 0.3 points.

    `lost`: right in the reference only; `won`: right in the candidate only. Without images the bound is 1.
    """
    assert 0 <= lost + won <= images
    if images == 0:
        return 1.0
    low, high = (lost - won) / images, 1.0
    while high - low > PRECISE:
        middle = (low + high) / 2
        low, high = (middle, high) if _score(lost, won, images, middle) < Z else (low, middle)
    return high


def smallest_resolvable_loss(images: int) -> float:
    """The bound that so many images leave when not one right answer changes."""
    return upper_loss(0, 0, images)


def images_for(margin: float) -> int:
    """The fewest images that can show a loss to be below `margin`, a share, when nothing changes."""
    return math.floor(Z * Z * (1 - margin) / margin) + 1


def pass_rate(
    images: int, *, lost_share: float, won_share: float, margin: float, trials: int = 4_000, seed: int = 0
) -> float:
    """How often a candidate of these true shares is found below `margin`, by simulation of paired answers."""
    random = np.random.default_rng(seed)
    counts = random.multinomial(images, (lost_share, won_share, 1 - lost_share - won_share), trials)
    verdicts: dict[tuple[int, int], bool] = {}
    passed = 0
    for lost, won, _ in counts.tolist():
        if (lost, won) not in verdicts:
            verdicts[lost, won] = upper_loss(lost, won, images) < margin
        passed += verdicts[lost, won]
    return passed / trials


def _score(lost: int, won: int, images: int, loss: float) -> float:
    """How many standard errors the observed difference lies below `loss`; the error is estimated under that loss."""
    a = 2 * images
    b = -lost - won + (2 * images - lost + won) * loss
    c = -won * loss * (1 - loss)
    won_share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = images * (2 * won_share + loss * (1 - loss))
    distance = images * loss - (lost - won)
    if variance <= 0:
        return 0.0 if distance <= 0 else math.inf
    return distance / math.sqrt(variance)
