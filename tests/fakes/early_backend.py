"""Fake backends that return before their work is complete, as real asynchronous programs do.

Tests use them to show that a benchmark rejects asynchronous results. `reading`: the result is an object that computes
when it is read, as lazy arrays do. `thread`: a thread fills the returned array later. `queue`: the same, but a call
waits for the previous one, so that many calls take their full time and a single call seems to take none.
"""

import threading
import time
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rtk.infer.fake import FakeBackend

Early = Literal["reading", "thread", "queue"]


class EarlyFake(FakeBackend):
    """A fake backend whose delay comes after the call returns."""

    def __init__(self, early: Early, *, delay_s: float, name: str = "early") -> None:
        super().__init__(name=name)
        self.early, self.late_s = early, delay_s
        self._working: threading.Thread | None = None

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.early == "reading":
            return _Lazy(self, images_NHWC)  # type: ignore[return-value] # a lazy object instead of an array
        if self.early == "queue":
            self.close()
        answer_NK = np.zeros((len(images_NHWC), len(self.card.classes)), np.float32)
        self._working = threading.Thread(target=self._fill, args=(answer_NK, images_NHWC), daemon=True)
        self._working.start()
        return answer_NK

    def answers(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The logits, after the delay."""
        time.sleep(self.late_s)
        return super()._run(images_NHWC)

    def _fill(self, answer_NK: NDArray[np.float32], images_NHWC: NDArray[np.uint8]) -> None:
        answer_NK[:] = self.answers(images_NHWC)

    def close(self) -> None:
        """Wait for the thread."""
        if self._working is not None:
            self._working.join()


class _Lazy:
    """Looks like an array, and computes when it is read."""

    def __init__(self, backend: EarlyFake, images_NHWC: NDArray[np.uint8]) -> None:
        self._backend, self._images_NHWC = backend, images_NHWC
        self.shape, self.dtype = (len(images_NHWC), len(backend.card.classes)), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        return self._backend.answers(self._images_NHWC)
