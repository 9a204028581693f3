"""Two reports of `rtk bench` against each other: what changed beyond the noise that each of them admits."""

from dataclasses import dataclass
from pathlib import Path

from ...core.errors import ArtifactError
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
    """95 % bootstrap interval of the ratio, over stretches of rounds."""

    @property
    def ratio(self) -> float:
        """Images per second, new over old: below 1 is slower."""
        return self.new.images_per_s / self.old.images_per_s

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves no room for "the same"."""
        return not self.low <= 1 <= self.high

    def slower_by_more_than(self, limit_percent: float) -> bool:
        """Whether even the kindest end of the interval is a loss, and the loss itself is above the limit."""
        return self.high < 1 and self.ratio < 1 - limit_percent / 100


def compare_reports(old: Path, new: Path) -> list[Change]:
    """The cells that both have figures for, in the order of the new one; at least two rounds each.

    Raises ArtifactError for files that are no reports, and for reports that have nothing in common.
    """
    before = {cell.key: cell for cell in read_cells(old) if cell.believed}
    changes = []
    for cell in read_cells(new):
        earlier = before.get(cell.key)
        if earlier is not None and cell.believed:
            interval = ratio_interval(cell, earlier)
            if interval is not None:
                changes.append(Change(earlier, cell, *interval))
    if not changes:
        raise ArtifactError(
            f"{old} and {new} have no cell in common; compare reports of the same backends, precisions, scopes and "
            "batches"
        )
    return changes


def change_rows(changes: list[Change]) -> list[dict[str, str]]:
    """For printing."""
    return [
        {
            "backend": change.new.label,
            "scope": SCOPES[change.new.scope][0],
            "batch": f"{change.new.batch:,}",
            "old images/s": f"{change.old.images_per_s:,.0f}",
            "new images/s": f"{change.new.images_per_s:,.0f}",
            "ratio": f"{change.ratio:.3f}",
            "95 % interval": f"{change.low:.3f} to {change.high:.3f}",
            "verdict": ("faster" if change.ratio > 1 else "slower") if change.beyond_noise else "within noise",
        }
        for change in changes
    ]
