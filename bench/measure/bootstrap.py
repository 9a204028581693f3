"""Confidence intervals of rates and ratios, by the block bootstrap over rounds. A rate is that of the median round.

The interval is the expanded percentile interval (T. Hesterberg, What Teachers Should Know About the Bootstrap, The
American Statistician 69, 2015): it takes percentiles further out than 2.5 and 97.5, by Student's t for the small number
of blocks, because the plain percentiles are too narrow. Single calls and single rounds are not resampled: neighbours in
time are alike, especially on a shared machine, and intervals that treat them as independent are too narrow to agree
from one run to the next. So a run is cut into a few blocks of consecutive rounds, which are nearly independent of each
other: the method of batch means.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from .cell import Cell

BLOCKS = 8
"""Blocks of consecutive rounds, at most."""
RESAMPLES = 2_000
CONFIDENCE = 0.95

Interval = tuple[float, float]
Rates = NDArray[np.float64]
Resamples = NDArray[np.int64]
"""RESAMPLES x blocks: indices of the blocks in each resample."""


def rate_interval(cell: Cell) -> Interval | None:
    """Interval of the cell's images per second; None with fewer than two rounds."""
    return values_interval(cell.round_rates)


def values_interval(rates_R: Rates) -> Interval | None:
    """Interval of the median of rates that were measured one after the other; None with fewer than two."""
    count = len(rates_R)
    return _percentiles(_medians(rates_R, _resamples(count, seed=0)), count) if count > 1 else None


def paired_ratio_interval(cell: Cell, base: Cell) -> Interval | None:
    """Interval of the median ratio of two cells of one run: each ratio is of the same round, so drift cancels."""
    count = min(len(cell.rounds), len(base.rounds))
    return values_interval(cell.round_rates[:count] / base.round_rates[:count])


def paired_values_interval(rates_R: Rates, base_R: Rates) -> Interval | None:
    """Interval of the ratio of two medians over the same time, whose rounds are as evenly spread; None with one round.

    Blocks of the same part of the time are resampled together, also where one has more rounds than the other.
    """
    count = min(len(rates_R), len(base_R))
    if count < 2:
        return None
    resamples = _resamples(count, seed=0)
    return _percentiles(_medians(rates_R, resamples) / _medians(base_R, resamples), count)


def ratio_interval(new: Cell, old: Cell) -> Interval | None:
    """Interval of the ratio of two cells of different runs, whose rounds are independent of each other."""
    counts = len(new.rounds), len(old.rounds)
    if min(counts) < 2:
        return None
    new_S, old_S = (
        _medians(cell.round_rates, _resamples(count, seed=seed))
        for seed, (cell, count) in enumerate(zip((new, old), counts, strict=True))
    )
    return _percentiles(new_S / old_S, min(counts))


def _block_count(rounds: int) -> int:
    return min(BLOCKS, rounds)


def _resamples(rounds: int, *, seed: int) -> Resamples:
    count = _block_count(rounds)
    return np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))


def _medians(rates_R: Rates, resamples: Resamples) -> Rates:
    """The median rate of the rounds of each resample."""
    blocks = np.array_split(np.asarray(rates_R, dtype=np.float64), resamples.shape[1])
    padded = np.full((len(blocks), max(map(len, blocks))), np.nan)
    for row, block in zip(padded, blocks, strict=True):
        row[: len(block)] = block
    return np.nanmedian(padded[resamples].reshape(len(resamples), -1), axis=1)


def _percentiles(values: NDArray[np.float64], rounds: int) -> Interval:
    count = _block_count(rounds)
    outside = NormalDist().cdf(-student_t(count - 1) * (count / (count - 1)) ** 0.5)
    low, high = np.percentile(values, (100 * outside, 100 * (1 - outside)))
    return float(low), float(high)


def student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: exact for one and two degrees of freedom, otherwise by series expansion.

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
