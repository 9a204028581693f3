"""What a device can do, measured by PyTorch: its matrix rate by precision, its copy bandwidth, and the way to it.

Each is the best of several tries, for these are ceilings. Matrices grow until a product takes long enough to time.
"""

import time
from collections.abc import Callable

import torch

from .ceiling import DeviceRates

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""int8 is not among them: PyTorch has no public product of int8 matrices."""
TRY_S = 0.02
"""A product that takes this long is timed well."""
TRIES = 5
SMALLEST, LARGEST = 256, 8192
COPIED_BYTES = 256 << 20
SENT_BYTES = 64 << 20


def device_rates(device: str, precisions: tuple[str, ...]) -> DeviceRates:
    """Measure a device (cpu, cuda:N) for these precisions and fp32; those that it cannot multiply are left out."""
    where = torch.device(device)
    rates = {}
    for name in dict.fromkeys(("fp32", *precisions)):
        if name in TYPES:
            try:
                rates[name] = _matrix_rate(where, TYPES[name])
            except RuntimeError:  # "not implemented for", on processors without this type
                continue
    source = torch.ones(COPIED_BYTES // 4, device=where)
    target = torch.empty_like(source)
    copied_s = _best_s(lambda: target.copy_(source), where)
    upload = download = None
    if where.type == "cuda":
        host = torch.ones(SENT_BYTES, dtype=torch.uint8, pin_memory=True)
        there = torch.empty_like(host, device=where)
        upload = SENT_BYTES / _best_s(lambda: there.copy_(host, non_blocking=True), where)
        download = SENT_BYTES / _best_s(lambda: host.copy_(there, non_blocking=True), where)
    return DeviceRates(device, rates, 2 * COPIED_BYTES / copied_s, upload, download)


def _matrix_rate(device: torch.device, kind: torch.dtype) -> float:
    size, best = SMALLEST, 0.0
    while True:
        left = torch.randn(size, size, device=device).to(kind)
        right = torch.randn(size, size, device=device).to(kind)
        taken_s = _best_s(lambda left=left, right=right: left @ right, device)  # type: ignore[misc]
        best = max(best, 2 * size**3 / taken_s)
        if taken_s >= TRY_S or size >= LARGEST:
            return best
        size *= 2


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several tries, the first of which only warms up."""
    times = []
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
