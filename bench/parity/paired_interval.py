"""The accuracy that a candidate may have lost: the score interval for paired answers, and an exact test for few images.

Both answer the same images, so only images with one right and one wrong answer show a difference. The interval is the
score interval of T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design", Statistics in Medicine 17 (1998), 891-908. Unlike the normal approximation, it stays valid when
few answers or none changed.

A class has few images, and many classes are judged at once, so far tails matter, where the score interval is too
narrow. So a class is judged by an exact test: the probability of so large a loss if the true loss were the margin. The
share of won images, which the test must know, is its estimate under that assumption.
"""

import math

import numpy as np

Z = 1.959963984540054
"""Normal quantile of 97.5 %: a bound is an end of the two-sided 95 % interval, so a candidate whose true loss equals
the margin passes in about one case of forty."""
PRECISE = 1e-9
SMALLEST_GAP = 1e-6
"""A measured loss that is closer to the margin counts as the margin: no number of images would tell them apart."""


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


def lower_loss(lost: int, won: int, images: int) -> float:
    """The lower 95 % bound of the loss of accuracy: the other end of the interval. Without images it is -1."""
    return -upper_loss(won, lost, images)


def chance_of_loss(lost: int, won: int, images: int, *, loss: float) -> float:
    """The probability of as large a difference of lost and won images, or a larger one, if the true loss is `loss`.

    `loss`: a share, 0 to 1. The distribution is exact: the sum of `images` independent values -1, 0 and 1.
    """
    assert 0 <= lost + won <= images
    assert 0 <= loss < 1
    if lost - won <= images * loss:
        return 1.0
    won_share = _won_share(lost, won, images, loss)
    length = 2 * images + 1
    one = np.zeros(length)
    one[[-1, 0, 1]] = won_share, 1 - 2 * won_share - loss, won_share + loss
    sums = np.fft.irfft(np.fft.rfft(one) ** images, length)
    return float(min(1.0, max(0.0, sums[lost - won : images + 1].sum())))


def smallest_resolvable_loss(images: int) -> float:
    """The bound that remains with this number of images when no right answer changes."""
    return upper_loss(0, 0, images)


def images_for(margin: float) -> int:
    """The fewest images that can show a loss below `margin`, a share, when no answer changes."""
    return math.floor(Z * Z * (1 - margin) / margin) + 1


def images_needed(lost: int, won: int, images: int, *, margin: float) -> int | None:
    """About how many images would show a loss below `margin`, a share, if answers change as often as in these.

    Rounded up to two digits; None if the measured loss is not below the margin, or nothing was measured.
    """
    if images == 0 or (lost - won) / images >= margin - SMALLEST_GAP:
        return None

    def shows(count: int) -> bool:
        scale = count / images
        return upper_loss(round(scale * lost), round(scale * won), count) < margin

    low, high = 0, images
    while not shows(high):
        low, high = high, 2 * high
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    unit = 10 ** max(0, len(str(high)) - 2)
    return -(-high // unit) * unit


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
    won_share = _won_share(lost, won, images, loss)
    variance = images * (2 * won_share + loss * (1 - loss))
    distance = images * loss - (lost - won)
    if variance <= 0:
        return 0.0 if distance <= 0 else math.inf
    return distance / math.sqrt(variance)


def _won_share(lost: int, won: int, images: int, loss: float) -> float:
    """The most likely share of won images if the true loss is `loss`."""
    a = 2 * images
    b = -lost - won + (2 * images - lost + won) * loss
    c = -won * loss * (1 - loss)
    return (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
