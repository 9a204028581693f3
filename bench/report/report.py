"""What a benchmark found, as data: written to report.json, and read back as the same Report.

SCHEMA.md describes the file. Its keys are the fields of the dataclass `Report` and of those in it.
"""

import dataclasses
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.card import ModelCard
from ...core.errors import ArtifactError
from ...core.machine import Machine
from ...core.records import restored
from ..config import BenchConfig
from ..measure.bootstrap import rate_interval
from ..measure.cell import Cell
from ..measure.environment import Moment
from ..parity.compare import Parity
from ..parity.verdict import Verdict
from ..roofline.roofline import Ceiling, DeviceRates, Operations, ceiling_of

SCHEMA = "rtk-bench-2"
"""Goes up with every change that an older reader would misread; SCHEMA.md describes it."""


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


def read_report(path: Path) -> Report:
    """The report in this file or folder. Raises ArtifactError when it is not one of this version's schema."""
    fields = _fields(path)
    try:
        report: Report = restored(Report, fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: an incomplete report ({error}); write it anew with rtk bench") from error
    return report


def read_cells(path: Path) -> list[Cell]:
    """Only the cells of a report, which is what comparing needs. Raises ArtifactError."""
    fields = _fields(path)
    try:
        return [restored(Cell, cell) for cell in fields["cells"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: an incomplete report ({error}); write it anew with rtk bench") from error


def _fields(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        path = path / "report.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such report") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not a report of rtk bench ({error})") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ArtifactError(f"{path}: schema {schema!r}, expected {SCHEMA!r}; write the report anew with rtk bench")
    return typing.cast(Mapping[str, Any], content)
