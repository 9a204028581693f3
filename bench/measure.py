"""Throughput and latency, host to host: uint8 images in host memory to logits in host memory, copies included.

Every cell, a backend at a batch size, is warmed up; then the cells take turns, round after round, so that a machine
that drifts drifts for all of them alike. Every call's time is kept. Images are fresh at each call: the sets that take
turns are more than the processor's caches hold.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..core.card import Input
from ..core.errors import RtkError
from ..infer.backend import Backend
from .config import BenchConfig

ROUND_S = 0.1
"""A round of a cell calls it until about this much time has gone."""
WARM_UP_S = 0.3
ROTATING_BYTES = 128 << 20
"""All sets of images together: more than the last-level caches of most processors."""
NOISY_SPREAD = 0.1
"""Spread over the rounds above which a cell is marked."""

Runner = Callable[[], float]
"""Makes one call and returns the seconds that it took."""


@dataclass
class Cell:
    """One backend at one batch size, and what was measured of it."""

    backend: str
    batch: int
    rounds: list[list[float]] = field(default_factory=list)
    """Seconds of every call, round by round."""
    error: str = ""
    """Why it was stopped; empty when all went well."""

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

    def percentile_ms(self, percent: float) -> float:
        """Latency of a call in milliseconds that `percent` of the calls stay within."""
        return float(np.percentile(self.samples_s, percent)) * 1e3


def measure(backends: Mapping[str, Backend], config: BenchConfig, *, advance: Callable[[int], None]) -> list[Cell]:
    """Measure every backend at every batch size it can take; `advance` is told of each round.

    A backend that fails stops its own cell only. Ctrl-C ends measuring; what was measured is returned.
    """
    size = next(iter(backends.values())).card.input
    images_NHWC = rotating_images(size, max(config.batches))
    cells = [
        Cell(name, batch)
        for batch in config.batches
        for name, backend in backends.items()
        if backend.max_batch is None or batch <= backend.max_batch
    ]
    runners = [_Runner(backends[cell.backend], cell.batch, images_NHWC) for cell in cells]
    return take_turns(cells, runners, config, advance=advance)


def take_turns(
    cells: Sequence[Cell], runners: Sequence[Runner], config: BenchConfig, *, advance: Callable[[int], None]
) -> list[Cell]:
    """Warm every cell up, then measure them in turns until the time and the least number of rounds are reached."""
    calls: dict[int, int] = {}
    try:
        for index, (cell, runner) in enumerate(zip(cells, runners, strict=True)):
            try:
                calls[index] = _warm_up(runner)
            except RtkError as error:
                cell.error = str(error)
        measured_s, done = 0.0, 0
        while calls and (measured_s < config.seconds or done < config.min_rounds):
            for index in list(calls):
                try:
                    samples = [runners[index]() for _ in range(calls[index])]
                except RtkError as error:
                    cells[index].error = str(error)
                    del calls[index]
                    continue
                cells[index].rounds.append(samples)
                measured_s += sum(samples)
                advance(1)
            done += 1
    except KeyboardInterrupt:
        pass
    return [cell for cell in cells if cell.rounds or cell.error]


class _Runner:
    def __init__(self, backend: Backend, batch: int, images_NHWC: NDArray[np.uint8]) -> None:
        self.backend, self.batch, self.images_NHWC, self.start = backend, batch, images_NHWC, 0

    def __call__(self) -> float:
        if self.start + self.batch > len(self.images_NHWC):
            self.start = 0
        batch_BHWC = self.images_NHWC[self.start : self.start + self.batch]
        self.start += self.batch
        started_at = time.perf_counter()
        self.backend(batch_BHWC)
        return time.perf_counter() - started_at


def _warm_up(runner: Runner) -> int:
    """Call until the times have settled; how many calls fill a round."""
    samples: list[float] = []
    while sum(samples) < WARM_UP_S or len(samples) < 2:
        samples.append(runner())
    return max(1, round(ROUND_S / float(np.median(samples[len(samples) // 2 :]))))


def rotating_images(size: Input, largest_batch: int) -> NDArray[np.uint8]:
    """Random images N x H x W x C, more than the caches hold and at least two of the largest batch."""
    image_bytes = size.height * size.width * size.channels
    count = max(2 * largest_batch, ROTATING_BYTES // image_bytes)
    return np.random.default_rng(0).integers(0, 256, (count, *size.shape), dtype=np.uint8)
