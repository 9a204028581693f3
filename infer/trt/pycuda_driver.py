"""The interface to CUDA: the names of `pycuda.driver` that the trt backend uses, and how PyCUDA is loaded.

The backend calls PyCUDA directly. Tests replace it by `LazyCuda`, which has the same names and does all work as late as
CUDA allows.
"""

import atexit
import ctypes
import functools
import importlib
import threading
import weakref
from collections.abc import Hashable
from importlib import util
from types import TracebackType
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...core.errors import BackendError
from ...core.library_errors import reason_of
from ...core.text import one_line

NON_BLOCKING = 1
"""Stream flag: work on the stream does not wait for the default stream, which PyTorch uses."""
NO_TIMING = 2
"""Event flag: without a time, which makes recording and waiting cheaper."""
TIMING = 0
"""Event flag: the event records its time."""
MIB = 2**20


class GpuEvent(Protocol):
    """A point in the work of a stream."""

    def record(self, stream: Any) -> Any: ...
    def synchronize(self) -> Any: ...
    def time_since(self, event: Any) -> float: ...


class GpuStream(Protocol):
    """A queue of work that the GPU does in order."""

    @property
    def handle(self) -> int: ...
    def synchronize(self) -> Any: ...
    def wait_for_event(self, event: Any) -> Any: ...


class DeviceMemory(Protocol):
    """Memory on the GPU; int() gives its address."""

    def __int__(self) -> int: ...
    def free(self) -> Any: ...


class GpuContext(Protocol):
    """A GPU's primary context, which PyTorch and ONNX Runtime share. It is current from push to pop."""

    def push(self) -> Any: ...


class RunEngine(Protocol):
    """An engine on the GPU that runs one batch at a time."""

    def enqueue(self, count: int, *, images_at: int, logits_at: int, stream_handle: int) -> None:
        """Start a run of `count` images on a stream, between two addresses on the GPU. Raises BackendError."""

    def close(self) -> None:
        """Free everything."""


class ContextStack(Protocol):
    """The thread's stack of contexts."""

    def pop(self) -> Any: ...
    def get_current(self) -> GpuContext | None: ...


class GpuDevice(Protocol):
    """One GPU."""

    def retain_primary_context(self) -> GpuContext: ...


class Driver(Hashable, Protocol):
    """`pycuda.driver`, or a fake of it."""

    @property
    def Error(self) -> type[Exception]: ...
    @property
    def MemoryError(self) -> type[Exception]: ...
    @property
    def Context(self) -> ContextStack: ...
    def init(self) -> Any: ...
    def Device(self, index: int) -> GpuDevice: ...
    def Stream(self, flags: int) -> GpuStream: ...
    def Event(self, flags: int) -> GpuEvent: ...
    def mem_alloc(self, size: int) -> DeviceMemory: ...
    def mem_get_info(self) -> tuple[int, int]: ...
    def pagelocked_empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]: ...
    def memcpy_htod_async(self, dest: DeviceMemory, src: NDArray[np.uint8], stream: GpuStream) -> Any: ...
    def memcpy_dtoh_async(self, dest: NDArray[np.float32], src: DeviceMemory, stream: GpuStream) -> Any: ...


def pycuda_installed() -> bool:
    """Whether PyCUDA is installed; this does not import it."""
    return util.find_spec("pycuda") is not None


@functools.cache
def pycuda_driver() -> Driver:
    """Import and initialise PyCUDA's driver module. Raises BackendError if it is missing or does not start."""
    if not pycuda_installed():
        raise BackendError("trt: PyCUDA is not installed; pip install pycuda (it compiles: nvcc must be on the PATH)")
    try:
        driver = cast(Driver, importlib.import_module("pycuda.driver"))
    except ImportError as error:
        reason = one_line(error)
        raise BackendError(f"trt: PyCUDA cannot be loaded ({reason}); pip install --force-reinstall pycuda") from error
    try:
        driver.init()
    except driver.Error as error:
        raise BackendError(f"trt: CUDA does not start: {reason_of(error)}") from error
    atexit.register(pop_abandoned, driver)  # PyCUDA aborts a process that ends with a context on its stack
    return driver


@functools.cache
def primary_context(driver: Driver, index: int) -> GpuContext:
    """The primary context of that GPU, retained once for the life of the process.

    It is never released: PyCUDA's release leaves the context on the thread's stack of contexts, and its destructor
    detaches a context that PyTorch and TensorRT share, with a warning. A kept context holds no memory of rtk.
    Raises BackendError if the GPU provides no context.
    """
    try:
        context = driver.Device(index).retain_primary_context()
    except driver.MemoryError as error:
        raise BackendError(
            f"trt: cuda:{index}: out of GPU memory; stop other programs on it (see nvidia-smi)"
        ) from error
    except driver.Error as error:
        reason = one_line(error)
        hint = "another process uses it (exclusive compute mode): stop that process or choose another --device"
        busy = "busy or unavailable" in reason or "unavailable" in reason.lower()
        raise BackendError(f"trt: cuda:{index}: no context: {reason}; {hint if busy else 'see nvidia-smi'}") from error
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))  # modules lose their names before the process ends
    return context


class _Block:
    """A block of CurrentGpu, and the context that it pushes."""

    def __init__(self, owner: "CurrentGpu", context: GpuContext) -> None:
        self.owner, self.context = weakref.ref(owner), context
        self.began = False
        """False before the block, and after it."""

    @property
    def runs(self) -> bool:
        """Whether the block is under way. If not, its context was abandoned.

        A `with` statement refers to its CurrentGpu until the block ends, even if Ctrl-C comes before __exit__ does.
        """
        return self.began and self.owner() is not None


class _Blocks(threading.local):
    """The blocks of this thread, the innermost last."""

    all: list[_Block]

    def __init__(self) -> None:
        self.all = []


_blocks = _Blocks()


def pop_abandoned(driver: Driver, *, down_to: int = 0) -> None:
    """Pop the contexts of all blocks of this thread but the first `down_to`.

    Ctrl-C between the push and the first line of a block leaves a context pushed; so does an error of the pop.
    """
    blocks = _blocks.all
    while len(blocks) > down_to:
        blocks[-1].began = False
        if driver.Context.get_current() == blocks[-1].context:
            driver.Context.pop()
        blocks.pop()


class CurrentGpu:
    """Make that GPU's primary context current in a `with` block, and convert CUDA's errors to BackendError.

    Blocks may nest: the garbage collector may close a stream while another one works. A class instead of a generator:
    the frame of a generator that raised keeps the error's frames alive in Python 3.12, and with them streams, events
    and memory that must die while the context is current.
    """

    def __init__(self, driver: Driver, index: int, *, need: str = "") -> None:
        """`need`: the requested memory as text, for the message if there is too little."""
        self._driver, self._index, self._need = driver, index, need
        self._block: _Block | None = None

    def __enter__(self) -> None:
        self._block = block = _Block(self, primary_context(self._driver, self._index))
        blocks = _blocks.all
        try:
            pop_abandoned(self._driver, down_to=max((k for k, one in enumerate(blocks, 1) if one.runs), default=0))
            blocks.append(block)  # before the push: Ctrl-C may come right after it
            block.context.push()
            block.began = True
        except self._driver.Error as error:
            if block in blocks:  # not pushed
                blocks.remove(block)
            raise BackendError(f"trt: cuda:{self._index}: {reason_of(error)}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._block is not None:
            self._block.began = False
        try:
            if isinstance(error, self._driver.Error | self._driver.MemoryError):
                raise BackendError(self._message(error)) from error
        finally:
            try:
                if self._block is not None and self._block in _blocks.all:
                    pop_abandoned(self._driver, down_to=_blocks.all.index(self._block))
            except self._driver.Error as failed:
                raise BackendError(f"trt: cuda:{self._index}: {reason_of(failed)}") from (error or failed)

    def _message(self, error: Exception) -> str:
        """Return what CUDA's error means; the context is still current, so the free memory can be read."""
        if not isinstance(error, self._driver.MemoryError):
            return f"trt: cuda:{self._index}: {reason_of(error)}"
        try:
            free, total = self._driver.mem_get_info()
            left = f", {free / MIB:,.0f} of {total / MIB:,.0f} MiB are free"
        except self._driver.Error:  # the first error is the one to show
            left = ""
        return (
            f"trt: cuda:{self._index}: out of GPU memory: {self._need or 'the request failed'}{left}; stop other "
            "programs on it, or build with a smaller --max-batch"
        )
