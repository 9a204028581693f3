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


def decoded(entries: Iterable[Entry], size: Input, *, processes: int | None = None) -> Iterator[Chunk]:
    """Decode every entry to the model's size. `processes`: 0 decodes here; None means one for each core."""
    chunk_images = min(max(CHUNK_BYTES // (size.height * size.width * size.channels), 1), 128)
    chunks = _chunks(iter(entries), chunk_images)
    wanted = usable_cores() if processes is None else processes
    yield from (decode_chunk(chunk, size) for chunk in itertools.islice(chunks, -(-AT_ONCE // chunk_images)))
    second = next(chunks, None)
    if second is None:
        return
    chunks = itertools.chain([second], chunks)
    if wanted == 0:
        yield from (decode_chunk(chunk, size) for chunk in chunks)
        return
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    with ProcessPoolExecutor(wanted, mp_context=context) as pool:
        waiting: deque[Future[Chunk]] = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(decode_chunk, chunk, size))
                if len(waiting) >= wanted * IN_FLIGHT:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


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


def _chunks(entries: Iterator[Entry], count: int) -> Iterator[list[Entry]]:
    while chunk := list(itertools.islice(entries, count)):
        yield chunk
