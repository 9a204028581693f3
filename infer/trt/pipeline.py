"""Batches through a GPU: upload, run, download, each on a stream of its own, so that they overlap.

A slot is one batch on its way: page-locked host buffers, device buffers, and an event after each of the three steps.
A run waits for its upload and a download for its run, on the GPU; the host waits for a download before it reads the
answers, and so before it uses the slot again: then nothing of the slot's last batch is in flight any more.

Shapes: N images, H rows, W columns, C channels, K classes.
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BackendError
from .pycuda_driver import MIB, NO_TIMING, NON_BLOCKING, DeviceMemory, Driver, GpuEvent, GpuStream, on_gpu


class RunEngine(Protocol):
    """An engine on the GPU, for one batch at a time."""

    def enqueue(self, count: int, *, images_at: int, logits_at: int, stream_handle: int) -> None:
        """Start a run of `count` images on a stream, between two addresses on the GPU. Raises BackendError."""

    def close(self) -> None:
        """Free everything."""


@dataclass
class Slot:
    """The buffers and events of one batch; of `max_batch` images."""

    host_NHWC: NDArray[np.uint8] | None
    """Page-locked; None where the caller's own array is read."""
    logits_NK: NDArray[np.float32]
    """Page-locked."""
    device_images: DeviceMemory
    device_logits: DeviceMemory
    uploaded: GpuEvent
    computed: GpuEvent
    downloaded: GpuEvent
    count: int = 0
    """Images of the batch that is in flight, or was."""


class Pipeline:
    """An engine with the streams and buffers to keep it busy. One thread at a time may use it.

    It owns the engine: close() closes both, and so does an error while this is made.
    """

    def __init__(
        self,
        driver: Driver,
        engine: RunEngine,
        *,
        image_shape: tuple[int, int, int],
        classes: int,
        max_batch: int,
        device_index: int = 0,
        slots: int = 3,
    ) -> None:
        """Make buffers for `slots` batches of a stream and one of a single call. Raises BackendError."""
        assert slots >= 1
        self._driver, self._engine = driver, engine
        self._index = device_index
        self._sizes = (max_batch, image_shape, classes)
        self._closed, self._streaming = False, False
        self._lanes: list[GpuStream] = []
        """The streams: uploads, runs, downloads."""
        self._slots: list[Slot] = []
        """The slot of single calls, then those of a stream."""
        try:
            with self._current():
                for _ in range(3):
                    self._lanes.append(driver.Stream(NON_BLOCKING))
                for number in range(slots + 1):
                    self._slots.append(self._new_slot(staged=number > 0))
        except BaseException:
            self.close()
            raise

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits N x K of one batch, uploaded straight from the caller's array, which must be contiguous."""
        with self._current():
            try:
                self._submit(self._slots[0], images_NHWC)
                return self._collect(self._slots[0])
            except BaseException:
                self._settle()
                raise

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Logits of batch after batch, in order, while the next ones are on their way.

        A batch may be changed once the next one is asked for: it is copied into page-locked memory. Single calls in
        between are fine; a second stream at the same time is a BackendError.
        """
        if self._streaming:
            raise BackendError(
                "trt: a stream of this backend is still open; finish or close it, or open a second backend"
            )
        self._streaming = True
        free = self._slots[1:]
        in_flight: deque[Slot] = deque()
        try:
            for images_NHWC in batches:
                answers = []
                while in_flight and not (free and len(images_NHWC)):  # an empty batch waits for all before it
                    answers.append(self._finish(in_flight.popleft(), free))
                if len(images_NHWC):
                    in_flight.append(self._start(images_NHWC, free))
                else:
                    answers.append(np.empty((0, self._sizes[2]), np.float32))
                yield from answers
            while in_flight:
                yield self._finish(in_flight.popleft(), free)
        finally:
            self._streaming = False
            if not self._closed:
                with self._current():
                    self._settle()

    def close(self) -> None:
        """Wait for what is in flight and free everything; calling it twice does no harm."""
        if self._closed:
            return
        with self._current(), contextlib.ExitStack() as frees:  # every callback runs, also after one that fails
            frees.callback(self._engine.close)
            frees.callback(self._lanes.clear)  # PyCUDA destroys streams and events with their last reference
            frees.callback(self._slots.clear)
            for slot in self._slots:
                for memory in (slot.device_images, slot.device_logits, _allocation(slot.logits_NK)):
                    frees.callback(memory.free)
                if slot.host_NHWC is not None:
                    frees.callback(_allocation(slot.host_NHWC).free)
            self._settle()
        self._closed = True

    def _start(self, images_NHWC: NDArray[np.uint8], free: list[Slot]) -> Slot:
        """Copy a batch into a free slot's page-locked memory and send it on its way."""
        slot = free.pop()
        assert slot.host_NHWC is not None  # a stream's slots have one
        staged_NHWC = slot.host_NHWC[: len(images_NHWC)]
        np.copyto(staged_NHWC, images_NHWC)
        with self._current():
            self._submit(slot, staged_NHWC)
        return slot

    def _finish(self, slot: Slot, free: list[Slot]) -> NDArray[np.float32]:
        """The answers of the batch in this slot, and the slot free again."""
        with self._current():
            answers_NK = self._collect(slot)
        free.append(slot)
        return answers_NK

    def _submit(self, slot: Slot, images_NHWC: NDArray[np.uint8]) -> None:
        """Put upload, run and download of one batch onto their streams; nothing is waited for."""
        uploads, runs, downloads = self._lanes
        slot.count = len(images_NHWC)
        self._driver.memcpy_htod_async(slot.device_images, images_NHWC, uploads)
        slot.uploaded.record(uploads)
        runs.wait_for_event(slot.uploaded)
        self._engine.enqueue(
            slot.count,
            images_at=int(slot.device_images),
            logits_at=int(slot.device_logits),
            stream_handle=runs.handle,
        )
        slot.computed.record(runs)
        downloads.wait_for_event(slot.computed)
        self._driver.memcpy_dtoh_async(slot.logits_NK[: slot.count], slot.device_logits, downloads)
        slot.downloaded.record(downloads)

    def _collect(self, slot: Slot) -> NDArray[np.float32]:
        """Wait for a slot's download and copy its answers out."""
        slot.downloaded.synchronize()
        return slot.logits_NK[: slot.count].copy()

    def _settle(self) -> None:
        """Wait for all that is in flight, so that no memory is touched afterwards; errors were told already."""
        for lane in self._lanes:
            with contextlib.suppress(self._driver.Error):
                lane.synchronize()

    def _new_slot(self, *, staged: bool) -> Slot:
        """Allocate a slot whole, or nothing."""
        driver, (batch, image_shape, classes) = self._driver, self._sizes
        with contextlib.ExitStack() as undo:
            device_images = driver.mem_alloc(batch * int(np.prod(image_shape)))
            undo.callback(device_images.free)
            device_logits = driver.mem_alloc(batch * classes * np.dtype(np.float32).itemsize)
            undo.callback(device_logits.free)
            logits_NK = driver.pagelocked_empty((batch, classes), np.float32)
            undo.callback(_allocation(logits_NK).free)
            host_NHWC = driver.pagelocked_empty((batch, *image_shape), np.uint8) if staged else None
            if host_NHWC is not None:
                undo.callback(_allocation(host_NHWC).free)
            uploaded, computed, downloaded = (driver.Event(NO_TIMING) for _ in range(3))
            undo.pop_all()
        return Slot(host_NHWC, logits_NK, device_images, device_logits, uploaded, computed, downloaded)

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """Work on the GPU, CUDA's errors as BackendErrors. Raises BackendError when closed."""
        if self._closed:
            raise BackendError("trt: this backend is closed")
        batch, image_shape, classes = self._sizes
        slot_mib = batch * (int(np.prod(image_shape)) + classes * 4) / MIB
        with on_gpu(self._driver, self._index, need=f"{slot_mib:,.1f} MiB for a slot of up to {batch} images"):
            yield


def _allocation(array: NDArray[Any]) -> Any:
    """PyCUDA's page-locked allocation under an array: it has a `free`."""
    return array.base
