"""The tables: one row a cell, one row a backend's parity. Terminal, Markdown and page print the same ones."""

from collections.abc import Callable, Sequence

from ..measure.bootstrap import Interval, paired_ratio_interval, rate_interval
from ..measure.cell import Cell
from ..parity.compare import Parity
from ..roofline.roofline import Ceiling
from ..scopes import SCOPES

Row = dict[str, str]
COLUMNS = (
    "backend",
    "precision",
    "scope",
    "batch",
    "images/s",
    "x",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "spread",
    "rounds",
    "of ceiling",
)


def throughput_table(
    cells: Sequence[Cell],
    *,
    baseline: str | None = None,
    ceiling: Callable[[Cell], Ceiling | None] = lambda cell: None,
) -> list[Row]:
    """One row a cell; `x` is the ratio to the baseline's cell, to the first backend's where none is named."""
    baseline = baseline or (cells[0].label if cells else "")
    rows = []
    for cell in cells:
        figures = [cell.backend, cell.precision, SCOPES[cell.scope][0], f"{cell.batch:,}"]
        reason = cell.caught or (f"failed: {cell.error}" if cell.error else "")
        if cell.believed:
            rate, spread = f"{cell.images_per_s:,.0f}", f"{cell.spread:.0%}{' noisy' if cell.noisy else ''}"
            figures += [rate + _either_side(rate_interval(cell), cell.images_per_s, share=True)]
            figures += [_ratio(cell, base_of(cell, cells, baseline))]
            figures += [f"{cell.percentile_ms(p):.2f}" for p in (50, 90, 99)]
            figures += [spread, f"{len(cell.rounds):,}", reason or _of_ceiling(cell, ceiling(cell))]
        else:
            figures += [reason or "no time"]
        rows.append(dict(zip(COLUMNS, [*figures, *[""] * (len(COLUMNS) - len(figures))], strict=True)))
    return [{name: row[name] for name in COLUMNS if any(one[name] for one in rows)} for row in rows]


def base_of(cell: Cell, cells: Sequence[Cell], baseline: str) -> Cell | None:
    """The baseline's cell at the same batch size: in the same scope, or host to host where that has none."""
    at_batch = [one for one in cells if one.label == baseline and one.batch == cell.batch and one.believed]
    same = [one for one in at_batch if one.scope == cell.scope]
    return next(iter([*same, *(one for one in at_batch if one.scope == "sync")]), None)


def parity_table(parity: Sequence[Parity]) -> list[Row]:
    """One row a backend."""
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
    """The images that the candidate answers worst, one row each."""
    return [
        {
            "image": f"{one.index:,}",
            "label": classes[one.label],
            "reference": classes[one.reference],
            parity.candidate: "no answer" if one.candidate is None else classes[one.candidate],
            "largest logit difference": f"{one.largest_difference:.1e}",
        }
        for one in parity.worst
    ]


def _ratio(cell: Cell, base: Cell | None) -> str:
    if base is None:
        return ""
    ratio = cell.images_per_s / base.images_per_s
    return f"{ratio:.2f}" + ("" if base is cell else _either_side(paired_ratio_interval(cell, base), ratio))


def _either_side(interval: Interval | None, value: float, *, share: bool = False) -> str:
    """The farther end of a 95 % interval, as a distance."""
    if interval is None:
        return ""
    distance = max(value - interval[0], interval[1] - value)
    return f" ±{distance / value:.1%}" if share else f" ±{distance:.2f}"


def _of_ceiling(cell: Cell, ceiling: Ceiling | None) -> str:
    if ceiling is None:
        return ""
    return f"{cell.images_per_s / ceiling.images_per_s:.1%} {ceiling.binds}"
