"""The rates of a device, measured with PyTorch: matrix products by precision, copies on it, and copies to and from it.

They are measured in the same rounds as the cells, so that both see the same machine. A turn takes the best of a few
tries, because the rate serves as a ceiling. Matrices grow until a product takes long enough to be timed. On a CPU a
convolution is measured too: another library computes it, often faster. On a GPU it is not, because its algorithm may
need fewer operations than are counted.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from ...core.errors import BackendError, noted
from ...core.library_errors import translated_errors
from .roofline import COPY, DOWNLOAD, UPLOAD, DeviceRates

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Without int8: PyTorch has no public product of int8 matrices."""
TRY_S = 0.01
"""A product that takes this long can be timed accurately."""
SLOWEST_TRY_S = 0.25
"""A rate that takes longer is measured once, and not in every turn: it is not the one that limits."""
TRIES = 2
"""Tries of a turn, after one that warms up."""
SMALLEST, LARGEST = 256, 8192
COPIED_BYTES = 128 << 20
SENT_BYTES = 64 << 20

Sized = Callable[[int], tuple[float, Callable[[], object]]]
"""For a size: the amount of the work, and the function that does it."""


@dataclass
class _Work:
    """Something that is timed, and how much it does."""

    name: str
    """A precision, COPY, UPLOAD or DOWNLOAD."""
    amount: float
    """Operations or bytes."""
    run: Callable[[], object]


@dataclass
class DeviceProbe:
    """Measures the rates of one device, turn by turn. Raises nothing after it was opened: see `error`."""

    device: str
    works: list[_Work]
    once: dict[str, float] = field(default_factory=dict)
    """Rates of the works that are too slow to be measured in every turn."""
    turns: dict[str, list[float]] = field(default_factory=dict)
    """The rate of each turn, by name: the best of all works with that name."""
    error: str = ""
    """Why it stopped; empty if it did not."""

    @classmethod
    def open(cls, device: str, precisions: tuple[str, ...]) -> "DeviceProbe":
        """Prepare a device (cpu, cuda:N) in fp32 and these precisions; those that it cannot multiply are omitted.

        Raises BackendError.
        """
        with translated_errors(device):
            torch_device = torch.device(device)
            found = cls(device, [])
            kinds = (_matrix_product, _convolution) if torch_device.type == "cpu" else (_matrix_product,)
            for name in dict.fromkeys(("fp32", *precisions)):
                for kind in kinds if name in TYPES else ():
                    with contextlib.suppress(RuntimeError):  # "not implemented for": the processor lacks this type
                        found._add(*_long_enough(kind(torch_device, TYPES[name]), name, torch_device))
            found.works += _copies(torch_device)
            return found

    def _add(self, work: _Work, taken_s: float) -> None:
        if taken_s > SLOWEST_TRY_S:
            self.once[work.name] = max(work.amount / taken_s, self.once.get(work.name, 0.0))
        else:
            self.works.append(work)

    def measure(self) -> None:
        """Measure all rates once more; after an error nothing more is measured."""
        if self.error:
            return
        best: dict[str, float] = {}
        try:
            with translated_errors(self.device):
                for work in self.works:
                    rate = work.amount / _best_s(work.run, torch.device(self.device))
                    best[work.name] = max(rate, best.get(work.name, 0.0))
        except BackendError as error:
            self.error = noted(error)
            return
        for name, rate in best.items():
            self.turns.setdefault(name, []).append(max(rate, self.once.get(name, 0.0)))

    def rates(self) -> DeviceRates | None:
        """The rates so far; None before the first turn."""
        return DeviceRates.of(self.device, self.once, self.turns) if self.turns else None


def _long_enough(works: Sized, name: str, device: torch.device) -> tuple[_Work, float]:
    """The fastest work among sizes that double until one takes TRY_S, and the seconds that it took."""
    size, found = SMALLEST, list[tuple[float, _Work, float]]()
    while True:
        amount, run = works(size)
        taken_s = _best_s(run, device)
        found.append((amount / taken_s, _Work(name, amount, run), taken_s))
        if taken_s >= TRY_S or size >= LARGEST:
            long = [one for one in found if one[2] >= TRY_S / 8] or found
            _, work, taken_s = max(long, key=lambda one: one[0])
            return work, taken_s
        size *= 2


def _matrix_product(device: torch.device, kind: torch.dtype) -> Sized:
    def of(size: int) -> tuple[float, Callable[[], object]]:
        left = torch.randn(size, size, device=device).to(kind)
        right = torch.randn(size, size, device=device).to(kind)
        return 2.0 * size**3, lambda: left @ right

    return of


def _convolution(device: torch.device, kind: torch.dtype) -> Sized:
    """A convolution of 3 x 3 with 256 channels in and out, over images of 14 x 14: an inner layer of a ResNet."""
    channels, side, window = 256, 14, 3
    padded = side + window - 1

    def of(size: int) -> tuple[float, Callable[[], object]]:
        images = max(1, size // 64)
        images_NCHW = torch.ones(images, channels, padded, padded, device=device, dtype=kind)
        images_NCHW = images_NCHW.to(memory_format=torch.channels_last)
        kernel = torch.ones(channels, channels, window, window, device=device, dtype=kind)
        return 2.0 * images * side**2 * channels**2 * window**2, lambda: F.conv2d(images_NCHW, kernel)

    return of


def _copies(device: torch.device) -> list[_Work]:
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    works = [_Work(COPY, 2.0 * COPIED_BYTES, lambda: target.copy_(source))]
    if device.type == "cuda":
        host = torch.ones(SENT_BYTES, dtype=torch.uint8, pin_memory=True)
        on_device = torch.empty_like(host, device=device)
        works.append(_Work(UPLOAD, SENT_BYTES, lambda: on_device.copy_(host, non_blocking=True)))
        works.append(_Work(DOWNLOAD, SENT_BYTES, lambda: host.copy_(on_device, non_blocking=True)))
    return works


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several tries; the first one only warms up and does not count."""
    times = []
    with torch.inference_mode():
        for _ in range(TRIES + 1):
            _wait(device)
            started_at = time.perf_counter()
            work()
            _wait(device)
            times.append(time.perf_counter() - started_at)
    return min(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
