"""Record: what a run has to show so far, saved beside the trainer's state."""

import time
from dataclasses import dataclass, field
from typing import Any

from ..core.machine import this_machine


@dataclass
class Record:
    """History, best epoch, time spent and where it was spent, through any number of stops."""

    history: list[dict[str, Any]] = field(default_factory=list)
    """One row an epoch."""
    best: int | None = None
    """Right answers of the epoch that is kept."""
    train_s: float = 0.0
    """In whole epochs."""
    epoch_s: float = 0.0
    """In the epoch under way, before the clock was started."""
    origins: dict[str, list[str]] = field(default_factory=lambda: {"machine": [], "commit": []})
    """Machines and commits that the run has seen."""
    start: str = ""
    """The weights that it started from; empty for fresh ones."""
    _started_at: float = field(default_factory=time.perf_counter)

    @classmethod
    def load(cls, state: dict[str, Any] | None) -> "Record":
        """What `state` returned, or that of a run that begins; this machine and the present commit join the others."""
        names = ("history", "best", "train_s", "epoch_s", "origins", "start")
        record = cls(**{name: state[name] for name in names if name in state}) if state else cls()
        for name, value in (("machine", this_machine().summary), ("commit", this_machine().commit)):
            record.origins[name] = list(dict.fromkeys([*record.origins[name], value]))
        return record

    def state(self) -> dict[str, Any]:
        """What `load` needs, in the types that a checkpoint may hold; in the middle of an epoch too."""
        fields = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {**fields, "epoch_s": self.seconds()}

    def start_clock(self) -> None:
        """The epoch begins, or goes on."""
        self._started_at = time.perf_counter()

    def seconds(self) -> float:
        """Spent in the epoch under way, or since the last one ended."""
        return self.epoch_s + time.perf_counter() - self._started_at

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Add its row, with the time that it took."""
        epoch_s = self.seconds()
        self.history.append({**row, "epoch_s": round(epoch_s, 3)})
        self.train_s += epoch_s
        self.epoch_s = 0.0
        self.start_clock()
