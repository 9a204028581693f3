"""The C library's memory allocator, told to keep what large tensors free.

By itself glibc gives large blocks back to the system, now and then or always, as the layout of the heap happens to be;
the system then hands out zeroed pages again, which costs eager PyTorch on a CPU much of its time, and more in one
process than in the next.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 512 * 2**20
"""Of free memory at the end of the heap, at most."""
LARGEST_BLOCK = 32 * 2**20
"""Larger ones still come from the system each time: glibc takes no larger number."""


def keep_freed_memory() -> None:
    """For the rest of the process; nothing happens where the C library is not glibc."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
