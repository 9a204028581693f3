"""GPUs and versions from the NVIDIA driver through libcuda: no torch, no PyCUDA, and no context is created."""

import ctypes
import functools
import uuid
from dataclasses import dataclass

from ..device import check_device
from ..errors import BackendError, UsageError

LIBRARY = "libcuda.so.1"

# Device attributes of cuda.h.
COMPUTE_MODE, CC_MAJOR, CC_MINOR = 20, 75, 76
OUT_OF_MEMORY, UNAVAILABLE = 2, 46  # errors of cuda.h
PROHIBITED, EXCLUSIVE = 2, 3
"""Compute modes in which no process, or only one process, may use the GPU."""


@dataclass(frozen=True)
class Gpu:
    """One CUDA GPU of this machine."""

    index: int
    name: str
    compute_capability: str
    """For example 9.0."""
    memory_bytes: int
    compute_mode: int = 0
    """0: shared, 2: prohibited, 3: one process only."""


def gpu_count() -> int:
    """Return the number of CUDA GPUs that this process can use; 0 without a driver."""
    return _start()[1]


@functools.cache
def _start() -> tuple[int, int]:
    """Start the driver. Return CUDA's error (0: none, or no driver) and the number of GPUs."""
    libcuda = _libcuda()
    count = ctypes.c_int(0)
    if libcuda is None:
        return 0, 0
    status: int = libcuda.cuInit(0) or libcuda.cuDeviceGetCount(ctypes.byref(count))
    return status, 0 if status else count.value


@functools.cache
def driver_cuda() -> tuple[int, int] | None:
    """Return the newest CUDA version that the driver supports, such as (13, 0); None without a driver."""
    libcuda = _libcuda()
    version = ctypes.c_int(0)
    if libcuda is None or libcuda.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


@functools.cache
def gpu(index: int) -> Gpu:
    """Describe the GPU with that index. Raises BackendError when there is no such GPU or no driver."""
    found = gpu_count()
    if index >= found:
        raise BackendError(
            f"cuda:{index}: {no_gpu_reason() or f'this machine has {found} CUDA GPU(s), counted from 0'}"
        )
    libcuda = _libcuda()
    assert libcuda is not None  # a GPU was counted
    device = ctypes.c_int(0)
    name = ctypes.create_string_buffer(256)
    memory = ctypes.c_size_t(0)
    major, minor, mode = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    status = (
        libcuda.cuDeviceGet(ctypes.byref(device), index)
        or libcuda.cuDeviceGetName(name, len(name), device)
        or libcuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        or libcuda.cuDeviceGetAttribute(ctypes.byref(major), CC_MAJOR, device)
        or libcuda.cuDeviceGetAttribute(ctypes.byref(minor), CC_MINOR, device)
        or libcuda.cuDeviceGetAttribute(ctypes.byref(mode), COMPUTE_MODE, device)
    )
    if status != 0:
        raise BackendError(f"cuda:{index}: the driver does not describe this GPU (CUDA error {status})")
    capability = f"{major.value}.{minor.value}"
    return Gpu(index, name.value.decode(errors="replace"), capability, memory.value, mode.value)


def gpu_uuid(index: int) -> str:
    """Return the GPU's identifier for NVML and nvidia-smi, whose numbers ignore CUDA_VISIBLE_DEVICES.

    For example GPU-1f2e3d4c-...; a part of a GPU (MIG) has the same form here, without its prefix MIG. Empty if the
    driver does not tell. Raises BackendError when there is no such GPU.
    """
    gpu(index)
    libcuda = _libcuda()
    assert libcuda is not None  # the GPU was found
    device, content = ctypes.c_int(0), (ctypes.c_ubyte * 16)()
    libcuda.cuDeviceGet(ctypes.byref(device), index)
    if libcuda.cuDeviceGetUuid_v2(ctypes.byref(content), device) != 0:
        return ""
    return f"GPU-{uuid.UUID(bytes=bytes(content))}"


def no_gpu_reason() -> str:
    """Return why this process has no CUDA GPU and what to do; empty when it has one."""
    if gpu_count():
        return ""
    libcuda = _libcuda()
    if libcuda is None:
        return f"no NVIDIA driver ({LIBRARY} not found); install one, or run on a machine with an NVIDIA GPU"
    status, _ = _start()
    if status == 0:
        return "the NVIDIA driver shows no GPU; see CUDA_VISIBLE_DEVICES and nvidia-smi"
    meaning = {100: "no GPU", 803: "driver and library versions differ: restart the machine", 999: "unknown error"}
    reason = meaning.get(status, "see nvidia-smi")
    return f"the NVIDIA driver cannot be started (CUDA error {status}: {reason}); see nvidia-smi"


@functools.cache
def _retained_context(index: int) -> ctypes.c_void_p:
    """The primary context of that GPU, retained for the life of the process. Raises BackendError if CUDA gives none.

    A release between a build and a run could be the last one: it would destroy the context with all that others,
    such as PyTorch, have in it.
    """
    found = gpu(index)
    libcuda = _libcuda()
    assert libcuda is not None  # the GPU was found
    device, context = ctypes.c_int(0), ctypes.c_void_p()
    libcuda.cuDeviceGet(ctypes.byref(device), index)
    status = libcuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    if status != 0:
        raise BackendError(f"cuda:{index}: {found.name}: {_refusal(status, found)}")
    return context


class UsingGpu:
    """Make that GPU's primary context current in a `with` block. Raises BackendError when there is no context."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __enter__(self) -> None:
        context, libcuda = _retained_context(self._index), _libcuda()
        assert libcuda is not None  # it gave the context
        status = libcuda.cuCtxPushCurrent_v2(context)
        if status != 0:
            raise BackendError(f"cuda:{self._index}: {_refusal(status, gpu(self._index))}")

    def __exit__(self, *_: object) -> None:
        libcuda = _libcuda()
        assert libcuda is not None
        libcuda.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def _refusal(status: int, found: Gpu) -> str:
    """Return why a GPU has no context for this process, and what to do."""
    if status == OUT_OF_MEMORY:
        return "out of GPU memory; stop the other processes that use it (nvidia-smi lists them)"
    if status == UNAVAILABLE or found.compute_mode in (PROHIBITED, EXCLUSIVE):
        return "in use by another process (exclusive or prohibited compute mode); stop it or choose another --device"
    return f"no context (CUDA error {status}); see nvidia-smi"


def device_index(device: str) -> int:
    """Return the index in "cuda" or "cuda:N"; "auto" is the first GPU. Raises UsageError for other text."""
    check_device(device)
    if device in ("auto", "cuda"):
        return 0
    if device == "cpu":
        raise UsageError("--device cpu: expected cuda or cuda:N, such as cuda:0")
    return int(device.removeprefix("cuda:"))


@functools.cache
def _libcuda() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None
