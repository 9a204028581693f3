"""DeferredRead: read numbers that a GPU computes without making the GPU or the host wait."""

from collections import deque
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

DELAY_STEPS = 8
"""A GPU's numbers are read this many steps later: they are ready then, and the host is at most this far ahead."""


class DeferredRead(Generic[T]):
    """A queue of small tensors, each with a label; a tensor is read after `delay` later ones have been added."""

    def __init__(self, device: torch.device) -> None:
        self.delay = DELAY_STEPS if device.type == "cuda" else 0
        self._waiting: deque[tuple[T, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, label: T, value: Tensor) -> list[tuple[T, list[float]]]:
        """Add a tensor, and return the label and numbers of the one that is now due, if any."""
        event = None
        if value.device.type == "cuda":
            stream = torch.cuda.current_stream(value.device)
            value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            event = stream.record_event()
        self._waiting.append((label, value, event))
        return [self._read()] if len(self._waiting) > self.delay else []

    def read_all(self) -> list[tuple[T, list[float]]]:
        """Wait for all tensors that have not been read, and return them in order."""
        return [self._read() for _ in range(len(self._waiting))]

    def _read(self) -> tuple[T, list[float]]:
        label, value, event = self._waiting.popleft()
        if event is not None:
            event.synchronize()
        return label, value.tolist()
