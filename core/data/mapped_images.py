"""Images that stay in a memory-mapped file, or are too large for a second copy: read in parts, with bounded memory.

The pages of a mapped file that were read are page cache: they count as resident memory (RSS) of the process, although
the system frees them whenever it needs memory. `PageRelease` gives them back regularly, so that both the memory of the
process itself (RssAnon) and its RSS stay flat. What is read again soon still comes from the page cache.
Shapes: N images, B images of a part, H rows, W columns, C channels.
"""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGE_BYTES = 2 * 2**30
"""Images in memory of more than this are not copied: not padded as a whole, and not moved to the device as a whole."""
PART_BYTES = 16 * 2**20
"""Images that are read at once to compute statistics or checksums; NumPy counts values in 8 bytes each."""
RELEASE_BYTES = 256 * 2**20
"""Pages that are read before they are given back."""
READ_AROUND_BYTES = 2 * 2**20
"""The most that the system maps with an image: the huge page around it."""


def mapped_file(array: NDArray[np.uint8]) -> "np.memmap[Any, Any] | None":
    """The memory-mapped file that the array is a view of; None for an array in memory."""
    view: Any = array
    while isinstance(view, np.ndarray) and not isinstance(view.base, mmap.mmap):
        view = view.base
    return view if isinstance(view, np.memmap) else None


def stays_in_place(array: NDArray[np.uint8]) -> bool:
    """Whether images are read from the array part by part: it is memory-mapped, or larger than LARGE_BYTES."""
    return mapped_file(array) is not None or array.nbytes > LARGE_BYTES


def parts(count: int, image_bytes: int) -> Iterator[slice]:
    """Slices of about PART_BYTES that cover `count` images in order."""
    size = max(1, PART_BYTES // max(1, image_bytes))
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


class PageRelease:
    """Gives the pages of a mapped file back after every RELEASE_BYTES that were read from it."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        mapped: Any = mapped_file(array)
        # Only of a file mapped for reading: a page of a private copy would lose what was written to it.
        self._map: mmap.mmap | None = mapped.base if mapped is not None and mapped.mode == "r" else None
        self._image_bytes = max(array[:1].nbytes, READ_AROUND_BYTES)
        self._read_bytes = 0

    def count(self, images: int) -> None:
        """Count images that were read one by one, and give the pages back if it is time."""
        self._read_bytes += images * self._image_bytes
        if self._read_bytes >= RELEASE_BYTES:
            self._read_bytes = 0
            if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):  # not on every system
                self._map.madvise(mmap.MADV_DONTNEED)
