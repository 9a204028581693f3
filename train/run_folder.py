"""The folder of a run: config.json, history.jsonl and .csv, last.pt, best.pt, curves.png.

After a step that was not finite also not-finite.pt, with --tensorboard the folder tensorboard, and for the user's own
data the folder data, with lists of files.
"""

import csv
import io
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.artifacts.checkpoint import load_checkpoint
from ..core.data.options import is_named
from ..core.environment import use_writable_matplotlib_folder
from ..core.errors import ArtifactError, UsageError
from ..core.files import make_folder, whole_file, write_whole
from ..core.fonts import fonts_for, plain_text
from ..core.json_text import json_text
from ..core.machine import this_machine
from .config import TrainConfig
from .data.splits import RunFiles
from .recipes import EVALUATED

if TYPE_CHECKING:
    from matplotlib.figure import Figure


CURVES = {"train": "tab:blue", "holdout": "tab:green", "validation": "tab:red", "test": "tab:orange"}
"""The colour of each split's curve."""
COLUMNS = (
    *("epoch", "lr", "images", "train_loss", "train_accuracy", "skipped_steps"),
    *(f"{split}_{name}" for split in EVALUATED for name in ("correct", "total", "accuracy", "loss")),
    *("epoch_s", "stopped_early"),
)
"""Order of the columns in history.csv."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run; a file is either written completely or not at all."""

    path: Path

    @property
    def best(self) -> Path:
        """Weights and card of the selected epoch, for deployment."""
        return self.path / "best.pt"

    @property
    def last(self) -> Path:
        """The latest weights and card, with the state that resuming needs."""
        return self.path / "last.pt"

    @property
    def not_finite(self) -> Path:
        """The step that was not finite: images, labels, and the weights before it."""
        return self.path / "not-finite.pt"

    @property
    def tensorboard(self) -> Path:
        """The folder of the log for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def config(self) -> Path:
        """The options of the run."""
        return self.path / "config.json"

    def begin(self, config: TrainConfig) -> None:
        """Write the config of a new run. Raises UsageError if the folder already holds a run, and OutputError."""
        if self.last.exists():
            raise UsageError(
                f"{self.path}: holds a run already; resume it with: rtk train --resume {self.path}, "
                "or pass another --out"
            )
        self.write_config(config)

    def write_config(self, config: TrainConfig) -> None:
        """Write the options of the run. Raises OutputError."""
        write_whole(self.config, _with_absolute_paths(config).to_json())

    def read_config(self) -> TrainConfig:
        """The saved config of the run. Raises ArtifactError if it is missing."""
        if not self.config.is_file():
            raise ArtifactError(
                f"{self.path}: holds no run to resume; expected a folder with config.json; "
                f"start a run: rtk train ARCH --out {self.path}"
            )
        return TrainConfig.from_json(self.config.read_text("utf-8", "replace"), source=str(self.config))

    def read_state(self) -> dict[str, Any] | None:
        """The state that resuming needs, or None if the run has not saved any yet. Raises ArtifactError.

        It includes the preprocessing: after a start from other weights, their file may be gone.
        """
        if not self.last.exists():
            return None
        checkpoint = load_checkpoint(self.last)
        if checkpoint.training is None:
            raise ArtifactError(f"{self.last}: holds no training state; expected the last.pt of a run")
        return {**checkpoint.training, "preprocessing": checkpoint.card.preprocessing}

    def write_files(self, files: RunFiles) -> list[str]:
        """Write which of the user's own images the run uses, as tables; return what is worth a line in the log.

        data/SPLIT.csv: file and label, which `--dataset` reads too; data/unreadable.csv; data/repeated.csv: images of
        other splits with the same pixels as a training image.
        """
        folder, lines = self.path / "data", []
        for split, used in files.used.items():
            _write_table(folder / f"{split}.csv", ("file", "label"), used)
        for name, columns, rows, text in (
            ("unreadable", ("split", "file", "reason"), files.unreadable, "unreadable images, left out"),
            (
                "repeated",
                ("split", "file", "same_as"),
                files.repeated,
                "images with the same pixels as a training image",
            ),
        ):
            if rows:
                path = folder / f"{name}.csv"
                _write_table(path, columns, rows)
                lines.append(f"{text}: {len(rows):,}, listed in {path}")
        return lines

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Write one JSON line per epoch, and the same as a CSV table; a loss that is not finite is null, or empty."""
        write_whole(self.path / "history.jsonl", "".join(json_text(row) + "\n" for row in history))
        write_whole(self.path / "history.csv", _table(history))

    def write_curves(self, history: list[dict[str, Any]], *, title: str) -> None:
        """Plot loss, error and learning rate over the epochs."""
        use_writable_matplotlib_folder()
        with fonts_for(title), whole_file(self.path / "curves.png") as file:
            _curves(history, title=plain_text(title)).savefig(file, format="png", dpi=130)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows as CSV. Raises OutputError."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    make_folder(path.parent)
    write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _table(history: list[dict[str, Any]]) -> str:
    """The history as CSV: the columns that any row has, in the order of COLUMNS."""
    names = dict.fromkeys(name for row in history for name in row)
    columns = sorted(names, key=lambda name: COLUMNS.index(name) if name in COLUMNS else len(COLUMNS))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    for row in history:
        finite = {name: value for name, value in row.items() if value is not None and math.isfinite(value)}
        table.writerow(finite)
    return text.getvalue()


def _curves(history: list[dict[str, Any]], *, title: str) -> "Figure":
    """Loss, error and learning rate over the epochs."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for name, colour in CURVES.items():
        rows = [row for row in history if f"{name}_accuracy" in row]
        epochs = [row["epoch"] for row in rows]
        if rows:
            marker = "o" if len(rows) == 1 else None
            loss.plot(epochs, [row[f"{name}_loss"] for row in rows], color=colour, label=name, marker=marker)
            percent = [100 * (1 - row[f"{name}_accuracy"]) for row in rows]
            label = f"{name}, {percent[-1]:.2f} % at the end"
            error.plot(epochs, percent, color=colour, label=label, marker=marker)
    loss.set(title=title, xlabel="epoch", ylabel="cross-entropy (nats)")
    error.set(title="error", xlabel="epoch", ylabel="wrong predictions (%)")
    for axes in (loss, error):
        if any(value > 0 for line in axes.lines for value in line.get_ydata()):  # a log scale needs one
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    rates = loss.twinx()
    rates.plot([row["epoch"] for row in history], [row["lr"] for row in history], color="lightgrey", linewidth=1)
    rates.set_ylabel("learning rate", color="grey")
    for axes in (loss, error):
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    return figure


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The config with absolute paths, so that the run can be resumed from any working directory."""
    return replace(
        config,
        dataset=config.dataset if is_named(config.dataset) else str(Path(config.dataset).resolve()),
        data_dir=config.data_dir.resolve() if config.data_dir else None,
        weights=str(Path(config.weights).resolve())
        if config.weights and Path(config.weights).is_file()
        else config.weights,
    )


@dataclass
class Record:
    """History, best epoch, time and machines of a run, across any number of stops.

    `state` is part of last.pt: the names of the fields are part of that file's format.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per epoch."""
    best: int | None = None
    """Number of correct predictions of the selected epoch."""
    train_s: float = 0.0
    """Time spent in finished epochs."""
    epoch_s: float = 0.0
    """Time spent in the current epoch before the clock was started."""
    origins: dict[str, list[str]] = field(default_factory=lambda: {"machine": [], "commit": []})
    """Machines and commits that the run has used."""
    start: str = ""
    """A description of the initial weights; empty for random ones."""
    stopped_early: bool = False
    """Whether `--patience` has ended the training."""
    _started_at: float = field(default_factory=time.perf_counter)

    @classmethod
    def load(cls, state: dict[str, Any] | None) -> "Record":
        """Restore what `state` returned, or begin a new record; add this machine and the current commit."""
        names = ("history", "best", "train_s", "epoch_s", "origins", "start", "stopped_early")
        record = cls(**{name: state[name] for name in names if name in state}) if state else cls()
        for name, value in (("machine", this_machine().summary), ("commit", this_machine().commit)):
            record.origins[name] = list(dict.fromkeys([*record.origins[name], value]))
        return record

    def state(self) -> dict[str, Any]:
        """What `load` needs, in types that a checkpoint may hold; may be called within an epoch."""
        fields = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {**fields, "epoch_s": self.elapsed_s()}

    def start_clock(self) -> None:
        """Start the clock when an epoch begins or is resumed."""
        self._started_at = time.perf_counter()

    def elapsed_s(self) -> float:
        """Time spent in the current epoch, or since the last one ended."""
        return self.epoch_s + time.perf_counter() - self._started_at

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Add the row of an epoch, with its duration."""
        epoch_s = self.elapsed_s()
        self.history.append({**row, "epoch_s": round(epoch_s, 3)})
        self.train_s += epoch_s
        self.epoch_s = 0.0
        self.start_clock()
