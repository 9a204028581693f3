"""BenchRequest: the options of one benchmark, checked before anything is opened."""

from dataclasses import dataclass
from pathlib import Path

from ..bench.config import BenchConfig
from ..core.errors import UsageError
from .open_backends import check_names
from .speed_model import no_reference


@dataclass(frozen=True)
class BenchRequest:
    """The options of one benchmark."""

    model: str
    reference: Path | None
    """Checkpoint that the user named; None: the model's own."""
    backends: tuple[str, ...]
    """Empty: all that work here."""
    precisions: tuple[str, ...]
    """Empty: the model's."""
    baselines: bool
    dataset: str | None
    """None: the one that the model was trained on."""
    data_dir: Path | None
    config: BenchConfig
    seconds_given: bool
    """Whether the user named the measuring time."""
    device: str
    require_parity: str
    """See `requirement`."""
    force: bool = False
    """Accept another checkpoint than the model's own as the reference."""
    parity: bool = True
    """False: measure speed alone; see speed.py."""
    image_size: str | None = None
    """For an architecture, by default the size that it is known for, and for a graph that takes any size."""

    def __post_init__(self) -> None:
        """Raises UsageError or UnknownNameError, before anything is opened."""
        from ..infer.backend import BackendOptions

        check_names(self.backends, self.precisions)
        BackendOptions(device=self.device)
        if self.image_size is not None and self.measures_parity:
            raise UsageError(
                "--image-size: only for an architecture or a graph of another program, whose speed alone is measured"
            )

    @property
    def measures_parity(self) -> bool:
        """Whether answers are compared: not with --no-parity, and not for a model without a reference."""
        return self.parity and not no_reference(self.model)
