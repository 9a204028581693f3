"""Numbers that a device worked out, read without making it wait."""

from collections import deque
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

LAG = 8
"""Steps that a GPU's numbers are read late: they have long been worked out, and the host is at most so far ahead."""


class Lagged(Generic[T]):
    """A row of small tensors and what they are about; each is read when `LAG` others have come after it."""

    def __init__(self, device: torch.device) -> None:
        self.lag = LAG if device.type == "cuda" else 0
        self._waiting: deque[tuple[T, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, about: T, value: Tensor) -> list[tuple[T, list[float]]]:
        """Take a tensor in, and return the numbers of the one `lag` before it, if there is one."""
        event = None
        if value.device.type == "cuda":
            stream = torch.cuda.current_stream(value.device)
            value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            event = stream.record_event()
        self._waiting.append((about, value, event))
        return [self._read()] if len(self._waiting) > self.lag else []

    def rest(self) -> list[tuple[T, list[float]]]:
        """Wait for all that has not been read yet, and return it in order."""
        return [self._read() for _ in range(len(self._waiting))]

    def _read(self) -> tuple[T, list[float]]:
        about, value, event = self._waiting.popleft()
        if event is not None:
            event.synchronize()
        return about, value.tolist()
