"""Fakes that return before their work is done, in the ways in which real programs do: for testing what must catch them.

`reading`: the answer is an object that computes when it is read, as lazy arrays do. `thread`: the array that is
returned is filled later, by a thread that goes on working. `queue`: the same, and a call waits for the one before it,
so that many calls in a row take their time and a single one seems to take none.
"""

import threading
import time
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rtk.infer.fake import FakeBackend

Early = Literal["reading", "thread", "queue"]


class EarlyFake(FakeBackend):
    """A fake whose delay comes after the call."""

    def __init__(self, early: Early, *, delay_s: float, name: str = "early") -> None:
        super().__init__(name=name)
        self.early, self.late_s = early, delay_s
        self._working: threading.Thread | None = None

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.early == "reading":
            return _Lazy(self, images_NHWC)  # type: ignore[return-value] # that is the lie
        if self.early == "queue":
            self.close()
        answer_NK = np.zeros((len(images_NHWC), len(self.card.classes)), np.float32)
        self._working = threading.Thread(target=self._fill, args=(answer_NK, images_NHWC), daemon=True)
        self._working.start()
        return answer_NK

    def answers(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What it answers in the end, when the delay is over."""
        time.sleep(self.late_s)
        return super()._run(images_NHWC)

    def _fill(self, answer_NK: NDArray[np.float32], images_NHWC: NDArray[np.uint8]) -> None:
        answer_NK[:] = self.answers(images_NHWC)

    def close(self) -> None:
        """Wait for the thread."""
        if self._working is not None:
            self._working.join()


class _Lazy:
    """Looks like an array, and becomes one when it is read."""

    def __init__(self, backend: EarlyFake, images_NHWC: NDArray[np.uint8]) -> None:
        self._backend, self._images_NHWC = backend, images_NHWC
        self.shape, self.dtype = (len(images_NHWC), len(backend.card.classes)), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        return self._backend.answers(self._images_NHWC)
