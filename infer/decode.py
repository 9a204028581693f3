"""Decoding in parallel: entries in, chunks of arrays out, in the same order.

Processes decode, for threads only take turns at it: Pillow spends most of a small image's time in Python. The first
images are decoded at once, so that a handful of files never waits for a process to start. Pixels that already have the
model's size are passed on as they are.

A process that dies (killed for its memory, or by a decoder's crash) takes no answer with it: what was on its way is
decoded again, one image at a time in a process of its own, and the image that kills two of these as well is unreadable.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..core.card import Input
from ..core.data.images import Fit, model_image
from ..core.errors import DataError, ImageError
from ..core.machine import usable_cores
from .sources.entry import Entry

AT_ONCE = 256
"""Images that are decoded before processes are started,"""
AT_ONCE_S = 0.5
"""unless they are so large that this time is over before."""
FIRST_CHUNK = 32
"""Images of a chunk until then."""
CHUNK_BYTES = 1 << 19
"""Pixels that travel between processes together, at most."""
CHUNK_SOURCE_BYTES = 1 << 22
"""Files' bytes that do, unless one file has more."""
IN_FLIGHT = 4
"""Chunks waiting for each process: bounds the memory."""
MAX_DEATHS = 20
"""Of decoding processes, and nothing decoded in between, before it is taken for the machine's fault."""
DIED = "decoding it ended the process, again and again: out of memory, or a crash in the decoder"


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

    def __init__(self, size: Input, *, processes: int | None = None, fit: Fit = "crop") -> None:
        """`processes`: 0 decodes in the process that asks; None means one for each core."""
        self.size = size
        self.fit: Fit = fit
        self.processes = usable_cores() if processes is None else processes
        self.chunk_images = min(max(CHUNK_BYTES // (size.height * size.width * size.channels), 1), 128)
        self._pool: ProcessPoolExecutor | None = None
        self._deaths = 0

    def chunks(self, entries: Iterable[Entry]) -> Iterator[Chunk]:
        """Every entry, decoded or with its error, in order. Raises DataError when processes die again and again."""
        iterator = iter(entries)
        if self.processes == 0:
            yield from (self._decoded(chunk) for chunk in _lists(iterator, self.chunk_images))
            return
        if self._pool is None:
            taken, started_at = 0, time.monotonic()
            for chunk in _lists(iterator, min(FIRST_CHUNK, self.chunk_images)):
                yield self._decoded(chunk)
                taken += len(chunk)
                if taken >= AT_ONCE or time.monotonic() - started_at > AT_ONCE_S:
                    break
        yield from self._in_pool(_lists(iterator, self.chunk_images))

    def _in_pool(self, waiting: Iterator[list[Entry]]) -> Iterator[Chunk]:
        asked: deque[tuple[list[Entry], Future[Chunk] | Chunk]] = deque()
        try:
            for chunk in waiting:
                asked.append((chunk, self._asked(chunk)))
                if len(asked) >= self.processes * IN_FLIGHT:
                    yield from self._answered(asked)
            while asked:
                yield from self._answered(asked)
        finally:
            for _, future in asked:
                if isinstance(future, Future):
                    future.cancel()

    def _asked(self, chunk: list[Entry]) -> Future[Chunk] | Chunk:
        if all(_is_ready(entry, self.size) for entry in chunk):
            return self._decoded(chunk)
        try:
            return self.start().submit(decode_chunk, chunk, self.size, self.fit)
        except BrokenProcessPool as error:
            failed: Future[Chunk] = Future()
            failed.set_exception(error)
            return failed

    def _answered(self, asked: deque[tuple[list[Entry], Future[Chunk] | Chunk]]) -> Iterator[Chunk]:
        """What was asked for first; when a process has died, everything that was."""
        entries, future = asked[0]
        try:
            chunk = future.result() if isinstance(future, Future) else future
        except BrokenProcessPool:
            self._lost(entries[0].name)
        else:
            asked.popleft()
            self._deaths = 0
            yield chunk
            return
        while asked:
            entries, future = asked.popleft()
            done = future if isinstance(future, Chunk) else None
            if isinstance(future, Future) and future.done() and not future.cancelled() and not future.exception():
                done = future.result()
            yield done or self._one_by_one(entries)

    def _one_by_one(self, entries: list[Entry]) -> Chunk:
        """Decode each entry in a process of its own, if need be, so that one that kills it is found out."""
        chunks = []
        for entry in entries:
            for _ in range(2):
                try:
                    chunks.append(self.start().submit(decode_chunk, [entry], self.size, self.fit).result())
                except BrokenProcessPool:
                    self._lost(entry.name)
                else:
                    self._deaths = 0
                    break
            else:
                chunks.append(Chunk([entry.name], [DIED], np.empty((0, *self.size.shape), np.uint8)))
        return Chunk(
            [name for chunk in chunks for name in chunk.names],
            [error for chunk in chunks for error in chunk.errors],
            np.concatenate([chunk.images_NHWC for chunk in chunks]),
        )

    def _lost(self, name: str) -> None:
        self.close()
        self._deaths += 1
        if self._deaths > MAX_DEATHS:
            raise DataError(
                f"{name!r}: {self._deaths} processes have died while decoding; see the system's log for out of memory, "
                "or decode in this process: --workers 0"
            )

    def _decoded(self, chunk: list[Entry]) -> Chunk:
        return decode_chunk(chunk, self.size, self.fit)

    def start(self) -> ProcessPoolExecutor:
        """Start the processes now, if they are not running yet."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
            self._pool = ProcessPoolExecutor(self.processes, mp_context=context, initializer=_begin)
        return self._pool

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that decode; none before they are started."""
        return list(self._pool._processes) if self._pool is not None else []

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def decode_chunk(entries: list[Entry], size: Input, fit: Fit = "crop") -> Chunk:
    """Decode some entries here."""
    errors: list[str] = []
    images: list[NDArray[np.uint8]] = []
    for entry in entries:
        error = entry.error
        if not error:
            content = entry.content
            try:
                if isinstance(content, np.ndarray) and content.shape == size.shape and content.dtype == np.uint8:
                    images.append(content)
                else:
                    source = entry.name if content is None else content
                    images.append(model_image(source, size, name=entry.name, fit=fit))
            except ImageError as failure:
                error = str(failure).removeprefix(f"{entry.name}: ")
        errors.append(error)
    stacked = np.stack(images) if images else np.empty((0, *size.shape), np.uint8)
    return Chunk([entry.name for entry in entries], errors, stacked)


def _is_ready(entry: Entry, size: Input) -> bool:
    """Whether there is nothing to decode."""
    return bool(entry.error) or (isinstance(entry.content, np.ndarray) and entry.content.shape == size.shape)


def _begin() -> None:
    """In a decoding process: Ctrl-C is the parent's business, and when the parent is killed, so is this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _lists(entries: Iterator[Entry], count: int) -> Iterator[list[Entry]]:
    """Entries by `count`, or fewer when they carry much."""
    chunk: list[Entry] = []
    carried = 0
    for entry in entries:
        chunk.append(entry)
        if entry.content is not None:
            carried += entry.content.nbytes if isinstance(entry.content, np.ndarray) else len(entry.content)
        if len(chunk) == count or carried >= CHUNK_SOURCE_BYTES:
            yield chunk
            chunk, carried = [], 0
    if chunk:
        yield chunk
