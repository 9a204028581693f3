"""Compare rtk classify on a terminal with rtk classify without one: python -m rtk.tools.terminal_rate.

Classifies the same small files with standard error on a pseudo-terminal, where the progress bar is drawn, and with
standard error in a file. Both take turns, so that changes of the machine cancel out in the ratio of the two rates.
"""

import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from ..bench.files.image_files import write_pngs
from ..bench.measure.bootstrap import paired_ratio_interval
from ..bench.measure.cell import Cell
from ..cli.options import run_module
from ..core.data.open_dataset import open_dataset
from ..core.files import temporary_folder

MODEL = "resnet20v1-cifar10"
RATIO_EXPECTED = 0.97
"""The smallest share of the rate without a terminal that the progress bar may leave."""


def main(
    images: Annotated[int, typer.Option(help="Number of files.", min=1)] = 100_000,
    rounds: Annotated[int, typer.Option(help="Runs of each kind.", min=2)] = 4,
) -> None:
    """Print the ratio of the two rates, with its 95 % confidence interval."""
    on_terminal, in_file = Cell("terminal", images), Cell("file", images)
    with temporary_folder(None) as folder:
        pictures = folder / "images"
        pictures.mkdir()
        write_pngs(open_dataset("cifar10").split("test"), pictures, images)
        classify_s(pictures, folder, terminal=False)  # the files are in memory from here on
        for number in range(rounds):
            for cell in (on_terminal, in_file) if number % 2 else (in_file, on_terminal):
                cell.rounds.append([classify_s(pictures, folder, terminal=cell is on_terminal)])
                print(f"{cell.backend}: {images / cell.rounds[-1][0]:,.0f} images/s", flush=True)
    interval = paired_ratio_interval(on_terminal, in_file)
    assert interval is not None
    ratio = on_terminal.images_per_s / in_file.images_per_s
    print(
        f"terminal / file: {ratio:.3f} ({interval[0]:.3f} to {interval[1]:.3f}), expected at least {RATIO_EXPECTED}, "
        f"{images:,} images, {rounds} runs each, load {os.getloadavg()[0]:.1f}"
    )


def classify_s(pictures: Path, folder: Path, *, terminal: bool) -> float:
    """Classify a folder in a new process, and return the seconds that it took."""
    output = folder / "answers.csv"
    command = (sys.executable, "-m", "rtk", "classify", str(pictures), "-m", MODEL, "-o", str(output))
    started_at = time.perf_counter()
    if terminal:
        ours, theirs = pty.openpty()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as process:
            os.close(theirs)
            reader = threading.Thread(target=_read_all, args=(ours,))
            reader.start()
        reader.join()
        os.close(ours)
    else:
        with (folder / "errors.txt").open("wb") as errors:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
            process.wait()
    taken_s = time.perf_counter() - started_at
    if process.returncode:
        raise SystemExit(process.returncode)
    output.unlink()
    return taken_s


def _read_all(descriptor: int) -> None:
    """Read what is written to a terminal, until nobody has it open."""
    try:
        while os.read(descriptor, 1 << 16):
            pass
    except OSError:  # how Linux says that a terminal is closed
        return


if __name__ == "__main__":
    run_module(main)
