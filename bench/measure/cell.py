"""A cell: one backend in one precision, in one scope, at one batch size; and what was measured of it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..config import Scope

NOISY_SPREAD = 0.1
"""Spread over the rounds above which a cell is marked."""


@dataclass
class Cell:
    """What was measured, and what hindered it."""

    backend: str
    batch: int
    precision: str = "fp32"
    scope: Scope = "sync"
    rounds: list[list[float]] = field(default_factory=list)
    """Seconds of every call, round by round."""
    warm_up_s: float = 0.0
    """What came before the first round: first calls, compilation for this batch size among them."""
    device_s: float | None = None
    """The same calls by the device's own clock (CUDA events), all together; None where there is none."""
    error: str = ""
    """Why it was stopped, or could not begin; empty when all went well."""
    caught: str = ""
    """How the self-check found that it returns before its work is done: then its figures mean nothing."""

    @property
    def label(self) -> str:
        """The backend, with its precision where that is not fp32."""
        return label_of(self.backend, self.precision)

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What makes it the same cell in another run."""
        return self.backend, self.precision, self.scope, self.batch

    @property
    def believed(self) -> bool:
        """Whether it has figures that mean something."""
        return bool(self.rounds) and not self.caught

    @property
    def samples_s(self) -> NDArray[np.float64]:
        """Seconds of every call."""
        return np.array([sample for samples in self.rounds for sample in samples])

    @property
    def images_per_s(self) -> float:
        """All images over all seconds."""
        return self.batch * len(self.samples_s) / float(self.samples_s.sum())

    @property
    def round_rates(self) -> NDArray[np.float64]:
        """Images per second of each round."""
        return np.array([self.batch * len(samples) / sum(samples) for samples in self.rounds])

    @property
    def spread(self) -> float:
        """Interquartile range over median of the rounds' rates."""
        low, middle, high = np.percentile(self.round_rates, (25, 50, 75))
        return float((high - low) / middle)

    @property
    def noisy(self) -> bool:
        """Whether the rounds differ by more than a careful reader would like."""
        return self.spread > NOISY_SPREAD

    @property
    def clock_disagreement(self) -> float | None:
        """How much longer the wall clock took than the device's own, as a share of the latter."""
        return None if not self.device_s else float(self.samples_s.sum()) / self.device_s - 1

    def percentile_ms(self, percent: float) -> float:
        """Latency of a call in milliseconds that `percent` of the calls stay within."""
        return float(np.percentile(self.samples_s, percent)) * 1e3


def label_of(backend: str, precision: str) -> str:
    """How a backend in a precision is called in tables."""
    return backend if precision == "fp32" else f"{backend} {precision}"
