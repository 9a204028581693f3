"""The rates of a device, measured with PyTorch: matrix products by precision, copies on it, and copies to and from it.

Each rate is the best of several tries, because it serves as a ceiling. Matrices grow until a product takes long enough
to be timed. On a CPU a convolution is measured too: another library computes it, often faster. On a GPU it is not,
because its algorithm may need fewer operations than are counted.
"""

import contextlib
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from .roofline import DeviceRates

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Without int8: PyTorch has no public product of int8 matrices."""
TRY_S = 0.02
"""A product that takes this long can be timed accurately."""
TRIES = 5
SMALLEST, LARGEST = 256, 8192
COPIED_BYTES = 256 << 20
SENT_BYTES = 64 << 20


def device_rates(device: str, precisions: tuple[str, ...]) -> DeviceRates:
    """Measure a device (cpu, cuda:N) in fp32 and these precisions; those that it cannot multiply are omitted."""
    torch_device = torch.device(device)
    rates = {}
    for name in dict.fromkeys(("fp32", *precisions)):
        if name in TYPES:
            measured = []
            for measure in (_matrix_rate, _convolution_rate) if torch_device.type == "cpu" else (_matrix_rate,):
                with contextlib.suppress(RuntimeError):  # "not implemented for": the processor lacks this type
                    measured.append(measure(torch_device, TYPES[name]))
            if measured:
                rates[name] = max(measured)
    source = torch.ones(COPIED_BYTES // 4, device=torch_device)
    target = torch.empty_like(source)
    copied_s = _best_s(lambda: target.copy_(source), torch_device)
    upload = download = None
    if torch_device.type == "cuda":
        host = torch.ones(SENT_BYTES, dtype=torch.uint8, pin_memory=True)
        on_device = torch.empty_like(host, device=torch_device)
        upload = SENT_BYTES / _best_s(lambda: on_device.copy_(host, non_blocking=True), torch_device)
        download = SENT_BYTES / _best_s(lambda: host.copy_(on_device, non_blocking=True), torch_device)
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
