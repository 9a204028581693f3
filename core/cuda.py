"""What the NVIDIA driver says, asked through libcuda itself: no torch, no PyCUDA."""

import ctypes
import functools
import sys

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@functools.cache
def gpu_count() -> int:
    """How many CUDA GPUs this process can use; 0 without a driver."""
    try:
        libcuda = ctypes.CDLL(LIBRARY)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if libcuda.cuInit(0) != 0 or libcuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
