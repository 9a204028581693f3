"""The live table: shown on standard error during the measurement, if that is a terminal.

It is drawn between two measurements, at most four times per second and without a thread, so that drawing is not timed.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..config import SCOPES
from ..measure.cell import Cell
from ..measure.timing import OnChange

if TYPE_CHECKING:
    from rich.table import Table

REDRAW_S = 0.25
COLUMNS = ("backend", "precision", "scope", "batch", "images/s", "p50 ms", "spread", "rounds")


@contextlib.contextmanager
def live_table(seconds: float) -> Iterator[OnChange]:
    """Yield the function to call after every change of a cell; `seconds`: the expected measuring time."""
    if not sys.stderr.isatty():
        yield lambda cell: None
        return
    from rich.console import Console
    from rich.live import Live

    cells: dict[tuple[str, str, str, int], Cell] = {}
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True, vertical_overflow="ellipsis") as live:
        drawn_at = 0.0

        def on_change(cell: Cell) -> None:
            nonlocal drawn_at
            cells[cell.key] = cell
            now = time.monotonic()
            if now - drawn_at >= REDRAW_S:
                drawn_at = now
                live.update(_table(list(cells.values()), seconds), refresh=True)

        yield on_change


def _table(cells: list[Cell], seconds: float) -> "Table":
    from rich.table import Table

    measured_s = sum(cell.first_calls_s + float(cell.samples_s.sum()) for cell in cells if cell.rounds)
    table = Table(*COLUMNS, title=f"measuring: {measured_s:.1f} of {seconds:.0f} s; Ctrl-C stops and reports")
    for cell in cells:
        table.add_row(*live_row(cell))
    return table


def live_row(cell: Cell) -> tuple[str, ...]:
    """One row of the table, with the figures known so far."""
    known = (cell.backend, cell.precision, SCOPES[cell.scope].column, f"{cell.batch:,}")
    if not cell.rounds:
        return (*known, *("failed" if cell.error else "warmed up", "", "", ""))
    spread = f"{cell.spread:.0%}{' noisy' if cell.noisy else ''}"
    return (*known, f"{cell.images_per_s:,.0f}", f"{cell.percentile_ms(50):.2f}", spread, f"{len(cell.rounds)}")
