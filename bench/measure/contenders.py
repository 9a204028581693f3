"""Contenders: the backends and baselines that a benchmark measures, and which scopes differ for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ...core.files import sha256_of
from ...infer.backend import Backend
from ..config import SCOPES, Scope
from .cell import label_of


@dataclass(frozen=True)
class RanFile:
    """A file that took part in a benchmark, as it was when it was opened."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read the file. Raises OSError."""
        return cls(str(path), sha256_of(path))

    def __str__(self) -> str:
        return f"{self.path} (sha256 {self.sha256[:12]})"


@dataclass(frozen=True)
class Contender:
    """A backend that is measured."""

    backend: Backend
    name: str = ""
    """Name in the tables; empty: the backend's own."""
    precision: str = ""
    """Empty: the backend's own."""
    baseline: bool = False
    """Whether it only serves for comparison: a baseline's answers are not judged."""
    timed: bool = True
    """Whether it is measured too, and not only judged."""
    ready_s: float = 0.0
    """Seconds before the first call: exporting, building, opening."""
    for_files: Backend | None = None
    """The same model, opened to share its cores with decoding; None unless files are measured."""
    file: RanFile | None = None
    """What the backend runs, or for a baseline the checkpoint that it loads."""

    @property
    def shown_name(self) -> str:
        """Its name in the tables, without the precision."""
        return self.name or self.backend.name

    @property
    def computes_in(self) -> str:
        """Its precision."""
        return self.precision or self.backend.precision or self.backend.card.precision

    @property
    def label(self) -> str:
        """Its name in the tables, with the precision."""
        return label_of(self.shown_name, self.computes_in)

    def scope_measured(self, scope: Scope) -> Scope:
        """The scope that is measured when `scope` is requested: sync where both are the same for this backend."""
        on_cpu = self.backend.device == "cpu"
        same = (scope == "compute" and on_cpu) or (scope == "stream" and not self.backend.overlaps)
        return "sync" if same else scope


def coincidences(contenders: Sequence[Contender], scopes: Sequence[Scope]) -> list[str]:
    """A note for every requested scope that equals host to host for some contenders."""
    reasons = {"compute": "on a CPU nothing is copied", "stream": "batches do not overlap there"}
    notes = []
    for scope in scopes:
        same = [one.label for one in contenders if one.scope_measured(scope) != scope]
        if same:
            notes.append(
                f"{SCOPES[scope].name} is not measured for {', '.join(same)}: it equals {SCOPES['sync'].name}, because "
                f"{reasons[scope]}"
            )
    return notes
