"""A cell: the measurement of one backend in one precision, in one scope, at one batch size."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..config import Scope

NOISY_SPREAD = 0.1
"""Spread of the rounds above which a cell is marked as noisy."""


@dataclass
class Cell:
    """What was measured, or why nothing was."""

    backend: str
    batch: int
    precision: str = "fp32"
    scope: Scope = "sync"
    rounds: list[list[float]] = field(default_factory=list)
    """Seconds of every call, round by round."""
    warm_up_s: float = 0.0
    """Seconds before the first round: the first calls, including compilation for this batch size."""
    device_s: float | None = None
    """Total of the same calls by the device's own clock (CUDA events); None where the device has no clock."""
    error: str = ""
    """Why it stopped or did not start; empty without an error."""
    rejected: str = ""
    """How the self-check found that the backend returns before its work is done: its figures are then meaningless."""

    @property
    def label(self) -> str:
        """The backend, with its precision where that is not fp32."""
        return label_of(self.backend, self.precision)

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What identifies the same cell in another run."""
        return self.backend, self.precision, self.scope, self.batch

    @property
    def valid(self) -> bool:
        """Whether it has figures, and the self-check did not reject them."""
        return bool(self.rounds) and not self.rejected

    @property
    def samples_s(self) -> NDArray[np.float64]:
        """Seconds of every call."""
        return np.array([sample for samples in self.rounds for sample in samples])

    @property
    def images_per_s(self) -> float:
        """All images divided by all seconds."""
        return self.batch * len(self.samples_s) / float(self.samples_s.sum())

    @property
    def round_rates(self) -> NDArray[np.float64]:
        """Images per second of each round."""
        return np.array([self.batch * len(samples) / sum(samples) for samples in self.rounds])

    @property
    def spread(self) -> float:
        """Interquartile range of the rounds' rates, divided by their median."""
        low, middle, high = np.percentile(self.round_rates, (25, 50, 75))
        return float((high - low) / middle)

    @property
    def noisy(self) -> bool:
        """Whether the rounds differ by more than NOISY_SPREAD."""
        return self.spread > NOISY_SPREAD

    @property
    def clock_disagreement(self) -> float | None:
        """Extra time by the wall clock, as a share of the time by the device's clock."""
        return None if not self.device_s else float(self.samples_s.sum()) / self.device_s - 1

    def percentile_ms(self, percent: float) -> float:
        """Percentile of the calls' latencies, in milliseconds."""
        return float(np.percentile(self.samples_s, percent)) * 1e3


def label_of(backend: str, precision: str) -> str:
    """The name of a backend in a precision, for tables."""
    return backend if precision == "fp32" else f"{backend} {precision}"
