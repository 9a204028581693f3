"""A pipeline of batches on a GPU: uploads, runs and downloads overlap because each has its own CUDA stream.

A slot holds one batch in flight: page-locked host buffers, device buffers, and an event after each of the three steps.
On the GPU, a run waits for its upload, and a download waits for its run. The host waits for the download before it
reads the logits. Only then does it use the slot again, when nothing of the slot's last batch is in flight.

Shapes: N images, H rows, W columns, C channels, K classes.
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BackendError
from .pycuda_driver import (
    MIB,
    NO_TIMING,
    NON_BLOCKING,
    CurrentGpu,
    DeviceMemory,
    Driver,
    GpuEvent,
    GpuStream,
    RunEngine,
)
from .resident import OnGpu

SLOTS = 3
"""Batches of a stream in flight at the same time."""


@dataclass
class Slot:
    """The buffers and events of one batch. Buffers have room for the largest batch."""

    host_NHWC: NDArray[np.uint8] | None
    """Page-locked; None if the GPU reads the caller's array."""
    logits_NK: NDArray[np.float32]
    """Page-locked."""
    device_images: DeviceMemory
    device_logits: DeviceMemory
    uploaded: GpuEvent
    computed: GpuEvent
    downloaded: GpuEvent
    count: int = 0
    """Images of the current or last batch."""

    def free(self) -> None:
        """Free the buffers and destroy the events now, also if something refers to the slot. Raises CUDA's first error.

        PyCUDA destroys an event with its last reference, and only while its context is current.
        """
        with contextlib.ExitStack() as frees:  # every callback runs, also after one that fails
            for memory in (self.device_images, self.device_logits, _allocation(self.logits_NK)):
                frees.callback(memory.free)
            if self.host_NHWC is not None:
                frees.callback(_allocation(self.host_NHWC).free)
            del self.uploaded, self.computed, self.downloaded


class Lanes:
    """The three CUDA streams of a pipeline. Raises CUDA's error.

    No variable refers to a stream besides these three: a traceback would keep the variable, and the stream, past
    close().
    """

    def __init__(self, driver: Driver) -> None:
        try:
            self.uploads: GpuStream = driver.Stream(NON_BLOCKING)
            self.runs: GpuStream = driver.Stream(NON_BLOCKING)
            self.downloads: GpuStream = driver.Stream(NON_BLOCKING)
        except BaseException:
            self.free()
            raise

    def settle(self, error: type[Exception]) -> None:
        """Wait for all work in flight, so that the GPU touches no memory afterwards; these errors are ignored."""
        for name in ("uploads", "runs", "downloads"):
            with contextlib.suppress(error):
                if name in vars(self):  # Ctrl-C in close() may have freed it
                    getattr(self, name).synchronize()

    def free(self) -> None:
        """Destroy the streams now: PyCUDA destroys them with their last reference, while their context is current."""
        vars(self).clear()


class Pipeline:
    """An engine with the streams and buffers that keep it busy. Only one thread at a time may use it.

    The pipeline owns the engine: close() closes both, and so does an error in the constructor.
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
        slots: int = SLOTS,
    ) -> None:
        """Allocate buffers for `slots` batches of a stream and for one single call. Raises BackendError."""
        assert slots >= 1
        self._driver, self._engine = driver, engine
        self._index = device_index
        self._sizes = (max_batch, image_shape, classes)
        self._closed, self._streaming = False, False
        self._lanes: Lanes | None = None
        self._slots: list[Slot] = []
        """The slot of single calls, then the slots of a stream."""
        try:
            with self._current():
                self._lanes = Lanes(driver)
                for number in range(slots + 1):
                    self._slots.append(self._new_slot(staged=number > 0))
        except BaseException:
            self.close()
            raise

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the logits N x K of one batch. The GPU reads the caller's array, which must be contiguous."""
        with self._current():
            try:
                self._submit(self._slots[0], images_NHWC)
                return self._collect(self._slots[0])
            except BaseException:
                self._settle()
                raise

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of each batch, in order, while the next batches are in flight.

        The source may change a batch when the next one is requested: it was copied into page-locked memory. Single
        calls in between are allowed. Raises BackendError for a second stream at the same time.
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
                while in_flight and not (free and len(images_NHWC)):  # an empty batch waits for all earlier ones
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

    def resident(self, images_NHWC: NDArray[np.uint8], *, places: int | None = None) -> OnGpu:
        """Copy images to the GPU, to run the engine on them; close them before the pipeline. Raises BackendError.

        `places`: how many different batches a benchmark should run; None: as many as there are.
        """
        batch, _, classes = self._sizes

        def runs() -> GpuStream:
            if self._lanes is None or self._closed:
                raise BackendError("trt: this backend is closed")
            return self._lanes.runs

        return OnGpu(
            self._driver,
            self._engine,
            images_NHWC,
            logits_bytes=batch * classes * np.dtype(np.float32).itemsize,
            current=lambda: CurrentGpu(
                self._driver, self._index, need=f"{images_NHWC.nbytes / MIB:,.0f} MiB of images"
            ),
            stream=runs,
            places=places,
        )

    def close(self) -> None:
        """Wait for the work in flight and free everything. A second call does nothing."""
        if self._closed:
            return
        with self._current():
            self._settle()
            with contextlib.ExitStack() as frees:  # every callback runs, also after one that fails
                frees.callback(self._engine.close)
                if self._lanes is not None:
                    frees.callback(self._lanes.free)
                while self._slots:
                    frees.callback(self._slots.pop().free)
                self._closed = True

    def _start(self, images_NHWC: NDArray[np.uint8], free: list[Slot]) -> Slot:
        """Copy a batch into the page-locked memory of a free slot, and start its work."""
        slot = free.pop()
        assert slot.host_NHWC is not None  # a stream's slots have one
        staged_NHWC = slot.host_NHWC[: len(images_NHWC)]
        np.copyto(staged_NHWC, images_NHWC)
        with self._current():
            self._submit(slot, staged_NHWC)
        return slot

    def _finish(self, slot: Slot, free: list[Slot]) -> NDArray[np.float32]:
        """Wait for the logits of this slot's batch, and free the slot."""
        with self._current():
            answers_NK = self._collect(slot)
        free.append(slot)
        return answers_NK

    def _submit(self, slot: Slot, images_NHWC: NDArray[np.uint8]) -> None:
        """Enqueue upload, run and download of one batch on their streams, without waiting."""
        assert self._lanes is not None  # the constructor made them
        lanes, slot.count = self._lanes, len(images_NHWC)
        self._driver.memcpy_htod_async(slot.device_images, images_NHWC, lanes.uploads)
        slot.uploaded.record(lanes.uploads)
        lanes.runs.wait_for_event(slot.uploaded)
        self._engine.enqueue(
            slot.count,
            images_at=int(slot.device_images),
            logits_at=int(slot.device_logits),
            stream_handle=lanes.runs.handle,
        )
        slot.computed.record(lanes.runs)
        lanes.downloads.wait_for_event(slot.computed)
        self._driver.memcpy_dtoh_async(slot.logits_NK[: slot.count], slot.device_logits, lanes.downloads)
        slot.downloaded.record(lanes.downloads)

    def _collect(self, slot: Slot) -> NDArray[np.float32]:
        """Wait for the download of a slot, and return a copy of its logits."""
        slot.downloaded.synchronize()
        return slot.logits_NK[: slot.count].copy()

    def _settle(self) -> None:
        """Wait for all work in flight. Its errors were raised before."""
        if self._lanes is not None:
            self._lanes.settle(self._driver.Error)

    def _new_slot(self, *, staged: bool) -> Slot:
        """Allocate all buffers of a slot, or none."""
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

    def _current(self) -> CurrentGpu:
        """Make the GPU's context current, and convert CUDA's errors to BackendError. Raises BackendError if closed."""
        if self._closed:
            raise BackendError("trt: this backend is closed")
        batch, image_shape, classes = self._sizes
        slot_mib = batch * (int(np.prod(image_shape)) + classes * 4) / MIB
        return CurrentGpu(self._driver, self._index, need=f"{slot_mib:,.1f} MiB for a slot of up to {batch} images")


def _allocation(array: NDArray[Any]) -> Any:
    """The page-locked allocation of PyCUDA that owns an array's memory; it has a `free`."""
    return array.base
