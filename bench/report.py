"""What a benchmark found, as a table for the terminal, Markdown and JSON; every figure comes from the samples."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from ..core.card import ModelCard
from ..core.machine import Machine
from .config import BenchConfig
from .measure import Cell
from .parity import Parity

SCHEMA = "rtk-bench-1"
SCOPE = "host to host: uint8 images in host memory to float32 logits in host memory, copies included"


@dataclass(frozen=True)
class Report:
    """One run of `rtk bench`."""

    model: ModelCard
    machine: Machine
    date: str
    config: BenchConfig
    backends: dict[str, str]
    """What really ran each backend."""
    unusable: dict[str, str]
    """Backends that could not run here, and why."""
    cells: list[Cell]
    dataset: str
    parity: list[Parity]

    def to_json(self) -> str:
        """Everything, raw samples included."""
        content: dict[str, Any] = {"schema": SCHEMA, "scope": SCOPE, **dataclasses.asdict(self)}
        for cell, fields in zip(self.cells, content["cells"], strict=True):
            if cell.rounds:
                fields |= {"images_per_s": cell.images_per_s, "spread": cell.spread, "noisy": cell.noisy}
                fields |= {f"p{p}_ms": cell.percentile_ms(p) for p in (50, 90, 99)}
        return json.dumps(content, indent=1) + "\n"

    def to_markdown(self) -> str:
        """For a README or a paper."""
        lines = [f"Model: {self.model.name}, {self.model.precision}. Machine: {self.machine.summary}. {self.date}.", ""]
        lines += [f"- {name}: {runs_on}" for name, runs_on in self.backends.items()]
        lines += [f"- {name}: not run: {reason}" for name, reason in self.unusable.items()]
        if self.cells:
            lines += ["", f"Throughput and latency, {SCOPE}.", "", *_markdown(throughput_table(self.cells))]
        if self.parity:
            lines += ["", f"Parity on {self.dataset}, against PyTorch fp32.", "", *_markdown(parity_table(self.parity))]
        return "\n".join(lines) + "\n"


Table = list[list[str]]
"""The first row has the headings; columns after the first are figures."""


def throughput_table(cells: list[Cell]) -> Table:
    """One row a cell; `x` is the ratio to the first backend at the same batch size."""
    rows = [["backend", "batch", "images/s", "x", "p50 ms", "p90 ms", "p99 ms", "spread", "calls"]]
    base = {}
    for cell in cells:
        if not cell.rounds:
            rows.append([cell.backend, str(cell.batch), f"failed: {cell.error}", *[""] * 6])
            continue
        first = base.setdefault(cell.batch, cell)
        rows.append(
            [
                cell.backend,
                str(cell.batch),
                f"{cell.images_per_s:,.0f}",
                f"{cell.images_per_s / first.images_per_s:.2f}",
                *(f"{cell.percentile_ms(p):.2f}" for p in (50, 90, 99)),
                f"{cell.spread:.0%}" + (" noisy" if cell.noisy else ""),
                f"{len(cell.samples_s):,}" + (f", then failed: {cell.error}" if cell.error else ""),
            ]
        )
    return rows


def parity_table(parity: list[Parity]) -> Table:
    """One row a backend."""
    rows = [["backend", "right answers", "accuracy", "same answers", "lost", "won", "largest logit difference"]]
    for one in parity:
        same = f"{one.agreeing:,} of {one.images:,}" + (f", {one.not_finite} not finite" if one.not_finite else "")
        rows.append(
            [
                one.candidate,
                f"{one.candidate_correct:,} of {one.images:,}",
                f"{one.candidate_correct / one.images:.2%}",
                same,
                str(one.lost),
                str(one.won),
                f"{one.largest_difference:.1e}",
            ]
        )
    return rows


def aligned(table: Table) -> str:
    """A table as text in columns."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _markdown(table: Table) -> list[str]:
    heading, *rows = table
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (heading, rule, *rows)]
