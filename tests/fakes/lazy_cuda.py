"""LazyCuda: a fake of `pycuda.driver` that does all work as late as possible, to test stream logic without a GPU.

Copies and runs wait in their streams. They run in stream order, and only as far as a synchronisation requires; a wait
for an event makes the event's stream catch up first. So code that reads too early reads the old content: new memory is
filled with noise. With `schedule`, random pieces of work run earlier, as on a real GPU.

Memory is numpy arrays. The fake keeps account of allocations, and raises an error for use after free.
"""

import random
import weakref
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

NOISE = 0xA5
"""The content of new memory."""
PAGE = 4096


class CudaError(Exception):
    """PyCUDA's Error."""


class CudaMemoryError(CudaError):
    """PyCUDA's MemoryError."""


@dataclass
class _Line:
    """The work of a stream in order, and how much of it is done."""

    handle: int
    work: deque["Callable[[], None] | _Mark"] = field(default_factory=deque)
    enqueued: int = 0
    done: int = 0


@dataclass(frozen=True)
class _Mark:
    """A point in a line: reached when `position` pieces of its work are done."""

    line: _Line
    position: int


class LazyCuda:
    """The names of `pycuda.driver` that the trt backend uses. One object is one machine."""

    Error, MemoryError = CudaError, CudaMemoryError

    def __init__(self, *, memory_bytes: int = 2**30, devices: int = 1, schedule: random.Random | None = None) -> None:
        """`memory_bytes`: memory of each device; `schedule`: makes random work run early."""
        self.memory_bytes, self.devices, self.schedule = memory_bytes, devices, schedule
        self.calls = Counter[str]()
        """Number of calls of each name."""
        self.fail_at: dict[str, int] = {}
        """The call of each name, counted from 1, that raises Error."""
        self.stack: list[int] = []
        """The devices on the context stack, the current one last."""
        self.device_memory: dict[int, tuple[int, NDArray[np.uint8]]] = {}
        """Device and content of each allocation, by address."""
        self.pagelocked: list[PagelockedMemory] = []
        self.events: weakref.WeakSet[LazyEvent] = weakref.WeakSet()
        self.streams: weakref.WeakSet[LazyStream] = weakref.WeakSet()
        self.recording: dict[int, list[Callable[[], None] | _Mark]] = {}
        """Work of streams that are being recorded, by stream handle; it does not run."""
        self._lines: list[_Line] = []
        self._next_address = PAGE

    # The names of pycuda.driver.

    def init(self) -> None:
        """Start CUDA."""

    def Device(self, index: int) -> "LazyDevice":  # PyCUDA's name
        """A GPU. Raises Error if there is none with that index."""
        if index >= self.devices:
            raise CudaError("cuDeviceGet failed: invalid device ordinal")
        return LazyDevice(self, index)

    @property
    def Context(self) -> "LazyContextStack":  # PyCUDA's name
        """The stack of contexts."""
        return LazyContextStack(self)

    def Stream(self, flags: int) -> "LazyStream":  # PyCUDA's name
        """A new stream."""
        self._called("Stream")
        self._lines.append(_Line(handle=len(self._lines) + 1))
        stream = LazyStream(self, self._lines[-1])
        self.streams.add(stream)
        return stream

    def Event(self, flags: int) -> "LazyEvent":  # PyCUDA's name
        """A new event. Until it is recorded, waiting for it returns at once."""
        self._called("Event")
        event = LazyEvent(self)
        self.events.add(event)
        return event

    def mem_alloc(self, size: int) -> "LazyDeviceMemory":
        """Memory on the current device, full of noise. Raises MemoryError if too little is free."""
        self._called("mem_alloc")
        if size > self.mem_get_info()[0]:
            raise CudaMemoryError("cuMemAlloc failed: out of memory")
        address = self._next_address
        self._next_address += -(-size // PAGE) * PAGE
        self.device_memory[address] = (self.stack[-1], np.full(size, NOISE, np.uint8))
        return LazyDeviceMemory(self, address)

    def mem_get_info(self) -> tuple[int, int]:
        """Free and total bytes of the current device."""
        self._called("mem_get_info")
        used = sum(len(content) for device, content in self.device_memory.values() if device == self.stack[-1])
        return self.memory_bytes - used, self.memory_bytes

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A page-locked array, full of noise; `array.base.free()` frees it."""
        self._called("pagelocked_empty")
        memory = PagelockedMemory(bytes([NOISE]) * (int(np.prod(shape)) * np.dtype(dtype).itemsize))
        memory.machine = self
        self.pagelocked.append(memory)
        return np.ndarray(shape, dtype, buffer=memory)

    def memcpy_htod_async(self, dest: Any, src: NDArray[Any], stream: Any) -> None:
        """Copy to the device later."""
        self._called("memcpy_htod_async")

        def copy() -> None:
            content = _host_bytes(src)
            self.content(int(dest), len(content))[:] = content

        self.add(stream.handle, copy)

    def memcpy_dtoh_async(self, dest: NDArray[Any], src: Any, stream: Any) -> None:
        """Copy from the device later."""
        self._called("memcpy_dtoh_async")

        def copy() -> None:
            content = _host_bytes(dest)
            content[:] = self.content(int(src), len(content))

        self.add(stream.handle, copy)

    # For fake engines and tests.

    def add(self, handle: int, work: "Callable[[], None] | _Mark") -> None:
        """Enqueue work on the stream with that handle."""
        if handle in self.recording:
            self.recording[handle].append(work)
            return
        line = self._lines[handle - 1]
        line.work.append(work)
        line.enqueued += 1
        self._run_some_early()

    def run_engine(self, stream: int, images_at: int, logits_at: int, shape: tuple[int, ...], classes: int) -> bool:
        """Enqueue a run of the fake engine for images of shape N x H x W x C; return that it is accepted."""

        def run() -> None:
            images_NHWC = self.content(images_at, int(np.prod(shape))).reshape(shape)
            logits_NK = fake_logits(images_NHWC, classes)
            self.content(logits_at, logits_NK.nbytes)[:] = logits_NK.view(np.uint8).ravel()

        self.add(stream, run)
        return True

    def content(self, address: int, size: int) -> NDArray[np.uint8]:
        """`size` bytes of an allocation, from this address. Raises Error if it was freed or is too small."""
        base = max((known for known in self.device_memory if known <= address), default=-1)
        content = self.device_memory[base][1] if base >= 0 else np.empty(0, np.uint8)
        offset = address - base
        if offset >= len(content):
            raise CudaError(f"illegal address {address:#x}: never allocated, or freed")
        if offset + size > len(content):
            raise CudaError(f"illegal access: {offset + size} bytes of an allocation of {len(content)}")
        return content[offset : offset + size]

    def pending(self) -> int:
        """Number of pieces of work that have not run, in all streams."""
        return sum(len(line.work) for line in self._lines)

    def live(self) -> dict[str, int]:
        """Existing device bytes, page-locked bytes, streams and events."""
        return {
            "device_bytes": sum(len(content) for _, content in self.device_memory.values()),
            "pagelocked_bytes": sum(len(memory) for memory in self.pagelocked),
            "streams": len(self.streams),
            "events": len(self.events),
        }

    def catch_up(self, mark: _Mark) -> None:
        """Do the work of a line up to the mark, and first the work that it waits for."""
        line = mark.line
        while line.done < mark.position:
            work = line.work.popleft()
            if isinstance(work, _Mark):
                self.catch_up(work)
            line.done += 1
            if not isinstance(work, _Mark):
                work()

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if self.calls[name] == self.fail_at.get(name):
            raise CudaError(f"{name} failed on purpose at call {self.calls[name]}")
        if not self.stack:
            raise CudaError(f"{name}: no context is current")

    def _run_some_early(self) -> None:
        while self.schedule is not None and self.schedule.random() < 0.5:
            ready = [line for line in self._lines if line.work and _is_ready(line.work[0])]
            if not ready:
                return
            line = self.schedule.choice(ready)
            self.catch_up(_Mark(line, line.done + 1))


class LazyDevice:
    """One GPU of the machine."""

    def __init__(self, machine: LazyCuda, index: int) -> None:
        self.machine, self.index = machine, index

    def retain_primary_context(self) -> "LazyContext":
        """The GPU's context, which is not current yet."""
        self.machine.calls["retain_primary_context"] += 1
        return LazyContext(self.machine, self.index)


class LazyContext:
    """A GPU's primary context."""

    def __init__(self, machine: LazyCuda, index: int) -> None:
        self.machine, self.index = machine, index

    def push(self) -> None:
        """Make it current."""
        self.machine.stack.append(self.index)

    def __eq__(self, other: object) -> bool:
        """Contexts are equal if they have the same handle."""
        return isinstance(other, LazyContext) and (self.machine, self.index) == (other.machine, other.index)

    def __hash__(self) -> int:
        return hash((id(self.machine), self.index))


class LazyContextStack:
    """The thread's stack of contexts."""

    def __init__(self, machine: LazyCuda) -> None:
        self.machine = machine

    def pop(self) -> None:
        """Make the previous context current again. Raises Error if the stack is empty."""
        if not self.machine.stack:
            raise CudaError("cannot pop context from empty stack")
        self.machine.stack.pop()

    def get_current(self) -> LazyContext | None:
        """The context on top, if there is one."""
        return LazyContext(self.machine, self.machine.stack[-1]) if self.machine.stack else None


class LazyStream:
    """A queue of work in order."""

    def __init__(self, machine: LazyCuda, line: _Line) -> None:
        self.machine, self._line = machine, line

    @property
    def handle(self) -> int:
        """The handle that execute_async_v3 takes."""
        return self._line.handle

    def wait_for_event(self, event: "LazyEvent") -> None:
        """Make later work on this stream wait for the work that the event marks now."""
        self.machine._called("wait_for_event")
        if event.mark is not None:
            self.machine.add(self.handle, event.mark)

    def synchronize(self) -> None:
        """Do all work of this stream now."""
        self.machine._called("Stream.synchronize")
        self.machine.catch_up(_Mark(self._line, self._line.enqueued))


class LazyEvent:
    """A point in a stream's work."""

    def __init__(self, machine: LazyCuda) -> None:
        self.machine = machine
        self.mark: _Mark | None = None

    def record(self, stream: LazyStream) -> "LazyEvent":
        """Mark the work enqueued so far on the stream."""
        self.machine._called("record")
        self.mark = _Mark(stream._line, stream._line.enqueued)
        return self

    def synchronize(self) -> "LazyEvent":
        """Do the marked work now."""
        self.machine._called("Event.synchronize")
        if self.mark is not None:
            self.machine.catch_up(self.mark)
        return self

    def time_since(self, earlier: "LazyEvent") -> float:
        """Milliseconds between two events: one per piece of work. Raises Error if one was not reached."""
        marks = (earlier.mark, self.mark)
        if any(mark is None or mark.line.done < mark.position for mark in marks):
            raise CudaError("cuEventElapsedTime failed: not ready")
        assert earlier.mark is not None
        assert self.mark is not None
        return float(self.mark.position - earlier.mark.position)


class LazyDeviceMemory:
    """An allocation on the device."""

    def __init__(self, machine: LazyCuda, address: int) -> None:
        self.machine, self._address = machine, address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        """Free it. Raises Error the second time."""
        if self.machine.device_memory.pop(self._address, None) is None:
            raise CudaError("cuMemFree failed: invalid argument")


class PagelockedMemory(bytearray):
    """Page-locked host memory."""

    machine: LazyCuda
    freed = False

    def free(self) -> None:
        """Free it. Later copies to or from it raise Error, and so does a second call."""
        if self.freed:
            raise CudaError("cuMemFreeHost failed: invalid argument")
        self.freed = True
        self.machine.pagelocked = [memory for memory in self.machine.pagelocked if memory is not self]


class LazyGraphs:
    """A fake of CudaGraphs: a graph is the work that was enqueued on a stream during recording."""

    def __init__(self, machine: LazyCuda) -> None:
        self.machine = machine
        self.live: list[LazyGraph] = []
        self.launches = 0

    def record(self, stream_handle: int, work: Callable[[], None]) -> "LazyGraph":
        """Record what `work` enqueues on the stream, without running it."""
        self.machine.recording[stream_handle] = []
        try:
            work()
        finally:
            recorded = self.machine.recording.pop(stream_handle)
        self.live.append(LazyGraph(tuple(recorded)))
        return self.live[-1]

    def launch(self, graph: "LazyGraph", stream_handle: int) -> None:
        """Enqueue the graph's work on the stream. Raises CudaError if the graph was destroyed."""
        if not any(graph is one for one in self.live):
            raise CudaError("cuGraphLaunch failed: invalid argument")
        self.launches += 1
        for work in graph.work:
            self.machine.add(stream_handle, work)

    def destroy(self, graph: "LazyGraph") -> None:
        """Free a graph. Raises CudaError the second time."""
        if not any(graph is one for one in self.live):
            raise CudaError("cuGraphExecDestroy failed: invalid argument")
        self.live = [one for one in self.live if one is not graph]


@dataclass(frozen=True, eq=False)
class LazyGraph:
    """Recorded work."""

    work: tuple["Callable[[], None] | _Mark", ...]


class LazyEngine:
    """An engine on a LazyCuda: when its run is reached, it reads the images and writes `fake_logits`."""

    def __init__(self, machine: LazyCuda, *, image_shape: tuple[int, int, int], classes: int) -> None:
        self.machine, self.image_shape, self.classes = machine, image_shape, classes
        self.closed = False
        self.forks: list[LazyEngine] = []
        self.fail_at: int | None = None
        """The run, counted from 1, that raises CudaError instead of starting."""
        self.runs = 0

    def enqueue(self, count: int, *, images_at: int, logits_at: int, stream_handle: int) -> None:
        """Enqueue a run on the stream."""
        self.runs += 1
        if self.runs == self.fail_at:
            raise CudaError(f"the run failed on purpose at call {self.runs}")
        self.machine.run_engine(stream_handle, images_at, logits_at, (count, *self.image_shape), self.classes)

    def fork(self) -> "LazyEngine":
        """Another context."""
        self.forks.append(LazyEngine(self.machine, image_shape=self.image_shape, classes=self.classes))
        return self.forks[-1]

    def close(self) -> None:
        """Free everything."""
        self.closed = True


def fake_logits(images_NHWC: NDArray[np.uint8], classes: int) -> NDArray[np.float32]:
    """Logits N x K that depend on every pixel of their own image only; exact in float32."""
    flat = images_NHWC.reshape(len(images_NHWC), int(np.prod(images_NHWC.shape[1:]))).astype(np.int64)
    place = np.arange(1, flat.shape[1] + 1)
    sums_NK = np.stack([(flat * (place % (k + 7))).sum(axis=1) for k in range(classes)], axis=1)
    return (sums_NK % 9_973).astype(np.float32)


def _is_ready(work: "Callable[[], None] | _Mark") -> bool:
    return not isinstance(work, _Mark) or work.line.done >= work.position


def _host_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The memory of a contiguous array as bytes. Raises Error for page-locked memory that was freed."""
    base: Any = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, PagelockedMemory) and base.freed:
        raise CudaError("illegal access: page-locked memory that was freed")
    if not array.flags.c_contiguous:
        raise CudaError("ndarray is not contiguous")
    return array.reshape(-1).view(np.uint8)
