"""The options of rtk eval. Nothing heavy is imported here: `rtk --help` needs the defaults."""

from dataclasses import dataclass, field
from pathlib import Path

from ..bench.evaluation import BATCH
from ..core.errors import UnknownNameError, UsageError

ALL = "all"
SPLIT_NAMES = ("train", "validation", "test", ALL)


@dataclass(frozen=True)
class Wanted:
    """Which images."""

    dataset: str | None = None
    """A name or a path; None: the one that the model was trained on."""
    split: str | None = None
    """One of SPLIT_NAMES; None: test, or validation without a test split, or all images of a folder without splits."""
    data_dir: Path | None = None
    max_unreadable: float | None = None
    """The largest share of unreadable images that are left out; None: as in the training."""

    def __post_init__(self) -> None:
        """Raises UsageError or UnknownNameError, before anything is opened."""
        if self.split is not None and self.split not in SPLIT_NAMES:
            raise UnknownNameError("split", self.split, SPLIT_NAMES)
        if self.max_unreadable is not None:
            if self.dataset is None:
                raise UsageError("--max-unreadable goes with --dataset DIR")
            if not 0 <= self.max_unreadable < 1:
                raise UsageError(f"--max-unreadable {self.max_unreadable:g}: expected a share from 0 to below 1")


@dataclass(frozen=True)
class EvalRequest:
    """The options of one evaluation."""

    model: str
    wanted: Wanted = field(default_factory=Wanted)
    """The images."""
    backend: str = "auto"
    precision: str | None = None
    """None: the model's own."""
    device: str = "auto"
    batch_size: int = BATCH

    def __post_init__(self) -> None:
        """Raises UsageError or UnknownNameError, before anything is opened."""
        from ..infer.backend import BACKENDS, BackendOptions
        from .open_backends import check_names

        if self.backend not in ("auto", *BACKENDS):
            raise UnknownNameError("backend", self.backend, ("auto", *BACKENDS))
        check_names([], [self.precision] if self.precision is not None else [])
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size}: expected 1 or more")
        BackendOptions(device=self.device)
