"""Compares two reports of `rtk bench`: which cells changed by more than the noise of both.

A cell is called slower or faster only if three things hold. (1) The interval of its ratio excludes 1, at 95 % for all
cells together: with 40 cells at 95 % each, one is expected to be outside by chance. (2) The same holds relative to what
both runs measured in the same rounds: to the device's own rate, or to the other backends. Then it is not the
machine that changed. (3) Other processes took about as much of the cores in both runs.

The cells of a backend are also compared all together, by the geometric mean of their rates in each round: this finds a
change that the noise of single cells hides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np

from ...core.errors import ArtifactError
from ...core.text import text_table, wrapped
from ..config import SCOPES
from ..measure.bootstrap import CONFIDENCE, Interval, Rates, paired_values_interval, rate_interval, values_interval
from ..measure.cell import Cell, quiet_cores
from .report import REFERENCE, Report, read_report

ALL = 1
"""The batch size of a cell that stands for those of several batch sizes."""
DISTURBED = "other load"
"""Verdict on a cell beside which other processes took another share of the cores than in the other report."""


@dataclass(frozen=True)
class Change:
    """One cell in both reports."""

    old: Cell
    new: Cell
    low: float
    high: float
    """`low` to `high`: the interval of the ratio, 95 % for all cells together, by block bootstrap over rounds."""
    relative: tuple[Interval, ...] = ()
    """Intervals of the same ratio relative to the device's own rate, and to the other backends, where known."""

    @property
    def ratio(self) -> float:
        """Images per second, new over old: below 1 is slower."""
        return self.new.images_per_s / self.old.images_per_s

    @property
    def loads_differ(self) -> bool:
        """Whether other processes took clearly more of the cores in one of the two runs."""
        shares = self.old.other_share, self.new.other_share
        if shares[0] is None or shares[1] is None or not (self.old.busy or self.new.busy):
            return False
        cores = self.new.cores
        return abs(shares[1] - shares[0]) * cores > 2 * quiet_cores(cores)

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval and a relative one exclude 1 on the same side, under the same load."""
        relative = self.relative or ((self.low, self.high),)
        slower = self.high < 1 and any(high < 1 for _, high in relative)
        faster = self.low > 1 and any(low > 1 for low, _ in relative)
        return (slower or faster) and not self.loads_differ

    @property
    def verdict(self) -> str:
        """faster, slower, within noise, or DISTURBED."""
        if self.loads_differ:
            return DISTURBED
        if not self.beyond_noise:
            return "within noise"
        return "faster" if self.ratio > 1 else "slower"

    def slower_by_more_than(self, limit_percent: float) -> bool:
        """Whether it is slower beyond noise, and by more than the limit."""
        return self.beyond_noise and self.ratio < 1 - limit_percent / 100


@dataclass(frozen=True)
class ComparedReports:
    """What changed between two reports."""

    changes: list[Change]
    pooled: list[Change]
    """All cells of a backend together, for each scope in which it has several; their batch is ALL."""
    differences: list[str]
    """What else differs, so that the figures may not be comparable; only with `force`."""


def compare_reports(old: Path, new: Path, *, force: bool = False) -> ComparedReports:
    """The cells with figures and at least two rounds in both reports, in the order of the new one.

    Raises ArtifactError for files that are not reports, for reports without a common cell, and unless `force` for
    reports of different models, data sets or machines.
    """
    before, after = read_report(old), read_report(new)
    differences = _differences(before, after)
    if differences and not force:
        raise ArtifactError(
            f"{old} and {new} are not of the same {_joined([name for name, _, _ in differences])}: "
            f"{'; '.join(_difference_text(one) for one in differences)}; to compare them in spite of that: --force"
        )
    earlier = {cell.key: cell for cell in before.cells if _is_comparable(cell)}
    pairs = [(earlier[cell.key], cell) for cell in after.cells if cell.key in earlier and _is_comparable(cell)]
    if not pairs:
        raise ArtifactError(
            f"{old} and {new} have no cell in common; compare reports of the same backends, precisions, scopes and "
            "batches"
        )
    groups = _pooled(pairs)
    changes = [_change(pair, before, after, among=pairs, tests=len(pairs)) for pair in pairs]
    pooled = [_change(pair, before, after, among=pairs, tests=len(groups)) for pair in groups]
    return ComparedReports(changes, pooled, [_difference_text(one) for one in differences])


def _pooled(pairs: Sequence[tuple[Cell, Cell]]) -> list[tuple[Cell, Cell]]:
    """The cells of each backend and scope as one cell in both reports, where there are several."""
    groups: dict[tuple[str, str, str], list[tuple[Cell, Cell]]] = {}
    for old, new in pairs:
        groups.setdefault(new.key[:3], []).append((old, new))
    several = [group for group in groups.values() if len(group) > 1]
    return [(_together([old for old, _ in group]), _together([new for _, new in group])) for group in several]


def _together(cells: Sequence[Cell]) -> Cell:
    """A cell whose rate in each round is the geometric mean of the rates of these cells."""
    rounds = min(len(cell.rounds) for cell in cells)
    rates_R = np.exp(np.mean([np.log(cell.round_rates[:rounds]) for cell in cells], axis=0))
    others = [cell.other_cores[:rounds] for cell in cells]
    first = cells[0]
    return replace(
        first,
        batch=ALL,
        rounds=[[ALL / float(rate)] for rate in rates_R],
        other_cores=np.mean(others, axis=0).tolist() if all(len(one) == rounds for one in others) else [],
    )


def _is_comparable(cell: Cell) -> bool:
    return cell.valid and len(cell.rounds) > 1


def _differences(old: Report, new: Report) -> list[tuple[str, str, str]]:
    """What must be the same in both, where it differs: its name, and both values."""
    found = [
        ("model", _model(old, new), _model(new, old)),
        ("data set", old.dataset, new.dataset),
        ("machine", _machine(old, new), _machine(new, old)),
    ]
    return [one for one in found if one[1] != one[2]]


def _model(report: Report, other: Report) -> str:
    """The model's name, and its checkpoint if both reports name one."""
    hashes = [_checkpoint(one) for one in (report, other)]
    checkpoint = f" (checkpoint {hashes[0][:12]})" if all(hashes) else ""
    return f"{report.model.name}{checkpoint}"


def _checkpoint(report: Report) -> str:
    reference = report.files.get(REFERENCE)
    return reference.sha256 if reference else report.model.checkpoint_sha256


def _machine(report: Report, other: Report) -> str:
    """The processors, and the features that the other report's processor lacks: names alone hide them."""
    machine = report.machine
    more = [feature for feature in machine.features if feature not in other.machine.features]
    features = f"with {', '.join(more)}" if more else ""
    return ", ".join(filter(None, [machine.gpu, machine.processor, f"{machine.cores} cores", features]))


def _difference_text(difference: tuple[str, str, str]) -> str:
    _, old, new = difference
    return f"{old} and {new}"


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _change(
    pair: tuple[Cell, Cell], before: Report, after: Report, *, among: Sequence[tuple[Cell, Cell]], tests: int
) -> Change:
    """The change of a cell, beside all cells that both reports have. `tests`: intervals that hold together."""
    old, new = pair
    ratio = new.images_per_s / old.images_per_s
    low, high = _interval(ratio, _log_width(old, rate_interval(old)), _log_width(new, rate_interval(new)), tests=tests)
    relative = []
    devices = _device_rates(before, old), _device_rates(after, new)
    if min(map(len, devices)) > 1:
        widths = [_relative_width(cell, rates) for cell, rates in zip(pair, devices, strict=True)]
        machine = float(np.median(devices[1]) / np.median(devices[0]))
        relative.append(_interval(ratio / machine, *widths, tests=tests))
    others = [one for one in among if one[0].backend != old.backend]
    if others:
        shares = [_share_of(cell, [one[run] for one in others]) for run, cell in enumerate(pair)]
        widths = [_width(float(np.median(share)), values_interval(share)) for share in shares]
        relative.append(_interval(float(np.median(shares[1]) / np.median(shares[0])), *widths, tests=tests))
    return Change(old, new, low, high, tuple(relative))


def _share_of(cell: Cell, others: Sequence[Cell]) -> Rates:
    """The rate of a cell in each round, divided by the geometric mean of those of other cells in the same round."""
    together = _together(others).round_rates
    count = min(len(cell.rounds), len(together))
    return cell.round_rates[:count] / together[:count]


def _device_rates(report: Report, cell: Cell) -> Rates:
    """The rate of each turn of the cell's device, in its precision or in fp32; empty where they were not kept."""
    device = report.devices.get(cell.label)
    turns = next((one.turns for one in report.rates if one.device == device), {})
    return np.array(turns.get(cell.precision) or turns.get("fp32") or [])


def _log_width(cell: Cell, interval: Interval | None) -> float:
    return _width(cell.images_per_s, interval)


def _relative_width(cell: Cell, rates: Rates) -> float:
    return _width(cell.images_per_s / float(np.median(rates)), paired_values_interval(cell.round_rates, rates))


def _width(value: float, interval: Interval | None) -> float:
    """The distance to the farther end of an interval, as a difference of logarithms."""
    assert interval is not None  # _is_comparable: there are two rounds
    return float(max(np.log(value / interval[0]), np.log(interval[1] / value)))


def _interval(ratio: float, old: float, new: float, *, tests: int) -> Interval:
    """The interval of a ratio of two runs, 95 % for all `tests` together; `old`, `new`: the widths of one alone."""
    outside = (1 - CONFIDENCE) / 2
    normal = NormalDist()
    width = float(np.hypot(old, new)) * normal.inv_cdf(1 - outside / tests) / normal.inv_cdf(1 - outside)
    return float(ratio * np.exp(-width)), float(ratio * np.exp(width))


def change_rows(changes: Sequence[Change], *, batch: str = "") -> list[dict[str, str]]:
    """One row per cell of one scope; `old` and `new` are images per second. `batch`: shown instead of the cell's."""
    return [
        {
            "backend": change.new.label,
            "batch": batch or f"{change.new.batch:,}",
            "old": f"{change.old.images_per_s:,.0f}",
            "new": f"{change.new.images_per_s:,.0f}",
            "ratio": f"{change.ratio:.3f}",
            "95 % interval": f"{change.low:.3f} to {change.high:.3f}",
            "verdict": change.verdict,
        }
        for change in changes
    ]


def changes_text(compared: ComparedReports) -> str:
    """The changes for the terminal: a table for each scope, at most 80 columns wide, and what else differs."""
    changes, blocks = compared.changes, []
    for scope in dict.fromkeys(change.new.scope for change in changes):
        rows = change_rows([change for change in compared.pooled if change.new.scope == scope], batch="all")
        rows += change_rows([change for change in changes if change.new.scope == scope])
        blocks.append(f"Images/s, {SCOPES[scope].name}\n\n{text_table(rows)}")
    notes = [f"not the same, so the ratios may mean nothing: {one}" for one in compared.differences]
    if any(change.verdict == DISTURBED for change in changes):
        notes.append(f"{DISTURBED}: other processes took another share of the cores than in the other report")
    if compared.pooled:
        notes.append("all: the geometric mean of the rates of all batch sizes")
    notes.append("95 % interval: for all rows of its kind together")
    blocks.append("\n".join(wrapped(note, first="  ", rest="    ") for note in notes))
    return "\n\n".join(blocks)
