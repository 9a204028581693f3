"""The ratio of two cells of one run, and whether anything disturbed it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bootstrap import Interval, paired_ratio_interval
from .cell import Cell

MOST = 0.5
"""A run compares nothing if more than this share of its cells are noisy or disturbed."""


@dataclass(frozen=True)
class Ratio:
    """The rate of a cell relative to that of another one in the same run."""

    value: float
    """The median over rounds of the ratio in the same round, so that a change of the machine's speed cancels out."""
    interval: Interval | None
    """95 %, by block bootstrap over interleaved rounds; None with fewer than two rounds."""
    disturbed: bool
    """Whether other processes used the cores, or earlier work still ran, while one of the two was measured."""

    @property
    def text(self) -> str:
        """The ratio with its uncertainty, for a table, in three digits; without the uncertainty if disturbed."""
        digits = 2 if self.value < 10 else 1 if self.value < 100 else 0
        if self.disturbed:
            return f"{self.value:.{digits}f} busy"
        if self.interval is None:
            return f"{self.value:.{digits}f}"
        low, high = self.interval
        return f"{self.value:.{digits}f} ±{max(self.value - low, high - self.value):.{digits}f}"


def ratio_of(cell: Cell, base: Cell) -> Ratio:
    """The rate of a cell relative to that of another one."""
    count = min(len(cell.rounds), len(base.rounds))
    value = float(np.median(cell.round_rates[:count] / base.round_rates[:count]))
    return Ratio(value, paired_ratio_interval(cell, base), cell.disturbed or base.disturbed)


def compares_nothing(cells: Sequence[Cell]) -> str:
    """Why the cells of a run cannot be compared with each other, in one sentence; empty if they can."""
    measured = [cell for cell in cells if cell.rounds]
    unusable = [cell for cell in measured if cell.noisy or cell.disturbed]
    if len(unusable) <= MOST * len(measured):
        return ""
    return (
        f"this run compares nothing: {len(unusable)} of {len(measured)} measurements are noisy, or other processes "
        "disturbed them; repeat it on a quiet machine: --wait-quiet"
    )
