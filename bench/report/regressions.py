"""Compares two reports of `rtk bench`: which cells changed by more than the noise of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import ArtifactError
from ...core.text import text_table
from ..config import SCOPES
from ..measure.bootstrap import ratio_interval
from ..measure.cell import Cell
from .report import read_cells


@dataclass(frozen=True)
class Change:
    """One cell in both reports."""

    old: Cell
    new: Cell
    low: float
    high: float
    """`low` to `high`: the 95 % interval of the ratio, by block bootstrap over rounds."""

    @property
    def ratio(self) -> float:
        """Images per second, new over old: below 1 is slower."""
        return self.new.images_per_s / self.old.images_per_s

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval excludes 1."""
        return not self.low <= 1 <= self.high

    def slower_by_more_than(self, limit_percent: float) -> bool:
        """Whether the loss is above the limit, and the whole interval is a loss."""
        return self.high < 1 and self.ratio < 1 - limit_percent / 100


def compare_reports(old: Path, new: Path) -> list[Change]:
    """The cells with figures and at least two rounds in both reports, in the order of the new one.

    Raises ArtifactError for files that are not reports, and for reports without a common cell.
    """
    before = {cell.key: cell for cell in read_cells(old) if cell.valid}
    changes = []
    for cell in read_cells(new):
        earlier = before.get(cell.key)
        if earlier is not None and cell.valid:
            interval = ratio_interval(cell, earlier)
            if interval is not None:
                changes.append(Change(earlier, cell, *interval))
    if not changes:
        raise ArtifactError(
            f"{old} and {new} have no cell in common; compare reports of the same backends, precisions, scopes and "
            "batches"
        )
    return changes


def change_rows(changes: Sequence[Change]) -> list[dict[str, str]]:
    """One row per cell of one scope; `old` and `new` are images per second."""
    return [
        {
            "backend": change.new.label,
            "batch": f"{change.new.batch:,}",
            "old": f"{change.old.images_per_s:,.0f}",
            "new": f"{change.new.images_per_s:,.0f}",
            "ratio": f"{change.ratio:.3f}",
            "95 % interval": f"{change.low:.3f} to {change.high:.3f}",
            "verdict": ("faster" if change.ratio > 1 else "slower") if change.beyond_noise else "within noise",
        }
        for change in changes
    ]


def changes_text(changes: Sequence[Change]) -> str:
    """The changes for the terminal: a table for each scope, at most 80 columns wide."""
    blocks = []
    for scope in dict.fromkeys(change.new.scope for change in changes):
        rows = change_rows([change for change in changes if change.new.scope == scope])
        blocks.append(f"Images/s, {SCOPES[scope].name}\n\n{text_table(rows)}")
    return "\n\n".join(blocks)
