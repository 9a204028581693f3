"""What a benchmark found, as a table for the terminal, Markdown and JSON; every figure comes from the samples."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from ..core.card import ModelCard
from ..core.machine import Machine
from ..core.table import markdown_table, text_table
from .config import BenchConfig
from .measure import Cell
from .parity import Parity
from .verdict import Verdict

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
    verdicts: list[Verdict] = field(default_factory=list)
    """Of the parity gate, for every backend but the reference itself."""

    def to_json(self) -> str:
        """Everything, raw samples included."""
        content: dict[str, Any] = {"schema": SCHEMA, "scope": SCOPE, **dataclasses.asdict(self)}
        for cell, fields in zip(self.cells, content["cells"], strict=True):
            if cell.rounds:
                fields |= {"images_per_s": cell.images_per_s, "spread": cell.spread, "noisy": cell.noisy}
                fields |= {f"p{p}_ms": cell.percentile_ms(p) for p in (50, 90, 99)}
        return json.dumps(content, indent=1) + "\n"

    def to_text(self) -> str:
        """For the terminal."""
        lines = [f"{self.model.name}, {self.model.precision}, on {self.machine.summary}"]
        lines += [f"  {name}: {runs_on}" for name, runs_on in self.backends.items()]
        lines += [f"  {name}: not run: {reason}" for name, reason in self.unusable.items()]
        lines += ["", f"Parity on {self.dataset}, against PyTorch fp32", "", text_table(parity_table(self.parity))]
        lines += ["", *(verdict.to_text() for verdict in self.verdicts)]
        lines += ["", "Throughput and latency, host to host", "", text_table(throughput_table(self.cells))]
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """For a README or a paper."""
        lines = [f"Model: {self.model.name}, {self.model.precision}. Machine: {self.machine.summary}. {self.date}.", ""]
        lines += [f"- {name}: {runs_on}" for name, runs_on in self.backends.items()]
        lines += [f"- {name}: not run: {reason}" for name, reason in self.unusable.items()]
        if self.cells:
            lines += ["", f"Throughput and latency, {SCOPE}.", "", markdown_table(throughput_table(self.cells))]
        if self.parity:
            lines += [
                "",
                f"Parity on {self.dataset}, against PyTorch fp32.",
                "",
                markdown_table(parity_table(self.parity)),
            ]
        lines += [f"\n```\n{verdict.to_text()}\n```" for verdict in self.verdicts]
        return "\n".join(lines) + "\n"


Row = dict[str, str]


def throughput_table(cells: list[Cell]) -> list[Row]:
    """One row a cell; `x` is the ratio to the first backend at the same batch size."""
    names = ("backend", "batch", "images/s", "x", "p50 ms", "p90 ms", "p99 ms", "spread", "calls")
    rows: list[Row] = []
    base: dict[int, Cell] = {}
    for cell in cells:
        figures = [cell.backend, f"{cell.batch:,}"]
        if cell.rounds:
            first = base.setdefault(cell.batch, cell)
            figures += [f"{cell.images_per_s:,.0f}", f"{cell.images_per_s / first.images_per_s:.2f}"]
            figures += [f"{cell.percentile_ms(p):.2f}" for p in (50, 90, 99)]
            figures += [f"{cell.spread:.0%}{' noisy' if cell.noisy else ''}", f"{len(cell.samples_s):,}"]
        if cell.error:
            figures = [*figures[:-1], f"failed: {cell.error}"] if cell.rounds else [*figures, f"failed: {cell.error}"]
        rows.append(dict(zip(names, [*figures, *[""] * (len(names) - len(figures))], strict=True)))
    return rows


def parity_table(parity: list[Parity]) -> list[Row]:
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
