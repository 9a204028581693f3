"""Check that two benchmarks on a busy machine agree: python -m rtk.tools.busy_machine [--out FILE].

A neighbour process keeps one core half busy. Beside it, the zoo's default model is measured twice on PyTorch, ONNX
Runtime and OpenVINO, and once more with one backend that is slowed down by a fifth on purpose. Each ratio to PyTorch of
the second run should agree with that of the first within their intervals, and the slowdown should be found, by the
ratios and by `rtk bench --compare`.
"""

import contextlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from ..bench.config import BenchConfig
from ..bench.measure.cell import Cell
from ..bench.measure.contenders import Contender
from ..bench.measure.ratio import Ratio, ratio_of
from ..bench.report.regressions import compare_reports
from ..bench.report.report import Report
from ..bench.report.tables import base_of
from ..bench.run import run
from ..cli.options import run_module
from ..core.data.datasets import Dataset, Split
from ..core.files import temporary_folder, write_whole
from ..core.machine import this_machine
from ..core.probe import probe_images
from ..core.records import restored
from ..core.text import markdown_table
from ..core.zoo import DEFAULT, zoo_file
from ..infer.backend import Backend, BackendOptions
from ..infer.open_backend import open_backend

RECORDS = Path(__file__).parent.parent / "bench" / "results" / "busy-machine"
BACKENDS = {"torch": ".pt", "onnx": ".onnx", "openvino": ".onnx"}
SLOWED, SLOWDOWN = "onnx", 1.25
"""The backend whose calls take this much longer in the third run: it loses a fifth of its rate."""
NEIGHBOUR = """
import time
while True:
    until = time.perf_counter() + 0.01
    while time.perf_counter() < until:
        pass
    time.sleep(0.01)
"""
"""A program that computes for 10 ms, sleeps for 10 ms, and so on."""
BATCHES = (1, 4, 16, 64, 256)
LIMIT_PERCENT = 5.0


@dataclass(frozen=True)
class BusyRecord:
    """What two runs and a slowed one showed."""

    machine: str
    date: str
    seconds: float
    """Measuring time of each run."""
    quiet_load: float
    """Largest share of the cores that other processes took in a cell without the neighbour's work: what was there."""
    other_share: float
    """Share of the cores that other processes took beside the two runs, in the median cell."""
    ratios: int
    agreeing: int
    """Ratios of the first two runs that agree within their intervals."""
    largest_difference: float
    """Of two such ratios, as a share."""
    median_width: float
    """Of the intervals of the first run, either side, as a share."""
    false_alarms: int
    """Cells and backends of the second run that --compare calls slower than in the first."""
    slowed: int
    """Cells of the slowed backend."""
    found_by_ratio: int
    """Those whose ratio is below that of the first run by more than both intervals together."""
    found_by_compare: bool
    """Whether --compare calls the slowed backend slower by more than the limit: one of its cells, or all together."""
    called_by_compare: int
    """Cells of other backends that --compare calls slower in the slowed run: false alarms too."""


class Slowed(Backend):
    """Another backend whose calls take SLOWDOWN times as long; it computes meanwhile, as slower code would."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.device, self.runs_on = backend.name, backend.device, backend.runs_on
        self.card, self.precision, self.max_batch, self._backend = (
            backend.card,
            backend.precision,
            backend.max_batch,
            backend,
        )

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        started_at = time.perf_counter()
        logits_NK = self._backend(images_NHWC)
        until = started_at + SLOWDOWN * (time.perf_counter() - started_at)
        while time.perf_counter() < until:
            pass
        return logits_NK


def main(
    seconds: Annotated[float, typer.Option(help="Measuring time of each of the three runs.")] = 60.0,
    out: Annotated[Path | None, typer.Option(help="Write the record to this file too.")] = None,
) -> None:
    """Print what two runs and a slowed one showed beside the neighbour."""
    record = measured(seconds)
    if out:
        write_whole(out, json.dumps(asdict(record), indent=1) + "\n")
    print(text_of(record))


def measured(seconds: float) -> BusyRecord:
    """Make the three runs."""
    config = BenchConfig(BATCHES, seconds=seconds)
    quiet = _run(BenchConfig((8,), seconds=2.0), slowed=False)
    with _neighbour():
        runs = [_run(config, slowed=slowed) for slowed in (False, False, True)]
    first, second, slow = runs
    with temporary_folder(None) as folder:
        files = []
        for number, report in enumerate(runs):
            files.append(folder / f"{number}.json")
            files[-1].write_text(report.to_json(), encoding="utf-8")
        same, slower = compare_reports(files[0], files[1]), compare_reports(files[0], files[2])
    pairs = list(zip(_ratios(first), _ratios(second), strict=True))
    differences = [_difference(one, other) for (_, one), (_, other) in pairs]
    dropped = [
        _difference(one, other) < -_width(one, other)
        for (cell, one), (_, other) in zip(_ratios(first), _ratios(slow), strict=True)
        if cell.backend == SLOWED
    ]
    alarms = [change for change in slower.changes + slower.pooled if change.slower_by_more_than(LIMIT_PERCENT)]
    return BusyRecord(
        machine=this_machine().summary,
        date=first.date,
        seconds=seconds,
        quiet_load=max(cell.other_share or 0.0 for cell in quiet.cells),
        other_share=float(np.median([cell.other_share or 0.0 for one in (first, second) for cell in one.cells])),
        ratios=len(pairs),
        agreeing=sum(abs(_difference(one, other)) <= _width(one, other) for (_, one), (_, other) in pairs),
        largest_difference=math.expm1(max(map(abs, differences))),
        median_width=math.expm1(float(np.median([_log_width(one) for _, one in _ratios(first)]))),
        false_alarms=sum(change.slower_by_more_than(LIMIT_PERCENT) for change in same.changes + same.pooled),
        slowed=len(dropped),
        found_by_ratio=sum(dropped),
        found_by_compare=any(change.new.backend == SLOWED for change in alarms),
        called_by_compare=sum(change.new.backend != SLOWED for change in alarms),
    )


@contextlib.contextmanager
def _neighbour() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _run(config: BenchConfig, *, slowed: bool) -> Report:
    """One benchmark; few answers are compared, because only the speed matters here."""
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_backend(name, zoo_file(DEFAULT, suffix), BackendOptions("cpu", steady=True)))
            for name, suffix in BACKENDS.items()
        ]
        reference = opened[0]
        images_NHWC = probe_images(64, reference.card.input)
        labels_N = reference(images_NHWC).argmax(axis=1)
        data = Dataset("probe images", reference.card.classes, lambda split: Split(images_NHWC, labels_N))
        backends = [Slowed(one) if slowed and one.name == SLOWED else one for one in opened]
        graph = zoo_file(DEFAULT, ".onnx")
        return run([Contender(one) for one in backends], reference, data, config, unusable={}, graph=graph)


def _ratios(report: Report) -> list[tuple[Cell, Ratio]]:
    found = []
    for cell in report.cells:
        base = base_of(cell, report.cells, "torch")
        if base is not None and base is not cell:
            found.append((cell, ratio_of(cell, base)))
    return found


def _difference(one: Ratio, other: Ratio) -> float:
    """How much the second ratio is above the first, as a difference of logarithms."""
    return math.log(other.value / one.value)


def _width(one: Ratio, other: Ratio) -> float:
    """The distance that both intervals together allow."""
    return math.hypot(_log_width(one), _log_width(other))


def _log_width(ratio: Ratio) -> float:
    assert ratio.interval is not None
    return max(math.log(ratio.value / ratio.interval[0]), math.log(ratio.interval[1] / ratio.value))


def text_of(record: BusyRecord) -> str:
    """The record as one row of Markdown, and the sentence that explains it."""
    row = {
        "ratios that agree": f"{record.agreeing} of {record.ratios}",
        "largest difference": f"{record.largest_difference:.0%}",
        "interval": f"±{record.median_width:.0%}",
        "called slower in error": f"{record.false_alarms + record.called_by_compare}",
        "slowdown found by ratios": f"{record.found_by_ratio} of {record.slowed}",
        "and by --compare": "yes" if record.found_by_compare else "no",
    }
    sentence = (
        f"Two runs of {record.seconds:g} s beside a process that keeps one core half busy, so that others took "
        f"{record.other_share:.0%} of the cores, and a third in which {SLOWED} loses a fifth of its rate. "
        f"{record.machine}, {record.date}."
    )
    return f"{fill(sentence, 120)}\n\n{markdown_table([row])}"


def busy_block(records: Path = RECORDS) -> str:
    """The newest record, for docs/benchmarks.md; empty without any."""
    found: list[BusyRecord] = [
        restored(BusyRecord, json.loads(path.read_text(encoding="utf-8"))) for path in records.glob("*.json")
    ]
    return text_of(max(found, key=lambda one: one.date)) if found else ""


if __name__ == "__main__":
    run_module(main)
