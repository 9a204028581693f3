"""What a device can do, measured by PyTorch: its matrix rate by precision, its copy bandwidth, and the way to it.

Each is the best of several tries, for these are ceilings. Matrices grow until a product takes long enough to time. On a
CPU a convolution is tried too, which another library computes, often faster; a GPU's may do with fewer operations than
are counted.
"""

import contextlib
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from .roofline import DeviceRates

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
            found = []
            for measure in (_matrix_rate, _convolution_rate) if where.type == "cpu" else (_matrix_rate,):
                with contextlib.suppress(RuntimeError):  # "not implemented for", on processors without this type
                    found.append(measure(where, TYPES[name]))
            if found:
                rates[name] = max(found)
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


def _convolution_rate(device: torch.device, kind: torch.dtype) -> float:
    images, channels, side, window = 32, 256, 14, 3
    padded = side + window - 1
    images_NCHW = torch.ones(images, channels, padded, padded, device=device, dtype=kind)
    images_NCHW = images_NCHW.to(memory_format=torch.channels_last)
    kernel = torch.ones(channels, channels, window, window, device=device, dtype=kind)
    taken_s = _best_s(lambda: F.conv2d(images_NCHW, kernel), device)
    return 2 * images * side**2 * channels**2 * window**2 / taken_s


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several tries, the first of which only warms up."""
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
