"""A clock that only sleeping advances, so that a measurement of fakes gives the same figures on every machine.

On a real clock other work on the machine lengthens every sleep, and the benchmark notes that work: it compares no cells
beside which other processes took another share of the cores.
"""

import random

import pytest
from rtk.bench.measure import other_load, runners, self_check, timing
from rtk.infer import fake

USERS = (timing, other_load, runners, self_check, fake)
"""The modules that time fakes, and the one that lets them sleep."""


class SimulatedClock:
    """Stands for the module `time`. Nothing computes; other processes take `other_cores` cores."""

    def __init__(self, *, late: float = 0.0, other_cores: float = 0.0, seed: int = 0) -> None:
        """A sleep takes up to the share `late` longer than asked for, by random numbers of this seed."""
        self.late, self.other_cores, self.now_s = late, other_cores, 0.0
        self._random = random.Random(seed)

    def perf_counter(self) -> float:
        """Seconds since the clock was made."""
        return self.now_s

    def process_time(self) -> float:
        """Processor time of this process: none."""
        return 0.0

    def sleep(self, seconds: float) -> None:
        """Let that time pass at once."""
        self.now_s += seconds * (1 + self.late * self._random.random())

    def idle_s(self) -> float:
        """Idle time of all cores since the clock was made."""
        return (other_load.core_count() - self.other_cores) * self.now_s

    def use(self, monkeypatch: pytest.MonkeyPatch) -> "SimulatedClock":
        """Let fakes, and the measurements of them, run on this clock until the test ends."""
        for module in USERS:
            monkeypatch.setattr(module, "time", self)
        monkeypatch.setattr(other_load, "_idle_s", self.idle_s)
        monkeypatch.setattr(self_check, "_waited_s", dict)  # no thread waits for a processor
        return self
