"""Compare rtk's int8 graphs with those of ONNX Runtime's quantiser and of NNCF: python -m rtk.tools.int8_table.

All graphs are calibrated on the same images of the training split. `--part answers` compares their answers with
PyTorch's on the whole test split; `--part speed` times them in one interleaved run, which wants a quiet machine, and
adds to the answers that were found before; `--part all` does both. The figures go to bench/results/int8/MODEL.json, the
tables to docs/int8.md.
"""

import os
from contextlib import ExitStack
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer
from numpy.typing import NDArray

from ..bench.config import BenchConfig
from ..bench.measure.cell import Cell
from ..bench.measure.contenders import Contender
from ..bench.measure.runners import rotating_images, runner_of
from ..bench.measure.timing import measure_interleaved
from ..cli.options import run_module
from ..core.artifacts.checkpoint import Checkpoint, load_checkpoint
from ..core.data.datasets import Dataset
from ..core.data.open_dataset import open_dataset
from ..core.errors import UsageError
from ..core.files import temporary_folder
from ..core.machine import this_machine
from ..core.tolerances import differences
from ..core.zoo import zoo_names
from ..export.int8.calibration import draw_calibration
from ..export.int8.quantize import reference_logits
from ..export.int8.ranges import logits_as_written
from ..infer.backend import BackendOptions
from ..infer.open_backend import open_backend
from ..workflow.models import find_model
from .int8_graphs import NNCF_MISSING, TARGETS, int8_graphs
from .int8_record import AS_WRITTEN, ON_CPU, RECORDS, Answers, Record, Timed, int8_block, read_record
from .readme_blocks import ROOT
from .readme_tables import fill_pages

PARTS = ("all", "answers", "speed", "table")
BATCH = 100
TIMED_BATCH = 64


def int8_table(
    model: Annotated[list[str] | None, typer.Option(help="Model of the zoo; repeatable; default: all.")] = None,
    part: Annotated[str, typer.Option(help="all, answers, speed, or table to write docs/int8.md only.")] = "all",
    seconds: Annotated[float, typer.Option(help="Measuring time of each model on each runtime.")] = 120.0,
    folder: Annotated[Path, typer.Option(help="Folder of the figures.")] = RECORDS,
    root: Annotated[Path, typer.Option(help="Folder with README.md and docs/.")] = ROOT,
) -> None:
    """Compare int8 graphs on the test split and in speed, and write the tables of docs/int8.md."""
    if part not in PARTS:
        raise UsageError(f"--part {part}: expected one of {', '.join(PARTS)}")
    if part != "table":
        if find_spec("nncf") is None:
            print(NNCF_MISSING)
        for name in model or zoo_names():
            checkpoint_path = find_model(name).checkpoint
            assert checkpoint_path is not None  # models of the zoo have one
            checkpoint = load_checkpoint(checkpoint_path)
            print(compare(name, checkpoint, open_dataset(checkpoint.card.dataset), folder, part=part, seconds=seconds))
    for page, names in fill_pages(root, {"int8": int8_block(folder)}).items():
        print(f"{page}: {', '.join(names)}")


def compare(name: str, checkpoint: Checkpoint, dataset: Dataset, folder: Path, *, part: str, seconds: float) -> Path:
    """Make all graphs of a checkpoint, compare what `part` says, and return the path of the record.

    Raises UsageError if only the speed is asked for and no answers are known.
    """
    path = folder / f"{name}.json"
    if part == "speed" and not path.is_file():
        raise UsageError(f"{path}: no such file; find the answers first, with --part answers")
    calibration = draw_calibration(dataset, checkpoint.card)
    with temporary_folder(None) as made:
        targets = ("cpu",) if part == "speed" else TARGETS  # only those for CPUs are timed
        graphs = list(int8_graphs(checkpoint, calibration, made, targets=targets))
        record = read_record(path) if part == "speed" else _answers(name, checkpoint, dataset, graphs)
        if part != "answers":
            _time(record, [(graph, path) for target, graph, path in graphs if target == "cpu"], seconds)
    return record.write(folder)


def _answers(name: str, checkpoint: Checkpoint, dataset: Dataset, graphs: list[tuple[str, str, Path]]) -> Record:
    """Run every graph on the whole test split, on each runtime that it is for."""
    test = dataset.scored()
    reference_NK = reference_logits(checkpoint, test.images_NHWC)
    right = int((reference_NK.argmax(axis=1) == test.labels_N).sum())
    machine = this_machine()
    record = Record(name, len(test), right, machine.summary, machine.libraries, [])
    for target, graph, path in graphs:
        for runtime in ON_CPU if target == "cpu" else (AS_WRITTEN,):
            logits_NK = _logits(path, runtime, test.images_NHWC)
            answers_N = logits_NK.argmax(axis=1)
            _, relative_error = differences(logits_NK, reference_NK)
            found = Answers(
                graph,
                runtime,
                int((answers_N == test.labels_N).sum()),
                int((answers_N == reference_NK.argmax(axis=1)).sum()),
                relative_error,
            )
            record.answers.append(found)
            print(f"{name}: {graph}, {runtime}: {found.right:,} right, {found.same:,} the same", flush=True)
    return record


def _logits(graph: Path, runtime: str, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    if runtime == AS_WRITTEN:
        return logits_as_written(onnx.load(graph), images_NHWC)
    with open_backend(runtime, graph, BackendOptions(device="cpu")) as backend:
        starts = range(0, len(images_NHWC), BATCH)
        return np.concatenate([backend(images_NHWC[start : start + BATCH]) for start in starts])


def _time(record: Record, graphs: list[tuple[str, Path]], seconds: float) -> None:
    """Time all graphs in one interleaved run on each runtime, and put the cells into the record."""
    config = BenchConfig(batches=(TIMED_BATCH,), seconds=seconds, scopes=("sync",), rounds=40)
    load = os.getloadavg()[0]
    record.timed.clear()
    for runtime in ON_CPU:
        with ExitStack() as stack:
            cells, runners = [], []
            for name, path in graphs:
                backend = stack.enter_context(open_backend(runtime, path, BackendOptions(device="cpu")))
                images_NHWC = rotating_images(backend.card.input, TIMED_BATCH)
                cells.append(Cell(name, TIMED_BATCH, "int8"))
                runners.append(
                    runner_of(Contender(backend), "sync", TIMED_BATCH, images_NHWC, resident=None, files=None)
                )
            measured = measure_interleaved(cells, runners, config, on_change=lambda cell: None)
            record.timed.append(Timed(runtime, measured.cells))
    record.timed_on = (
        f"batches of {TIMED_BATCH}, {seconds:.0f} s on each runtime, all graphs in turn, 95 % intervals; "
        f"{this_machine().summary}, {date.today().isoformat()}, load average {load:.1f} at the start"
    )


if __name__ == "__main__":
    run_module(int8_table)
