"""TensorBoardLog: the history of a run as the scalars that TensorBoard shows; one step is one epoch."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..core.errors import OutputError, UsageError

SCALARS = {
    "learning_rate": "lr",
    **{f"{what}/{split}": f"{split}_{what}" for what in ("loss", "accuracy") for split in ("train", "holdout", "test")},
    "skipped_steps": "skipped_steps",
}
"""Names in TensorBoard, and columns of the history; beside these there is images_per_second."""


def check_tensorboard() -> None:
    """Raise UsageError if TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise UsageError("--tensorboard: TensorBoard is not installed; run: pip install tensorboard")


class TensorBoardLog:
    """Writes rows of the history into an open log."""

    def __init__(self, folder: Path | None = None, writer: Any = None) -> None:
        """`writer`: a SummaryWriter into the folder; without one nothing is written."""
        self._folder, self._writer = folder, writer

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the scalars of an epoch, so that TensorBoard can show them at once. Raises OutputError."""
        if self._writer is None:
            return
        scalars = {name: row[column] for name, column in SCALARS.items() if column in row}
        scalars["images_per_second"] = row["images"] / row["epoch_s"]
        with _explained(self._folder):
            for name, value in scalars.items():
                if math.isfinite(value):
                    self._writer.add_scalar(name, value, row["epoch"])
            self._writer.flush()


@contextlib.contextmanager
def tensorboard_log(folder: Path, history: Sequence[Mapping[str, Any]]) -> Iterator[TensorBoardLog]:
    """Open the log in this folder after the epochs of `history`; a new log gets these first. Raises OutputError.

    Later epochs in a log are from a process that was killed before it saved them: TensorBoard drops these.
    """
    from torch.utils.tensorboard import SummaryWriter

    is_new = not any(folder.glob("events.out.tfevents.*"))
    with _explained(folder):
        writer = SummaryWriter(folder, purge_step=None if is_new else len(history) + 1)
    try:
        log = TensorBoardLog(folder, writer)
        for row in history if is_new else ():
            log.add(row)
        yield log
    finally:
        with _explained(folder):
            writer.close()


@contextlib.contextmanager
def _explained(folder: Path | None) -> Iterator[None]:
    """Turn an error of the file system into one line."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
