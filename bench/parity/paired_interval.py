"""The accuracy that a candidate may have lost: the score interval for paired answers, and how often a gate passes.

Both answer the same images, so only images with one right and one wrong answer show a difference. The interval is the
score interval of T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design", Statistics in Medicine 17 (1998), 891-908. Unlike the normal approximation, it stays valid when
few answers or none changed.
"""

import math

import numpy as np

Z = 1.959963984540054
"""Normal quantile of 97.5 %: the bound is the upper end of the two-sided 95 % interval, so a candidate whose true loss
equals the margin passes in about one case of forty."""
PRECISE = 1e-9


def upper_loss(lost: int, won: int, images: int) -> float:
    """The upper 95 % bound of the loss of accuracy, as a share of all images: 0.003 means 0.3 points.

    `lost`: only the reference is right; `won`: only the candidate is right. Without images the bound is 1.
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
    """The bound that remains with this number of images when no right answer changes."""
    return upper_loss(0, 0, images)


def images_for(margin: float) -> int:
    """The fewest images that can show a loss below `margin`, a share, when no answer changes."""
    return math.floor(Z * Z * (1 - margin) / margin) + 1


def pass_rate(
    images: int, *, lost_share: float, won_share: float, margin: float, trials: int = 4_000, seed: int = 0
) -> float:
    """How often a candidate with these true shares passes the margin, by simulation of paired answers."""
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
    """The distance from the observed loss up to `loss`, in standard errors that are estimated under `loss`."""
    a = 2 * images
    b = -lost - won + (2 * images - lost + won) * loss
    c = -won * loss * (1 - loss)
    won_share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = images * (2 * won_share + loss * (1 - loss))
    distance = images * loss - (lost - won)
    if variance <= 0:
        return 0.0 if distance <= 0 else math.inf
    return distance / math.sqrt(variance)
