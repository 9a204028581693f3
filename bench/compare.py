"""Two reports of `rtk bench` against each other: what changed beyond the noise that each of them admits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ArtifactError
from .measure import Cell
from .report_file import read_cells

RESAMPLES = 2_000
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap: a 95 % interval."""


@dataclass(frozen=True)
class Change:
    """One cell in both reports. Rates are images per second; the ratio is new over old."""

    backend: str
    batch: int
    old_per_s: float
    new_per_s: float
    low: float
    high: float
    """95 % bootstrap interval of the ratio, over rounds."""

    @property
    def ratio(self) -> float:
        """New over old: below 1 is slower."""
        return self.new_per_s / self.old_per_s

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves no room for "the same"."""
        return not self.low <= 1 <= self.high

    def slower_by_more_than(self, limit_percent: float) -> bool:
        """Whether even the kindest end of the interval is a loss, and the loss itself is above the limit."""
        return self.high < 1 and self.ratio < 1 - limit_percent / 100


def compare_reports(old: Path, new: Path) -> list[Change]:
    """The cells that both have, in the order of the new one. Raises ArtifactError for files that are no reports."""
    before = {(cell.backend, cell.batch): cell for cell in read_cells(old)}
    changes = []
    for cell in read_cells(new):
        earlier = before.get((cell.backend, cell.batch))
        if earlier is not None and earlier.rounds and cell.rounds:
            changes.append(_change(earlier, cell))
    if not changes:
        raise ArtifactError(f"{old} and {new} have no cell in common; compare reports of the same backends and batches")
    return changes


def change_rows(changes: list[Change]) -> list[dict[str, str]]:
    """For printing."""
    return [
        {
            "backend": change.backend,
            "batch": f"{change.batch:,}",
            "old images/s": f"{change.old_per_s:,.0f}",
            "new images/s": f"{change.new_per_s:,.0f}",
            "ratio": f"{change.ratio:.3f}",
            "95 % interval": f"{change.low:.3f} to {change.high:.3f}",
            "verdict": ("faster" if change.ratio > 1 else "slower") if change.beyond_noise else "within noise",
        }
        for change in changes
    ]


def _change(old: Cell, new: Cell) -> Change:
    random = np.random.default_rng(0)
    samples = [_resampled_rates(cell, random) for cell in (old, new)]
    low, high = np.percentile(samples[1] / samples[0], INTERVAL)
    return Change(new.backend, new.batch, old.images_per_s, new.images_per_s, float(low), float(high))


def _resampled_rates(cell: Cell, random: np.random.Generator) -> NDArray[np.float64]:
    """Rates of the cell had its rounds been drawn anew, with replacement: totals over totals each time."""
    seconds_R = np.array([sum(one) for one in cell.rounds])
    images_R = np.array([cell.batch * len(one) for one in cell.rounds])
    drawn = random.integers(len(seconds_R), size=(RESAMPLES, len(seconds_R)))
    rates: NDArray[np.float64] = images_R[drawn].sum(axis=1) / seconds_R[drawn].sum(axis=1)
    return rates
