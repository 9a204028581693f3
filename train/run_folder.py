"""The folder of a run: config.json, history.jsonl, last.pt, best.pt, curves.png; not-finite.pt after such a step."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.artifacts.checkpoint import load_checkpoint
from ..core.data import DATASETS
from ..core.environment import use_writable_matplotlib_folder
from ..core.errors import ArtifactError, UsageError
from ..core.files import whole_file, write_whole
from ..core.fonts import fonts_for, plain_text
from ..core.json_text import json_text
from ..core.machine import this_machine
from .config import TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Write one JSON line per epoch; a loss that is not finite is null."""
        write_whole(self.path / "history.jsonl", "".join(json_text(row) + "\n" for row in history))

    def write_curves(self, history: list[dict[str, Any]], *, title: str) -> None:
        """Plot loss, error and learning rate over the epochs."""
        use_writable_matplotlib_folder()
        with fonts_for(title), whole_file(self.path / "curves.png") as file:
            _curves(history, title=plain_text(title)).savefig(file, format="png", dpi=130)


def _curves(history: list[dict[str, Any]], *, title: str) -> "Figure":
    """Loss, error and learning rate over the epochs."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for name, colour in (("train", "tab:blue"), ("holdout", "tab:green"), ("test", "tab:orange")):
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
        dataset=config.dataset if config.dataset in DATASETS else str(Path(config.dataset).resolve()),
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
    _started_at: float = field(default_factory=time.perf_counter)

    @classmethod
    def load(cls, state: dict[str, Any] | None) -> "Record":
        """Restore what `state` returned, or begin a new record; add this machine and the current commit."""
        names = ("history", "best", "train_s", "epoch_s", "origins", "start")
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
