"""Images that stay on the GPU, to time an engine without copies: CUDA events before and after every run."""

import contextlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..backend import Resident
from .pipeline import RunEngine
from .pycuda_driver import NON_BLOCKING, TIMING, Driver


class OnGpu(Resident):
    """Images and logits on the GPU, with their own CUDA stream."""

    def __init__(
        self,
        driver: Driver,
        engine: RunEngine,
        images_NHWC: NDArray[np.uint8],
        *,
        logits_bytes: int,
        current: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        """`logits_bytes`: for the largest batch; `current`: makes the GPU's context current. Raises BackendError."""
        self._engine, self._current = engine, current
        self._image_bytes = int(np.prod(images_NHWC.shape[1:]))
        with contextlib.ExitStack() as undo, current():
            self._stream = driver.Stream(NON_BLOCKING)
            self._images = driver.mem_alloc(images_NHWC.nbytes)
            undo.callback(self._images.free)
            self._logits = driver.mem_alloc(logits_bytes)
            undo.callback(self._logits.free)
            self._began, self._ended = driver.Event(TIMING), driver.Event(TIMING)
            driver.memcpy_htod_async(self._images, images_NHWC, self._stream)
            self._stream.synchronize()
            undo.pop_all()
        self._closed = False

    def run(self, start: int, count: int) -> float:
        """Run the engine on these images, wait, and return the seconds between two CUDA events."""
        with self._current():
            self._began.record(self._stream)
            self._engine.enqueue(
                count,
                images_at=int(self._images) + start * self._image_bytes,
                logits_at=int(self._logits),
                stream_handle=self._stream.handle,
            )
            self._ended.record(self._stream)
            self._ended.synchronize()
            return self._ended.time_since(self._began) / 1e3

    def close(self) -> None:
        """Free images and logits. A second call does nothing."""
        if not self._closed:
            self._closed = True
            with self._current():
                self._stream.synchronize()
                self._images.free()
                self._logits.free()
