"""The seam to CUDA: the few names of `pycuda.driver` that the trt backend uses, and how PyCUDA is found.

Nothing stands between the backend and PyCUDA. `LazyCuda` has the same names, and does everything as late as CUDA may.
"""

import contextlib
import functools
import importlib
from collections.abc import Hashable, Iterator
from importlib import util
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...core.errors import BackendError
from ...core.text import one_line

NON_BLOCKING = 1
"""Stream flag: work on it does not wait for the default stream, where PyTorch's work is."""
NO_TIMING = 2
"""Event flag: cheaper to record and to wait for."""
TIMING = 0
"""Event flag: the event keeps its time."""
MIB = 2**20


class GpuEvent(Protocol):
    """A point in a stream's work."""

    def record(self, stream: Any) -> Any: ...
    def synchronize(self) -> Any: ...
    def time_since(self, event: Any) -> float: ...


class GpuStream(Protocol):
    """Work that the GPU does in order."""

    @property
    def handle(self) -> int: ...
    def synchronize(self) -> Any: ...
    def wait_for_event(self, event: Any) -> Any: ...


class DeviceMemory(Protocol):
    """Memory on the GPU; int() gives its address."""

    def __int__(self) -> int: ...
    def free(self) -> Any: ...


class GpuContext(Protocol):
    """A GPU's primary context, shared with PyTorch and ONNX Runtime; current from push to pop."""

    def push(self) -> Any: ...


class ContextStack(Protocol):
    """The thread's stack of contexts."""

    def pop(self) -> Any: ...


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
    """Whether PyCUDA can be found; it is not imported."""
    return util.find_spec("pycuda") is not None


@functools.cache
def pycuda_driver() -> Driver:
    """PyCUDA's driver module, started. Raises BackendError when it is missing or does not start."""
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
        raise BackendError(f"trt: CUDA does not start: {' '.join(str(error).split())}") from error
    return driver


@functools.cache
def primary_context(driver: Driver, index: int) -> GpuContext:
    """The primary context of that GPU, retained once for the life of the process.

    PyCUDA's way of releasing one leaves it on the thread's stack of contexts, so none is ever released; keeping it
    holds no memory of ours. Raises BackendError when the GPU gives none.
    """
    try:
        return driver.Device(index).retain_primary_context()
    except driver.MemoryError as error:
        raise BackendError(
            f"trt: cuda:{index}: out of GPU memory; stop what else runs there (see nvidia-smi)"
        ) from error
    except driver.Error as error:
        reason = one_line(error)
        hint = "another process holds it (exclusive compute mode): stop it or name another --device"
        busy = "busy or unavailable" in reason or "unavailable" in reason.lower()
        raise BackendError(f"trt: cuda:{index}: no context: {reason}; {hint if busy else 'see nvidia-smi'}") from error


@contextlib.contextmanager
def on_gpu(driver: Driver, index: int, *, need: str = "") -> Iterator[None]:
    """Make that GPU's primary context current while the block runs, and turn CUDA's errors into BackendErrors.

    `need`: how much memory was asked for, in words, for the message when there is too little.
    """
    primary_context(driver, index).push()
    try:
        yield
    except driver.MemoryError as error:
        free, total = driver.mem_get_info()
        raise BackendError(
            f"trt: cuda:{index}: out of GPU memory: {need or 'more was asked for'}, {free / MIB:,.0f} of "
            f"{total / MIB:,.0f} MiB are free; stop what else runs there, or build with a smaller --max-batch"
        ) from error
    except driver.Error as error:
        raise BackendError(f"trt: cuda:{index}: {' '.join(str(error).split())}") from error
    finally:
        driver.Context.pop()
