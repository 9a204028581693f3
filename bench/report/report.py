"""The result of a benchmark as data: written to report.json, and read back as the same Report.

SCHEMA.md describes the file. Its keys are the fields of the dataclass `Report` and of the dataclasses inside it.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.card import ModelCard
from ...core.errors import ArtifactError
from ...core.json_text import json_text, with_numbers_on_one_line
from ...core.machine import Machine
from ...core.records import restored
from ..config import BenchConfig
from ..measure.bootstrap import rate_interval
from ..measure.cell import Cell
from ..measure.contenders import RanFile
from ..measure.environment import Moment
from ..measure.self_check import REJECTED
from ..parity.compare import Parity
from ..parity.verdict import Verdict
from ..roofline.roofline import Ceiling, DeviceRates, Operations, Share, ceiling_of, share_of

SCHEMA = "rtk-bench-7"
"""The number increases with every change that an older reader would misread; SCHEMA.md describes it."""
EARLIER = ("rtk-bench-2", "rtk-bench-3", "rtk-bench-4", "rtk-bench-5", "rtk-bench-6")
"""The earlier schemas that are still read."""
FAMILY = "rtk-bench-"
"""Beginning of the name of every schema."""
EARLIER_REJECTED = "not believed: returns before its work is done"
"""Beginning of `caught` in an earlier report, which REJECTED replaces."""
NOT_MEASURED = "parity was not measured: speed alone, on random images; it says nothing about the answers"
PYTORCH = "PyTorch fp32"
REFERENCE, CEILING = "reference", "ceiling"
"""Keys of `Report.files` besides the labels: the reference's checkpoint, and the graph whose operations are counted."""


@dataclass(frozen=True)
class Report:
    """One run of `rtk bench`."""

    model: ModelCard
    machine: Machine
    date: str
    config: BenchConfig
    backends: dict[str, str]
    """What ran each backend, with its threads or its GPU; by label."""
    unusable: dict[str, str]
    """Why a backend could not run here; by label."""
    cells: list[Cell]
    dataset: str
    parity: list[Parity]
    verdicts: list[Verdict] = field(default_factory=list)
    """The parity gate's, for every backend except the reference and the baselines."""
    ready_s: dict[str, float] = field(default_factory=dict)
    """Seconds of exporting, building and opening; by label."""
    coincidences: list[str] = field(default_factory=list)
    """Scopes that are the same measurement as another one, as text."""
    before: Moment | None = None
    after: Moment | None = None
    graph: Operations | None = None
    """The work of one image, counted from the graph that `files` calls the ceiling's; None: see `unusable`."""
    devices: dict[str, str] = field(default_factory=dict)
    """The device that each backend computes on, cpu or cuda:N; by label."""
    rates: list[DeviceRates] = field(default_factory=list)
    """The rates of these devices, measured in the same run."""
    pictures: dict[str, str] = field(default_factory=dict)
    """Images whose answers changed: PNG in base64, by index in the split."""
    self_checked: bool = False
    """Whether the self-check ran for every backend; it notes in the cells what it rejected."""
    interrupted: bool = False
    """Whether Ctrl-C stopped it early."""
    reference: str = PYTORCH
    """What the answers are compared with, in words."""
    parity_measured: bool = True
    """False: speed alone was measured, on random images, and nothing is known about the answers."""
    remarks: list[str] = field(default_factory=list)
    """What a reader must know about the model besides its card: random weights, for example."""
    files: dict[str, RanFile] = field(default_factory=dict)
    """Every file that took part: by label, and REFERENCE and CEILING; empty in earlier reports."""

    def ceiling(self, cell: Cell) -> Ceiling | None:
        """The ceiling of the cell on its own device; None where it is unknown."""
        rates = self._rates_of(cell)
        return ceiling_of(cell, self.graph, rates) if self.graph and rates else None

    def share(self, cell: Cell) -> Share | None:
        """The share of its ceiling that the cell reaches; None where it is unknown."""
        rates = self._rates_of(cell)
        return share_of(cell, self.graph, rates) if self.graph and rates and cell.valid else None

    def _rates_of(self, cell: Cell) -> DeviceRates | None:
        device = self.devices.get(cell.label)
        return next((one for one in self.rates if one.device == device), None)

    def to_json(self) -> str:
        """The whole report with raw samples; figures that follow from them are added for other readers."""
        content: dict[str, Any] = {"schema": SCHEMA, **dataclasses.asdict(self)}
        for cell, fields in zip(self.cells, content["cells"], strict=True):
            fields["rounds"] = [[round(sample, 9) for sample in samples] for samples in cell.rounds]
            if cell.valid:
                fields |= {"images_per_s": cell.images_per_s, "spread": cell.spread, "noisy": cell.noisy}
                fields |= {f"p{p}_ms": cell.percentile_ms(p) for p in (50, 90, 99)}
                fields["images_per_s_interval"] = rate_interval(cell)
                fields |= {"mean_images_per_s": cell.mean_images_per_s, "outliers": cell.outliers}
                fields |= {"other_share": cell.other_share, "disturbed": cell.disturbed}
                fields["switch_ms"] = cell.switch_ms
                ceiling, share = self.ceiling(cell), self.share(cell)
                fields["ceiling"] = dataclasses.asdict(ceiling) if ceiling else None
                fields["share_of_ceiling"] = dataclasses.asdict(share) | {"wrong": share.wrong} if share else None
        text = json_text(content, read_back=True, indent=1, ensure_ascii=False)
        return with_numbers_on_one_line(text) + "\n"


def read_report(path: Path) -> Report:
    """The report in this file or folder. Raises ArtifactError for another file or an unknown schema."""
    report: Report = _restored(path, lambda content: restored(Report, content))
    return report


def _restored(path: Path, restore: Callable[[dict[str, Any]], Any]) -> Any:
    content = _content(path)
    try:
        if content["schema"] in EARLIER[:1]:
            _upgrade_to_3(content)
        if content["schema"] in EARLIER[:2]:
            _upgrade_to_4(content)
        if content["schema"] in EARLIER[:3]:
            _upgrade_to_5(content)
        return restore(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path}: an incomplete report ({error}); measure again: rtk bench --report FOLDER"
        ) from error


def _content(path: Path) -> dict[str, Any]:
    """The JSON of a report, whose schema is SCHEMA or one of EARLIER."""
    if path.is_dir():
        path = path / "report.json"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such report; write one: rtk bench MODEL --report FOLDER") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not a report of rtk bench ({error})") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: not a report of rtk bench (expected a JSON object)")
    schema = content.get("schema")
    if not str(schema).startswith(FAMILY):
        raise ArtifactError(f"{path}: not a report of rtk bench: its schema is {schema!r}, expected {SCHEMA!r}")
    if schema not in (SCHEMA, *EARLIER):
        raise ArtifactError(
            f"{path}: schema {schema!r}, expected one of {', '.join(map(repr, (*EARLIER, SCHEMA)))}; measure again: "
            "rtk bench --report FOLDER"
        )
    return content


def _upgrade_to_3(content: dict[str, Any]) -> None:
    """Schema 2 to 3: `caught` is `rejected`, and verdicts have counts."""
    for cell in content.get("cells", ()):
        cell["rejected"] = cell.pop("caught", "").replace(EARLIER_REJECTED, REJECTED)
    counts = {one["candidate"]: one for one in content.get("parity", ())}
    for verdict in content.get("verdicts", ()):
        parity = counts.get(verdict["candidate"])
        if parity is not None:
            verdict |= {name: parity[name] for name in ("images", "candidate_correct", "reference_correct")}
            verdict["changed"] = parity["images"] - parity["agreeing"]


def _upgrade_to_4(content: dict[str, Any]) -> None:
    """Schema 3 to 4: rates are a list. Earlier reports judged all backends by the rates of one device."""
    rates = content.pop("rates", None)
    content["rates"] = [rates] if rates else []
    content["devices"] = dict.fromkeys(content.get("backends", ()), rates["device"]) if rates else {}


def _upgrade_to_5(content: dict[str, Any]) -> None:
    """Schema 4 to 5: a check has an outcome of three values. Earlier ones passed or not."""
    for verdict in content.get("verdicts", ()):
        for check in verdict["checks"]:
            check["outcome"] = "passed" if check.pop("passed") else "failed"
