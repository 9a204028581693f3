"""Train the networks of the published table while there is time: make table, or python -m rtk.tools.train_published."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ..cli.options import ENDED_BY_CTRL_C, run_module
from ..core.artifacts.checkpoint import load_checkpoint
from ..core.card import ModelCard
from ..core.errors import TrainingError
from ..core.files import make_folder, write_whole
from .published import RECORDS, ROWS, Row, kept_cards
from .readme_blocks import ROOT, published_block
from .readme_tables import fill_pages

RUNS = Path("runs") / "table"
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL)
"""Exit codes of a training that was stopped: while it trained, before that, and by SIGKILL."""
STOP_LIMIT_S = 120.0
"""Time that a training gets after SIGTERM to finish its step and to save."""


def train_published(
    minutes: Annotated[float, typer.Option(min=0, help="Training time; 0 only writes the table.")] = 60.0,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds per row.")] = 1,
    recipe: Annotated[str, typer.Option(help="Recipe of every training.")] = "rtk",
    runs: Annotated[Path, typer.Option(help="Folder of the runs; unfinished ones are resumed.")] = RUNS,
) -> None:
    """Train the rows of the published table in their order while there is time, and write the table."""
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
    finally:  # also after an error: the rows that are finished are written
        for page in fill_pages(ROOT, {"published": published_block(kept_cards())}):
            print(page)


def train_for(row: Row, recipe: str, seed: int, *, runs: Path, seconds: float) -> ModelCard | None:
    """Train or resume a row for at most `seconds`: return its card when it is finished, None when time ran out.

    Raises TrainingError when the command fails, which has printed why; KeyboardInterrupt when Ctrl-C stops it.
    """
    out = runs / f"{row.name}-{recipe}-s{seed}"
    first = (row.arch, "--dataset", row.dataset, "--recipe", recipe, "--seed", str(seed), "--out", str(out))
    words = ("--resume", str(out)) if (out / "last.pt").exists() else first
    process = subprocess.Popen([sys.executable, "-m", "rtk", "train", *words])
    try:
        code = process.wait(seconds)
    except KeyboardInterrupt:  # Ctrl-C reaches both processes; the training saves first
        process.wait(STOP_LIMIT_S)
        raise
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            code = process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:  # the last saved state is whole
            process.kill()
            code = process.wait()
    if code in STOPPED:
        return None
    if code in ENDED_BY_CTRL_C:
        raise KeyboardInterrupt
    if code != 0:
        raise TrainingError(f"rtk train {' '.join(words)}: exit code {code}")
    return load_checkpoint(out / "best.pt").card


if __name__ == "__main__":
    run_module(train_published)
