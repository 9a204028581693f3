"""What was measured of int8 graphs, as JSON in bench/results/int8/, and its tables for docs/int8.md."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill

from ..bench.measure.cell import Cell
from ..bench.measure.ratio import ratio_of
from ..core.files import make_folder, write_whole
from ..core.json_text import json_text, with_numbers_on_one_line
from ..core.records import restored
from ..core.text import markdown_table

RECORDS = Path(__file__).parent.parent / "bench" / "results" / "int8"
AS_WRITTEN = "as written"
"""How graphs for TensorRT are judged without a GPU: in fp32 arithmetic between the quantised values."""
ON_CPU = {"onnx": "On ONNX Runtime", "openvino": "On OpenVINO"}
RUNTIMES = {**ON_CPU, AS_WRITTEN: "For TensorRT, computed in fp32 arithmetic between the quantised values"}
BASE = "ONNX Runtime MinMax"
"""The graph that speeds are relative to."""


@dataclass(frozen=True)
class Answers:
    """The answers of one graph on one runtime, on the test split."""

    graph: str
    runtime: str
    """onnx, openvino, or as written."""
    right: int
    same: int
    """Number of images with the same answer as PyTorch in fp32."""
    relative_error: float
    """Root mean square of the logit differences over the standard deviation of PyTorch's logits."""


@dataclass(frozen=True)
class Timed:
    """All graphs on one runtime, in one interleaved run."""

    runtime: str
    cells: list[Cell]
    """The backend of a cell is the name of the graph."""


@dataclass
class Record:
    """All graphs of one model."""

    model: str
    images: int
    reference_right: int
    machine: str
    libraries: dict[str, str]
    answers: list[Answers]
    timed: list[Timed] = field(default_factory=list)
    timed_on: str = ""
    """When and where the cells were measured, and the load of the machine then; empty without cells."""

    def write(self, folder: Path = RECORDS) -> Path:
        """Write the record into the folder."""
        path = make_folder(folder) / f"{self.model}.json"
        text = json_text(dataclasses.asdict(self), read_back=True, indent=1)
        write_whole(path, with_numbers_on_one_line(text) + "\n")
        return path


def read_record(path: Path) -> Record:
    """Read a record."""
    record: Record = restored(Record, json.loads(path.read_text(encoding="utf-8")))
    return record


WIDTH = 120
"""Columns of prose in the docs."""


def int8_block(folder: Path = RECORDS) -> str:
    """Return the tables of all records."""
    return "\n\n".join("\n".join(_lines(read_record(path))) for path in sorted(folder.glob("*.json")))


def _lines(record: Record) -> Iterator[str]:
    yield fill(
        f"**{record.model}**: {record.images:,} test images, of which PyTorch in fp32 has {record.reference_right:,} "
        f"right; {record.machine}",
        WIDTH,
    )
    for runtime, title in RUNTIMES.items():
        rows = [_row(found, record) for found in record.answers if found.runtime == runtime]
        if rows:
            yield from ("", f"{title}:", "", markdown_table(rows))
    if record.timed_on:
        yield from ("", fill(f"Speed: {record.timed_on}.", WIDTH))


def _row(found: Answers, record: Record) -> dict[str, str]:
    cells = next((one.cells for one in record.timed if one.runtime == found.runtime), [])
    speed = {f"speed against {BASE}": _speed(found.graph, cells)} if cells else {}
    return {
        "graph": found.graph,
        "right": f"{found.right:,}",
        "same answers as PyTorch fp32": f"{found.same:,}",
        "relative error of the logits": f"{found.relative_error:.2%}",
        **speed,
    }


def _speed(name: str, cells: Sequence[Cell]) -> str:
    by_name = {cell.backend: cell for cell in cells if cell.valid}
    if name not in by_name or BASE not in by_name:
        return ""
    if name == BASE:
        return "1"
    cell, base = by_name[name], by_name[BASE]
    ratio = ratio_of(cell, base)
    if ratio.disturbed or ratio.interval is None:
        return ratio.text
    return f"{ratio.value:.2f} ({ratio.interval[0]:.2f} to {ratio.interval[1]:.2f})"
