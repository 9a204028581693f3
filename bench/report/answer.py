"""The answer of a benchmark, one row per backend and precision: is it the same network, and how fast is it."""

from collections.abc import Sequence

from ..config import SCOPES
from ..measure.cell import Cell
from ..parity.verdict import WORDS
from .report import Report
from .series import split_label
from .tables import BASELINE, ON_CPU, Row, ratio_text, throughput_table

LATENCY = "latency, batch 1"
BASELINES = (BASELINE, "torch.compile", "plain loop")
"""The names of what only serves for comparison."""


def answer_table(report: Report) -> list[Row]:
    """One row per backend and precision that took part; nothing for those that could not be opened."""
    return [_row(report, label) for label in _labels(report)]


def best_cell(cells: Sequence[Cell], label: str) -> Cell | None:
    """The cell with the highest rate of a backend, host to host where that was measured; None without figures."""
    mine = [cell for cell in cells if cell.label == label and cell.valid]
    chosen = [cell for cell in mine if cell.scope in ("sync", "stream")] or mine
    return max(chosen, key=lambda cell: cell.images_per_s, default=None)


def comparable_best(cells: Sequence[Cell], cell: Cell) -> Cell | None:
    """The baseline's cell with the highest rate in the scope of this cell, or host to host where it has none there."""
    of_baseline = [one for one in cells if one.label == BASELINE and one.valid]
    for scope in (cell.scope, "sync"):
        found = [one for one in of_baseline if one.scope == scope]
        if found:
            return max(found, key=lambda one: one.images_per_s)
    return None


def _labels(report: Report) -> list[str]:
    """In the order of the report: the backends that ran, and any that only the cells or the verdicts know."""
    found = [*report.backends, *(cell.label for cell in report.cells), *(one.candidate for one in report.parity)]
    return list(dict.fromkeys(found))


def _row(report: Report, label: str) -> Row:
    backend, precision = split_label(label)
    mine = [cell for cell in report.cells if cell.label == label]
    parity = next((one for one in report.parity if one.candidate == label), None)
    best = best_cell(report.cells, label)
    row = {"backend": backend, "precision": precision, "verdict": _verdict(report, label, mine)}
    if report.parity_measured:
        row["right answers"] = f"{parity.candidate_correct:,} of {parity.images:,}" if parity else ""
        row["changed"] = f"{parity.changed:,}" if parity else ""
    row["best images/s"] = throughput_table([best])[0]["images/s"] if best else _without_figures(mine)
    row["at"] = f"batch {best.batch:,}, {SCOPES[best.scope].name}" if best else ""
    row[f"x {BASELINE}"] = _speed_up(report, best) if best else ""
    row[LATENCY] = _latency(mine)
    return row


def _verdict(report: Report, label: str, mine: Sequence[Cell]) -> str:
    verdict = next((one for one in report.verdicts if one.candidate == label), None)
    if label in report.unusable:
        word = "failed"
    elif not report.parity_measured:
        word = "baseline" if label in BASELINES[1:] else "not compared"
    elif verdict:
        word = WORDS[verdict.outcome]
    elif any(one.candidate == label for one in report.parity):
        word = "reference"
    else:
        word = "baseline" if label in BASELINES else "not compared"
    rejected = sum(bool(cell.rejected) for cell in mine)
    if rejected and rejected < len(mine):
        word += f"; {rejected} of {len(mine)} measurements rejected"
    return word


def _without_figures(mine: Sequence[Cell]) -> str:
    if any(cell.rejected for cell in mine):
        return "rejected"
    return "failed" if any(cell.error for cell in mine) else "not timed"


def _speed_up(report: Report, best: Cell) -> str:
    """The ratio to the baseline's best cell, with its interval where both have the same scope and batch size."""
    base = comparable_best(report.cells, best)
    if base is None:
        return ""
    text = ratio_text(best, base, report.devices)
    if text == ON_CPU or (base.scope, base.batch) == (best.scope, best.batch):
        return text
    scope = "" if base.scope == best.scope else f", {SCOPES[base.scope].name}"
    return f"{text.split(' ±')[0]} (torch: batch {base.batch:,}{scope})"


def _latency(mine: Sequence[Cell]) -> str:
    """The median in milliseconds at batch 1, host to host, or on the device where only that was measured."""
    for scope in ("sync", "compute"):
        for cell in mine:
            if cell.valid and cell.batch == 1 and cell.scope == scope:
                return f"{cell.percentile_ms(50):.2f} ms" + ("" if scope == "sync" else f", {SCOPES[scope].name}")
    return ""
