"""What a benchmark found: for the terminal, as Markdown and as JSON; every figure comes from the samples."""

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any

from ...core.card import ModelCard
from ...core.machine import Machine
from ...core.table import markdown_table, text_table
from ..config import BenchConfig
from ..measure.bootstrap import rate_interval
from ..measure.cell import Cell
from ..measure.environment import Moment
from ..parity.compare import Parity
from ..parity.verdict import Verdict
from ..roofline.roofline import Ceiling, DeviceRates, Operations, ceiling_of
from .notes import notes_on, preset_lines
from .tables import Row, parity_table, throughput_table

SCHEMA = "rtk-bench-2"
"""Goes up with every change that an older reader would misread; REPORT.md describes it."""
BASELINE = "torch"
"""Eager PyTorch in fp32: what `x` compares with."""


@dataclass(frozen=True)
class Report:
    """One run of `rtk bench`."""

    model: ModelCard
    machine: Machine
    date: str
    config: BenchConfig
    backends: dict[str, str]
    """What really ran each backend, its threads or its GPU."""
    unusable: dict[str, str]
    """Backends that could not run here, and why."""
    cells: list[Cell]
    dataset: str
    parity: list[Parity]
    verdicts: list[Verdict] = field(default_factory=list)
    """Of the parity gate, for every backend but the reference itself and the baselines."""
    ready_s: dict[str, float] = field(default_factory=dict)
    """Seconds of exporting, building and opening each backend."""
    coincidences: list[str] = field(default_factory=list)
    """Scopes that were not measured since they are another one's, in words."""
    before: Moment | None = None
    after: Moment | None = None
    graph: Operations | None = None
    """The work of one image, counted from the fp32 graph."""
    rates: DeviceRates | None = None
    """What the device can do, measured in the same run."""
    pictures: dict[str, str] = field(default_factory=dict)
    """Images whose answers changed: PNG in base64, by their index in the split."""
    self_checked: bool = False
    """Whether every backend was asked if its work is done when a call returns; who was caught has it in its cells."""
    interrupted: bool = False
    """Whether Ctrl-C ended it early."""

    def ceiling(self, cell: Cell) -> Ceiling | None:
        """What the cell could reach at most, where that is known."""
        return ceiling_of(cell, self.graph, self.rates) if self.graph and self.rates else None

    @property
    def table(self) -> list[Row]:
        """The cells."""
        return throughput_table(self.cells, baseline=BASELINE, ceiling=self.ceiling)

    def to_json(self) -> str:
        """Everything, raw samples included; what follows from them is written beside them for other readers."""
        content: dict[str, Any] = {"schema": SCHEMA, **dataclasses.asdict(self)}
        for cell, fields in zip(self.cells, content["cells"], strict=True):
            fields["rounds"] = [[round(sample, 9) for sample in samples] for samples in cell.rounds]
            if cell.believed:
                fields |= {"images_per_s": cell.images_per_s, "spread": cell.spread, "noisy": cell.noisy}
                fields |= {f"p{p}_ms": cell.percentile_ms(p) for p in (50, 90, 99)}
                fields["images_per_s_interval"] = rate_interval(cell)
                ceiling = self.ceiling(cell)
                fields["ceiling"] = dataclasses.asdict(ceiling) if ceiling else None
        text = json.dumps(content, indent=1, ensure_ascii=False)
        return re.sub(r"\[[\d\s.,e+-]*\]", lambda numbers: "".join(numbers[0].split()), text) + "\n"

    def to_text(self) -> str:
        """For the terminal."""
        lines = [f"{self.model.name}, {self.model.precision}, on {self.machine.summary}"]
        lines += [f"  {name}: {runs_on}" for name, runs_on in self.backends.items()]
        lines += [f"  {name}: not run: {reason}" for name, reason in self.unusable.items()]
        lines += ["", f"Parity on {self.dataset}, against PyTorch fp32", "", text_table(parity_table(self.parity))]
        lines += ["", *(verdict.to_text() for verdict in self.verdicts)]
        lines += ["", "Throughput and latency", "", text_table(self.table), ""]
        lines += [f"  {note}" for note in notes_on(self)]
        lines += ["", *preset_lines(self)] if self.config.preset else []
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """For a README or a paper."""
        lines = [f"Model: {self.model.name}, {self.model.precision}. Machine: {self.machine.summary}. {self.date}.", ""]
        lines += [f"- {name}: {runs_on}" for name, runs_on in self.backends.items()]
        lines += [f"- {name}: not run: {reason}" for name, reason in self.unusable.items()]
        if self.cells:
            lines += ["", "Throughput and latency.", "", markdown_table(self.table), ""]
            lines += [f"- {note}" for note in notes_on(self)]
        if self.config.preset:
            lines += ["", *preset_lines(self)]
        if self.parity:
            lines += [
                "",
                f"Parity on {self.dataset}, against PyTorch fp32.",
                "",
                markdown_table(parity_table(self.parity)),
            ]
        lines += [f"\n```\n{verdict.to_text()}\n```" for verdict in self.verdicts]
        return "\n".join(lines) + "\n"
