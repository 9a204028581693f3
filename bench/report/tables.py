"""The tables of a report as rows: complete for Markdown and HTML, and at most 80 columns wide for the terminal."""

from collections.abc import Callable, Mapping, Sequence

from ..config import SCOPES
from ..measure.bootstrap import Interval, rate_interval
from ..measure.cell import Cell
from ..measure.ratio import ratio_of
from ..parity.compare import Parity
from ..roofline.roofline import Share
from .report import Report

Row = dict[str, str]
BASELINE = "torch"
"""Eager PyTorch in fp32: `x` is the ratio to it."""
COLUMNS = (
    "backend",
    "precision",
    "scope",
    "batch",
    "images/s",
    "x",
    "mean",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "spread",
    "rounds",
    "outliers",
    "other load",
    "of ceiling",
)
COMPACT = ("backend", "scope", "batch", "images/s", "x", "p50 ms", "p99 ms")
"""Columns of the terminal's table."""
DETAILS = (
    ("backend", "scope", "batch", "mean", "p90 ms", "spread", "rounds"),
    ("backend", "scope", "batch", "outliers", "other load", "of ceiling"),
)
"""Columns of the tables that --verbose adds."""
LONGEST_CLASS = 16
"""Characters of a class name in the terminal."""

ON_CPU = "on CPU"
"""Instead of a ratio to a baseline on a GPU: it would be that of the processors, not of a backend or a precision."""

ShareOf = Callable[[Cell], Share | None]


def _no_share(cell: Cell) -> None:
    del cell


def report_table(report: Report) -> list[Row]:
    """One row per cell of the report, compared with eager PyTorch."""
    return throughput_table(report.cells, baseline=BASELINE, share=report.share, devices=report.devices)


def throughput_table(
    cells: Sequence[Cell],
    *,
    baseline: str | None = None,
    share: ShareOf = _no_share,
    devices: Mapping[str, str] | None = None,
) -> list[Row]:
    """One row per cell; `x` is the ratio to the baseline's cell, to the first backend's where none is named.

    `devices`: the device of each backend, cpu or cuda:N, by label.
    """
    base = baseline or (cells[0].label if cells else "")
    rows = []
    for cell in cells:
        row = {"backend": cell.backend, "precision": cell.precision, "scope": SCOPES[cell.scope].name}
        figures = _figures(cell, base_of(cell, cells, base), share(cell), devices or {})
        rows.append(row | {"batch": f"{cell.batch:,}"} | figures)
    return _columns(rows, COLUMNS)


def compact_tables(
    cells: Sequence[Cell],
    *,
    baseline: str | None = None,
    share: ShareOf = _no_share,
    devices: Mapping[str, str] | None = None,
    verbose: bool = False,
) -> list[list[Row]]:
    """The same figures in at most 80 columns: a table, and with `verbose` two more with all other columns.

    Precision is part of the backend's name. Why a cell has no figures is left to not_run.py.
    """
    base = baseline or (cells[0].label if cells else "")
    rows = []
    for cell in cells:
        row = {"backend": cell.label, "scope": SCOPES[cell.scope].column, "batch": f"{cell.batch:,}"}
        figures = _figures(cell, base_of(cell, cells, base), share(cell), devices or {})
        if not cell.valid:
            figures["images/s"] = "rejected" if cell.rejected else "failed" if cell.error else figures["images/s"]
        elif cell.error:
            figures["of ceiling"] = "failed"
        rows.append(row | figures)
    return [_columns(rows, names) for names in ((COMPACT, *DETAILS) if verbose else (COMPACT,))]


def _columns(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The rows with these columns; columns that are empty in all rows are left out."""
    return [{name: row.get(name, "") for name in names if any(one.get(name, "") for one in rows)} for row in rows]


def _figures(cell: Cell, base: Cell | None, share: Share | None, devices: Mapping[str, str]) -> Row:
    """What was measured, or why there are no figures."""
    if not cell.valid:
        return {"images/s": _reason(cell) or "no time"}
    interval = _plus_minus(rate_interval(cell), cell.images_per_s)
    return {
        "images/s": f"{cell.images_per_s:,.0f}{interval}",
        "x": ratio_text(cell, base, devices),
        **{f"p{percent} ms": f"{cell.percentile_ms(percent):.2f}" for percent in (50, 90, 99)},
        "spread": f"{cell.spread:.0%}{' noisy' if cell.noisy else ''}",
        "mean": f"{cell.mean_images_per_s:,.0f}",
        "rounds": f"{len(cell.rounds):,}",
        "outliers": f"{len(cell.outliers)}" if cell.outliers else "",
        "other load": _other_load(cell),
        "of ceiling": _reason(cell) or _share_of_ceiling(share),
    }


def _reason(cell: Cell) -> str:
    return cell.rejected or (f"failed: {cell.error}" if cell.error else "")


def base_of(cell: Cell, cells: Sequence[Cell], baseline: str) -> Cell | None:
    """The baseline's cell at the same batch size, in the same scope, or host to host where it has no such cell."""
    at_batch = [one for one in cells if one.label == baseline and one.batch == cell.batch and one.valid]
    same = [one for one in at_batch if one.scope == cell.scope]
    return next(iter([*same, *(one for one in at_batch if one.scope == "sync")]), None)


def on_cpu_beside_gpu(cell: Cell, base: Cell, devices: Mapping[str, str]) -> bool:
    """Whether the cell ran on the CPU and its baseline on a GPU."""
    return devices.get(cell.label) == "cpu" and devices.get(base.label, "cpu") != "cpu"


def ratio_text(cell: Cell, base: Cell | None, devices: Mapping[str, str]) -> str:
    """The ratio to the base cell with the distance to the farther end of its interval; empty without a base."""
    if base is None:
        return ""
    if on_cpu_beside_gpu(cell, base, devices):
        return ON_CPU
    return f"{1:.2f}" if base is cell else ratio_of(cell, base).text


def _other_load(cell: Cell) -> str:
    share = "" if cell.other_share is None else f"{cell.other_share:.0%}"
    return f"{share} busy".strip() if cell.disturbed else share


def _plus_minus(interval: Interval | None, value: float, *, as_points: bool = False) -> str:
    """The distance to the farther end of a 95 % interval: as a share of the value, or in percentage points."""
    if interval is None:
        return ""
    distance = max(value - interval[0], interval[1] - value)
    return f" ±{100 * distance:.1f}" if as_points else f" ±{distance / value:.1%}"


def _share_of_ceiling(share: Share | None) -> str:
    if share is None:
        return ""
    text = f"{share.value:.1%}{_plus_minus(share.interval, share.value, as_points=True)}"
    return f"{text} wrong" if share.wrong else f"{text} {share.binds}"


def parity_table(parity: Sequence[Parity]) -> list[Row]:
    """One row per backend."""
    return [
        {
            "backend": one.candidate,
            "right answers": f"{one.candidate_correct:,} of {one.images:,}",
            "accuracy": f"{one.candidate_correct / one.images:.2%}",
            "same answers": f"{one.agreeing:,} of {one.images:,}"
            + (f", {one.not_finite:,} not finite" if one.not_finite else "")
            + (f", {one.answered:,} answers" if one.answered != one.images else ""),
            "lost": f"{one.lost:,}",
            "won": f"{one.won:,}",
            "largest logit difference": f"{one.largest_difference:.1e}",
        }
        for one in parity
    ]


def worst_table(parity: Parity, classes: Sequence[str]) -> list[Row]:
    """The images that the candidate answers worst, one row each, in at most 80 columns."""
    shown = [name if len(name) <= LONGEST_CLASS else f"{name[: LONGEST_CLASS - 3]}..." for name in classes]
    return [
        {
            "image": f"{one.index:,}",
            "label": shown[one.label],
            "reference": shown[one.reference],
            parity.candidate: "no answer" if one.candidate is None else shown[one.candidate],
            "logit difference": f"{one.largest_difference:.1e}",
        }
        for one in parity.worst
    ]
