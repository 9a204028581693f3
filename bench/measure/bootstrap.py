"""Intervals by the bootstrap over stretches of rounds: what the figures would have been, had they been drawn anew.

The interval is the expanded percentile interval (T. Hesterberg, What Teachers Should Know About the Bootstrap, The
American Statistician 69, 2015): percentiles further out than 2.5 and 97.5, as Student's t for so few of them asks,
since the plain ones are too narrow. Calls within a round are not drawn singly, nor are single rounds: neighbours in
time are alike, on a shared machine most of all, and intervals that take them for independent are too narrow to agree
from one run to the next. So a run is cut into few stretches, which have little to do with each other: the method of
batch means.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from .cell import Cell

STRETCHES = 8
"""Of consecutive rounds, at most."""
RESAMPLES = 2_000
CONFIDENCE = 0.95

Interval = tuple[float, float]
Drawn = NDArray[np.int64]


def rate_interval(cell: Cell) -> Interval | None:
    """Of the cell's images per second; None with fewer than two rounds."""
    count = len(cell.rounds)
    return _percentiles(_rates(cell, count, _drawn(count, seed=0)), count) if count > 1 else None


def paired_ratio_interval(cell: Cell, base: Cell) -> Interval | None:
    """Of the ratio of two cells of one run: rounds that took turns are drawn together, so that drift cancels."""
    count = min(len(cell.rounds), len(base.rounds))
    if count < 2:
        return None
    drawn = _drawn(count, seed=0)
    return _percentiles(_rates(cell, count, drawn) / _rates(base, count, drawn), count)


def ratio_interval(new: Cell, old: Cell) -> Interval | None:
    """Of the ratio of two cells from different runs, whose rounds have nothing to do with each other."""
    counts = len(new.rounds), len(old.rounds)
    if min(counts) < 2:
        return None
    new_S, old_S = (
        _rates(cell, count, _drawn(count, seed=seed))
        for seed, (cell, count) in enumerate(zip((new, old), counts, strict=True))
    )
    return _percentiles(new_S / old_S, min(counts))


def _stretches(rounds: int) -> int:
    return min(STRETCHES, rounds)


def _drawn(rounds: int, *, seed: int) -> Drawn:
    count = _stretches(rounds)
    return np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))


def _rates(cell: Cell, rounds: int, drawn: Drawn) -> NDArray[np.float64]:
    """Rates of the cell's first rounds with these stretches of them: totals over totals each time."""
    starts = np.linspace(0, rounds, _stretches(rounds), endpoint=False).astype(np.int64)
    seconds = np.add.reduceat([sum(one) for one in cell.rounds[:rounds]], starts)
    images = np.add.reduceat([cell.batch * len(one) for one in cell.rounds[:rounds]], starts)
    rates: NDArray[np.float64] = images[drawn].sum(axis=1) / seconds[drawn].sum(axis=1)
    return rates


def _percentiles(values: NDArray[np.float64], rounds: int) -> Interval:
    count = _stretches(rounds)
    outside = NormalDist().cdf(-student_t(count - 1) * (count / (count - 1)) ** 0.5)
    low, high = np.percentile(values, (100 * outside, 100 * (1 - outside)))
    return float(low), float(high)


def student_t(degrees: int) -> float:
    """The quantile of Student's t that leaves 2.5 % above it: exact for one and two degrees, else by expansion.

    The series in 1 / degrees is formula 26.7.5 of Abramowitz and Stegun's Handbook of Mathematical Functions.
    """
    upper = (1 + CONFIDENCE) / 2
    if degrees == 1:
        return float(np.tan(np.pi * (upper - 0.5)))
    if degrees == 2:
        return float((2 * upper - 1) / (2 * upper * (1 - upper)) ** 0.5)
    z, n = NormalDist().inv_cdf(upper), degrees
    return float(
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )
