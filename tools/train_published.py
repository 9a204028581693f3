"""Train what there is time for, and put the accuracies beside the published ones: make table."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ..cli.options import run_module
from ..core.artifacts.checkpoint import load_checkpoint
from ..core.card import ModelCard
from ..core.errors import TrainingError
from ..core.files import make_folder, write_whole
from .published import RECORDS, ROWS, Row
from .readme_tables import README, filled, table_blocks

RUNS = Path("runs") / "table"
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL)
"""Exit codes of one that was told to stop: in training, before it, and when it did not."""
STOP_LIMIT_S = 120.0  # for the step to end, and for saving


def table(
    minutes: Annotated[float, typer.Option(min=0, help="Time to train in; 0 only writes the table.")] = 60.0,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings a row.")] = 1,
    recipe: Annotated[str, typer.Option(help="What is trained by.")] = "rtk",
    runs: Annotated[Path, typer.Option(help="Where unfinished trainings wait.")] = RUNS,
) -> None:
    """Train rows in their order while there is time, and write every row's figures into the README."""
    deadline = time.monotonic() + 60 * minutes
    try:
        for row in ROWS:
            for seed in range(seeds):
                record = RECORDS / f"{row.name}-{recipe}-s{seed}.json"
                left_s = deadline - time.monotonic()
                if left_s <= 0 or record.exists():
                    continue
                card = train_for(row, recipe, seed, runs=runs, seconds=left_s)
                if card:
                    make_folder(RECORDS)
                    write_whole(record, card.to_json(indent=1) + "\n")
    finally:  # whatever ended it, with the rows that are finished
        write_whole(README, filled(README.read_text(encoding="utf-8"), table_blocks()))
        print(README)


def train_for(row: Row, recipe: str, seed: int, *, runs: Path, seconds: float) -> ModelCard | None:
    """Train this, or go on with it, for so long at most: the card when it is finished, None when time ran out.

    Raises TrainingError when the command fails; what it said stands above.
    """
    out = runs / f"{row.name}-{recipe}-s{seed}"
    fresh = (row.arch, "--dataset", row.dataset, "--recipe", recipe, "--seed", str(seed), "--out", str(out))
    what = ("--resume", str(out)) if (out / "last.pt").exists() else fresh
    process = subprocess.Popen([sys.executable, "-m", "rtk", "train", *what])
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            code = process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:  # what was saved last is whole
            process.kill()
            code = process.wait()
    if code in STOPPED:
        return None
    if code != 0:
        raise TrainingError(f"rtk train {' '.join(what)}: exit code {code}")
    return load_checkpoint(out / "best.pt").card


if __name__ == "__main__":
    run_module(table)
