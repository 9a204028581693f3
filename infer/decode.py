"""Decoding in parallel: entries in, chunks of arrays out, in the same order.

Processes decode, for threads only take turns at it: Pillow spends most of a small image's time in Python. The first
images are decoded at once, so that a handful of files never waits for a process to start.
"""

import itertools
import multiprocessing
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..core.card import Input
from ..core.errors import ImageError
from ..core.images import model_image
from ..core.machine import usable_cores
from .sources import Entry

AT_ONCE = 256
"""Images that are decoded before processes are started."""
CHUNK_BYTES = 1 << 19
"""Pixels that travel between processes together, at most."""
IN_FLIGHT = 4
"""Chunks waiting for each process: bounds the memory."""


@dataclass(frozen=True)
class Chunk:
    """Some entries, and the images of those that could be read."""

    names: list[str]
    errors: list[str]
    """One for each name; empty where the image could be read."""
    images_NHWC: NDArray[np.uint8]
    """Of the readable ones, in order."""


class Decoder:
    """Decodes entries to a model's size; close it, or use it in a `with`. Its processes start when they are needed."""

    def __init__(self, size: Input, *, processes: int | None = None) -> None:
        """`processes`: 0 decodes in the process that asks; None means one for each core."""
        self.size = size
        self.processes = usable_cores() if processes is None else processes
        self.chunk_images = min(max(CHUNK_BYTES // (size.height * size.width * size.channels), 1), 128)
        self._pool: ProcessPoolExecutor | None = None

    def chunks(self, entries: Iterable[Entry]) -> Iterator[Chunk]:
        """Every entry, decoded or with its error, in order."""
        waiting = _lists(iter(entries), self.chunk_images)
        if self._pool is None:
            at_once = itertools.islice(waiting, -(-AT_ONCE // self.chunk_images))
            yield from (decode_chunk(chunk, self.size) for chunk in at_once)
        first = next(waiting, None)
        if first is None:
            return
        waiting = itertools.chain([first], waiting)
        if self.processes == 0:
            yield from (decode_chunk(chunk, self.size) for chunk in waiting)
        else:
            yield from self._in_pool(waiting)

    def _in_pool(self, waiting: Iterator[list[Entry]]) -> Iterator[Chunk]:
        pool = self.start()
        asked: deque[Future[Chunk]] = deque()
        try:
            for chunk in waiting:
                asked.append(pool.submit(decode_chunk, chunk, self.size))
                if len(asked) >= self.processes * IN_FLIGHT:
                    yield asked.popleft().result()
            while asked:
                yield asked.popleft().result()
        finally:
            for future in asked:
                future.cancel()

    def start(self) -> ProcessPoolExecutor:
        """Start the processes now, if they are not running yet."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
            self._pool = ProcessPoolExecutor(self.processes, mp_context=context)
        return self._pool

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def decode_chunk(entries: list[Entry], size: Input) -> Chunk:
    """Decode some entries here."""
    errors: list[str] = []
    images: list[NDArray[np.uint8]] = []
    for entry in entries:
        error = entry.error
        if not error:
            try:
                images.append(model_image(entry.name, size))
            except ImageError as failure:
                error = str(failure).removeprefix(f"{entry.name}: ")
        errors.append(error)
    stacked = np.stack(images) if images else np.empty((0, *size.shape), np.uint8)
    return Chunk([entry.name for entry in entries], errors, stacked)


def _lists(entries: Iterator[Entry], count: int) -> Iterator[list[Entry]]:
    while chunk := list(itertools.islice(entries, count)):
        yield chunk
