"""Images that stay on the GPU, to time an engine without copies: CUDA events before and after every run.

The runs are on the stream on which the pipeline runs its batches. An engine's execution contexts share memory, so two
runs at the same time would spoil each other.
"""

import contextlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BackendError
from ..backend import Resident
from .pycuda_driver import TIMING, DeviceMemory, Driver, GpuStream, RunEngine


class OnGpu(Resident):
    """Images and logits on the GPU."""

    def __init__(
        self,
        driver: Driver,
        engine: RunEngine,
        images_NHWC: NDArray[np.uint8],
        *,
        logits_bytes: int,
        current: Callable[[], contextlib.AbstractContextManager[None]],
        stream: Callable[[], GpuStream],
        places: int | None = None,
    ) -> None:
        """`logits_bytes`: for the largest batch; `current`: makes the GPU's context current.

        `stream`: returns the stream of the runs; no reference to it is kept, because its owner destroys it.

        Raises BackendError.
        """
        self._engine, self._current, self._stream, self.places = engine, current, stream, places
        self._image_bytes = int(np.prod(images_NHWC.shape[1:]))
        self._closed = False
        self._blocks: list[DeviceMemory] = []
        """Images, then logits."""
        try:
            with current():
                for size in (images_NHWC.nbytes, logits_bytes):
                    self._blocks.append(driver.mem_alloc(size))
                self._began, self._ended = driver.Event(TIMING), driver.Event(TIMING)
                driver.memcpy_htod_async(self._blocks[0], images_NHWC, stream())
                stream().synchronize()
        except BaseException:
            self.close()
            raise

    def run(self, start: int, count: int) -> float:
        """Run the engine on these images, wait, and return the seconds between two CUDA events. Raises BackendError."""
        if self._closed:
            raise BackendError("trt: these images were freed")
        with self._current():
            self._began.record(self._stream())
            self._engine.enqueue(
                count,
                images_at=int(self._blocks[0]) + start * self._image_bytes,
                logits_at=int(self._blocks[1]),
                stream_handle=self._stream().handle,
            )
            self._ended.record(self._stream())
            self._ended.synchronize()
            return self._ended.time_since(self._began) / 1e3

    def close(self) -> None:
        """Free images and logits, and destroy the events. A second call does nothing."""
        if self._closed:
            return
        with self._current(), contextlib.ExitStack() as frees:  # every callback runs, also after one that fails
            frees.callback(self._destroy)
            while self._blocks:
                frees.callback(self._blocks.pop().free)
            self._closed = True
            with contextlib.suppress(BackendError):  # the backend was closed before: nothing is in flight
                self._stream().synchronize()

    def _destroy(self) -> None:
        """Destroy the events: PyCUDA does so with their last reference, while their context is current."""
        for name in ("_began", "_ended"):
            vars(self).pop(name, None)
