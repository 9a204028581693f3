"""Runners: how a cell is run in each scope.

Every call gets other images than the one before, and all images together are larger than the processor's caches; with
CUDA graphs, which read one address, the scope compute runs the same images every time, as trtexec does.
"""

import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...core.card import Input
from ...infer.backend import Backend, Resident
from ..config import Scope
from ..files.image_files import PngFiles
from .contenders import Contender
from .timing import Runner, one_by_one

ROTATING_BYTES = 128 << 20
"""Size of all images together: more than the last-level caches of most processors."""
ALIGNMENT = 256
"""Bytes to which the input of an engine on a GPU must be aligned; CUDA's allocations are."""
STREAMED = 4
"""Fewest batches of a stream, so that they can overlap."""


def rotating_images(size: Input, largest_batch: int) -> NDArray[np.uint8]:
    """Random images N x H x W x C: more than the caches hold, and at least two of the largest batch."""
    image_bytes = math.prod(size.shape)
    count = max(2 * (largest_batch + ALIGNMENT), ROTATING_BYTES // image_bytes)
    return np.random.default_rng(0).integers(0, 256, (count, *size.shape), dtype=np.uint8)


def runner_of(
    contender: Contender,
    scope: Scope,
    batch: int,
    images_NHWC: NDArray[np.uint8],
    *,
    resident: Resident | None,
    files: PngFiles | None,
) -> Runner:
    """The runner of a contender in a scope. `resident`: the images on its device; without them compute does nothing."""
    positions = _Positions(
        len(images_NHWC),
        batch,
        math.prod(images_NHWC.shape[1:]),
        places=resident.places if resident and scope == "compute" else None,
    )
    match scope:
        case "sync":
            return one_by_one(_host_call(contender.backend, images_NHWC, positions))
        case "stream":
            return Runner(_stream_calls(contender.backend, images_NHWC, positions), at_least=STREAMED)
        case "compute":
            return _compute_runner(resident, positions) if resident else Runner(lambda count: [])
        case "files":
            assert files is not None
            assert contender.for_files is not None
            return Runner(files.calls_of(contender.for_files, batch), at_least=STREAMED, processes=files.process_ids)


class _Positions:
    """The index of the first image of each batch: round after round, aligned for a GPU.

    `places`: the number of batches in a round; None: as many as there are.
    """

    def __init__(self, images: int, batch: int, image_bytes: int, *, places: int | None = None) -> None:
        unit = ALIGNMENT // math.gcd(ALIGNMENT, image_bytes)
        self.batch, self.step, self.start = batch, -(-batch // unit) * unit, 0
        self.images = images if places is None else min(images, (places - 1) * self.step + batch)

    def next(self) -> int:
        if self.start + self.batch > self.images:
            self.start = 0
        start, self.start = self.start, self.start + self.step
        return start


def _host_call(backend: Backend, images_NHWC: NDArray[np.uint8], positions: _Positions) -> Callable[[], float]:
    def call() -> float:
        start = positions.next()
        batch_BHWC = images_NHWC[start : start + positions.batch]
        started_at = time.perf_counter()
        backend(batch_BHWC)
        return time.perf_counter() - started_at

    return call


def _stream_calls(
    backend: Backend, images_NHWC: NDArray[np.uint8], positions: _Positions
) -> Callable[[int], list[float]]:
    def calls(count: int) -> list[float]:
        starts = [positions.next() for _ in range(count)]
        samples_s, started_at = [], time.perf_counter()
        for _ in backend.stream(images_NHWC[start : start + positions.batch] for start in starts):
            now = time.perf_counter()
            samples_s.append(now - started_at)
            started_at = now
        return samples_s

    return calls


def _compute_runner(resident: Resident, positions: _Positions) -> Runner:
    by_device_s: list[float] = []

    def call() -> float:
        start = positions.next()
        started_at = time.perf_counter()
        device_s = resident.run(start, positions.batch)
        taken_s = time.perf_counter() - started_at
        if device_s is not None:
            by_device_s.append(device_s)
        return taken_s

    def device_s() -> float | None:
        total_s = sum(by_device_s) if by_device_s else None
        by_device_s.clear()
        return total_s

    runner = one_by_one(call)
    return Runner(runner.calls, device_s=device_s)
