"""One backend for several threads: they take turns, batch by batch, and a stream of batches still overlaps."""

import threading
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BackendError
from ..infer.backend import Backend


class SharedBackend(Backend):
    """A backend for several threads: a lock lets one of them use it at a time.

    A stream has the lock while the backend works, not while its source makes the next batch, nor while the reader of
    the answers has them: other threads run their batches in between, and a stream that is never read to its end stops
    nobody. A backend that works on several batches at a time has one such stream. While it is open, the batches of
    other streams are single calls.
    """

    def __init__(self, backend: Backend) -> None:
        """Take ownership of the backend."""
        self.name, self.card, self.device, self.runs_on = backend.name, backend.card, backend.device, backend.runs_on
        self.max_batch, self.opt_batch, self.precision = backend.max_batch, backend.opt_batch, backend.precision
        self._backend = backend
        # The same thread may come here again: Python may end a stream that nobody reads in the middle of a call.
        self._lock = threading.RLock()
        self._overlapping = threading.Lock()

    @property
    def overlaps(self) -> bool:
        """Whether the backend overlaps batches of a stream."""
        return self._backend.overlaps

    def check_open(self) -> None:
        """Raises BackendError if it is closed."""
        if self.closed:
            raise BackendError(f"{self.card.name}: the model is closed; open it again with rtk.load")

    def __call__(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._lock:
            self.check_open()
            return self._backend(images_NHWC)

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of each batch, in order. Raises what a stream of the backend raises."""
        if not self.overlaps or not self._overlapping.acquire(blocking=False):
            yield from map(self, batches)
            return
        try:
            stream = self._backend.stream(self._unlocked(batches))
            try:
                while True:
                    with self._lock:
                        self.check_open()
                        logits_NK = next(stream, None)
                    if logits_NK is None:
                        return
                    yield logits_NK
            finally:
                with self._lock:
                    _close(stream)
        finally:
            self._overlapping.release()

    def _unlocked(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """The batches, for the backend's stream, which has the lock: other threads get it while the source works."""
        source = iter(batches)
        while True:
            self._lock.release()
            try:
                images_NHWC = next(source, None)
            finally:
                self._lock.acquire()
            self.check_open()
            if images_NHWC is None:
                return
            yield images_NHWC

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self(images_NHWC)

    def _free(self) -> None:
        with self._lock:
            self._backend.close()


def _close(stream: Iterator[NDArray[np.float32]]) -> None:
    """End a generator now: its buffers are free for the next stream."""
    close = getattr(stream, "close", None)
    if close is not None:
        close()
