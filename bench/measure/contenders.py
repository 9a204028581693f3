"""Who takes part, and the cells that follow: which scopes a backend has, and how each of them is run.

Images are fresh at each call: the sets that take turns are more than the processor's caches hold.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.card import Input
from ...core.errors import BackendError
from ...infer.backend import Backend, Resident
from ..config import BenchConfig, Scope
from ..files import PngFiles
from .cell import Cell, label_of
from .timing import Runner, one_by_one

ROTATING_BYTES = 128 << 20
"""All sets of images together: more than the last-level caches of most processors."""
ALIGNMENT = 256
"""Bytes that an engine's input on a GPU must be aligned to; what CUDA allocates is."""
STREAMED = 4
"""Batches of a stream, at least, so that they can overlap."""


@dataclass(frozen=True)
class Contender:
    """A backend that takes part."""

    backend: Backend
    name: str = ""
    """How it is called in the tables; empty: as the backend calls itself."""
    precision: str = ""
    """Empty: as the backend says."""
    baseline: bool = False
    """Whether it is there to be compared with, so that its own answers are not judged."""
    ready_s: float = 0.0
    """Exporting, building, opening: what came before the first call."""
    for_files: Backend | None = None
    """The same, opened to share its cores with decoding; only where files are measured."""

    @property
    def called(self) -> str:
        """Its name."""
        return self.name or self.backend.name

    @property
    def computes_in(self) -> str:
        """Its precision."""
        return self.precision or self.backend.precision or self.backend.card.precision

    @property
    def label(self) -> str:
        """How it is called with its precision."""
        return label_of(self.called, self.computes_in)

    def scope_measured(self, scope: Scope) -> Scope:
        """The scope whose measurement holds for this one, too."""
        on_cpu = self.backend.device == "cpu"
        same = (scope == "compute" and on_cpu) or (scope == "stream" and not self.backend.overlaps)
        return "sync" if same else scope


@dataclass(frozen=True)
class Prepared:
    """Cells with their runners, and what of the device's memory is to be given back."""

    cells: list[Cell]
    runners: list[Runner]
    notes: list[str]
    """Which scopes coincide, in words."""
    residents: list[Resident]


def prepare(contenders: Sequence[Contender], config: BenchConfig, *, files: PngFiles | None) -> Prepared:
    """The cells of all contenders, those that take turns at one batch size beside each other.

    A batch that a backend does not take makes a cell that says so, and so does a device whose memory is short.
    """
    prepared = Prepared([], [], coincidences(contenders, config.scopes), [])
    short: dict[str, str] = {}
    images_NHWC = rotating_images(contenders[0].backend.card.input, max(config.batches))
    resident_of: dict[str, Resident] = {}
    for scope in config.scopes:
        for contender in contenders:
            if contender.scope_measured(scope) == "compute" and contender.label not in resident_of:
                try:
                    resident = contender.backend.resident(images_NHWC)
                except BackendError as error:
                    short[contender.label] = str(error)
                    continue
                if resident is not None:
                    resident_of[contender.label] = resident
                    prepared.residents.append(resident)
    for batch in config.batches:
        for contender in contenders:
            for scope in dict.fromkeys(contender.scope_measured(scope) for scope in config.scopes):
                if (scope == "files" and contender.for_files is None) or (
                    scope == "compute" and contender.label not in {**resident_of, **short}
                ):
                    continue
                cell = Cell(contender.called, batch, contender.computes_in, scope)
                cell.error = short.get(contender.label, "") if scope == "compute" else ""
                largest = contender.backend.max_batch
                if largest is not None and batch > largest:
                    cell.error = f"a batch of {batch:,}, expected at most {largest:,}, which it was built for"
                prepared.cells.append(cell)
                prepared.runners.append(
                    _runner(contender, scope, batch, images_NHWC, resident_of.get(contender.label), files)
                )
    return prepared


def coincidences(contenders: Sequence[Contender], scopes: Sequence[Scope]) -> list[str]:
    """A line for every scope that is another one's for some contenders."""
    notes = []
    for scope in scopes:
        same = [one.label for one in contenders if one.scope_measured(scope) != scope]
        if same and scope == "compute":
            notes.append(f"compute and host to host coincide on a CPU: nothing is copied ({', '.join(same)})")
        elif same:
            notes.append(f"streaming is host to host, batch after batch: nothing overlaps ({', '.join(same)})")
    return notes


def rotating_images(size: Input, largest_batch: int) -> NDArray[np.uint8]:
    """Random images N x H x W x C, more than the caches hold and at least two of the largest batch."""
    image_bytes = math.prod(size.shape)
    count = max(2 * (largest_batch + ALIGNMENT), ROTATING_BYTES // image_bytes)
    return np.random.default_rng(0).integers(0, 256, (count, *size.shape), dtype=np.uint8)


def _runner(
    contender: Contender,
    scope: Scope,
    batch: int,
    images_NHWC: NDArray[np.uint8],
    resident: Resident | None,
    files: PngFiles | None,
) -> Runner:
    places = _Places(len(images_NHWC), batch, math.prod(images_NHWC.shape[1:]))
    match scope:
        case "sync":
            return one_by_one(_call(contender.backend, images_NHWC, places))
        case "stream":
            return Runner(_stream(contender.backend, images_NHWC, places), at_least=STREAMED)
        case "compute":
            return _computing(resident, places) if resident else Runner(lambda count: [])
        case "files":
            assert files is not None
            assert contender.for_files is not None
            return Runner(files.classified_by(contender.for_files, batch), at_least=STREAMED)


class _Places:
    """Where batch after batch begins, round and round; on a GPU's alignment."""

    def __init__(self, images: int, batch: int, image_bytes: int) -> None:
        unit = ALIGNMENT // math.gcd(ALIGNMENT, image_bytes)
        self.images, self.batch, self.step, self.start = images, batch, -(-batch // unit) * unit, 0

    def next(self) -> int:
        if self.start + self.batch > self.images:
            self.start = 0
        start, self.start = self.start, self.start + self.step
        return start


def _call(backend: Backend, images_NHWC: NDArray[np.uint8], places: _Places) -> Callable[[], float]:
    def call() -> float:
        start = places.next()
        batch_BHWC = images_NHWC[start : start + places.batch]
        started_at = time.perf_counter()
        backend(batch_BHWC)
        return time.perf_counter() - started_at

    return call


def _stream(backend: Backend, images_NHWC: NDArray[np.uint8], places: _Places) -> Callable[[int], list[float]]:
    def calls(count: int) -> list[float]:
        starts = [places.next() for _ in range(count)]
        samples, started_at = [], time.perf_counter()
        for _ in backend.stream(images_NHWC[start : start + places.batch] for start in starts):
            now = time.perf_counter()
            samples.append(now - started_at)
            started_at = now
        return samples

    return calls


def _computing(resident: Resident, places: _Places) -> Runner:
    by_device: list[float] = []

    def call() -> float:
        start = places.next()
        started_at = time.perf_counter()
        device_s = resident.run(start, places.batch)
        taken_s = time.perf_counter() - started_at
        if device_s is not None:
            by_device.append(device_s)
        return taken_s

    def device_s() -> float | None:
        total = sum(by_device) if by_device else None
        by_device.clear()
        return total

    runner = one_by_one(call)
    return Runner(runner.calls, device_s=device_s)
