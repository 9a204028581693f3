"""A cell: the measurement of one backend in one precision, in one scope, at one batch size."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..config import Scope

NOISY_SPREAD = 0.1
"""Spread of the rounds above which a cell is marked as noisy."""
SLOW_ROUND = 1.5
"""A round is an outlier if it takes this many times the median, and lies far outside of the middle half."""
FAR_OUTSIDE = 3.0
"""Tukey's outer fence: this many interquartile ranges above the upper quartile."""
BUSY_SHARE, BUSY_CORES = 0.05, 0.4
"""Other processes disturb a cell if they use more than this share of the cores, or more than this number of cores."""
OVERLAPPED_SHARE = 0.1
"""Earlier work disturbs a cell if it still ran at the beginning of more than this share of the rounds."""
LONG_SWITCH_MS, LONG_SWITCH = 20.0, 5.0
"""A change of the batch size is worth a note if it costs more than this, and more than this number of calls."""
TICK_S = 0.01
"""The system counts idle time in ticks of this length, so a reading is off by up to one."""


@dataclass
class Cell:
    """What was measured, or why nothing was."""

    backend: str
    batch: int
    precision: str = "fp32"
    scope: Scope = "sync"
    rounds: list[list[float]] = field(default_factory=list)
    """Seconds of every call, round by round, without the first calls of a round: see timing.py."""
    first_call_s: list[float] = field(default_factory=list)
    """Seconds of the very first call of each round; empty in earlier reports, in which it is the first of `rounds`."""
    first_calls_s: float = 0.0
    """Total seconds of the first calls of all rounds, which `rounds` does not have."""
    cores: int = 0
    """Cores that this process could use; 0 where the load of other processes is unknown."""
    other_cores: list[float] = field(default_factory=list)
    """Cores that other processes took during each round, on average; empty where that is unknown."""
    overlapped: int = 0
    """Rounds that began while threads of this process still computed for an earlier cell."""
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
    def round_s(self) -> NDArray[np.float64]:
        """Seconds of a call in each round, on average."""
        return np.array([sum(samples) / len(samples) for samples in self.rounds])

    @property
    def images_per_s(self) -> float:
        """The headline rate: images divided by the median time of a round, so that a pause changes nothing."""
        return self.batch / float(np.median(self.round_s))

    @property
    def mean_images_per_s(self) -> float:
        """All images divided by all seconds, pauses included."""
        return self.batch * len(self.samples_s) / float(self.samples_s.sum())

    @property
    def round_rates(self) -> NDArray[np.float64]:
        """Images per second of each round."""
        return self.batch / self.round_s

    @property
    def outliers(self) -> list[float]:
        """How many times the median time each outlier took: SLOW_ROUND or more, and beyond Tukey's outer fence."""
        low, middle, high = np.percentile(self.round_s, (25, 50, 75))
        limit = max(SLOW_ROUND * middle, high + FAR_OUTSIDE * (high - low))
        return [float(one / middle) for one in self.round_s if one > limit]

    @property
    def other_share(self) -> float | None:
        """Share of the cores that other processes took during the rounds; None where that is unknown."""
        if not self.other_cores or not self.cores:
            return None
        return float(np.average(self.other_cores, weights=[sum(samples) for samples in self.rounds])) / self.cores

    @property
    def busy(self) -> bool:
        """Whether other processes took so much of the cores that the cell cannot be compared with others."""
        share = self.other_share
        if share is None:
            return False
        total_s = float(self.samples_s.sum())
        uncertain_cores = TICK_S * (self.cores * len(self.rounds)) ** 0.5 / total_s
        return share * self.cores - uncertain_cores > quiet_cores(self.cores)

    @property
    def disturbed(self) -> bool:
        """Whether other processes, or earlier work of this one, used the cores during the measurement."""
        return self.busy or self.overlapped > OVERLAPPED_SHARE * len(self.rounds)

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
    def switch_ms(self) -> float | None:
        """How much longer the first call of a round takes than the first one that counts, in milliseconds.

        The median over rounds: what a change of the batch size costs. None where that was not measured.
        """
        if not self.rounds or len(self.first_call_s) != len(self.rounds):
            return None
        pairs = zip(self.first_call_s, self.rounds, strict=True)
        return 1e3 * float(np.median([first_s - samples_s[0] for first_s, samples_s in pairs]))

    @property
    def switch_is_long(self) -> bool:
        """Whether a change of the batch size costs so much that a user should know."""
        switch_ms = self.switch_ms
        return switch_ms is not None and switch_ms > max(LONG_SWITCH_MS, LONG_SWITCH * self.percentile_ms(50))

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


def quiet_cores(cores: int) -> float:
    """Cores that other processes may take on a machine with `cores` cores that still counts as quiet."""
    return min(BUSY_SHARE * cores, BUSY_CORES)
