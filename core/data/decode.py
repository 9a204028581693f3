"""Decode images in parallel: entries in, chunks of arrays out, in the same order.

Decoding runs in processes because threads gain nothing: Pillow spends most of a small image's time in Python code. The
first images are decoded in this process, so that a few files never wait for a process to start. Pixels that already
have the model's size need no decoding.

A process that dies (out of memory, or a crash in the decoder) costs no answer. Everything that was in flight is decoded
again, one image per request. An image whose process dies twice in this second attempt is reported as unreadable.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..card import Input
from ..errors import DataError, ImageError
from ..machine import usable_cores
from ..text import first_few, one_line
from .images import Reading, read_image
from .options import MAX_PIXELS, Fit
from .sources.entry import Entry

_log = logging.getLogger(__name__)

START_METHODS = ("forkserver", "spawn")
"""The second one needs no socket, whose path is too long below a long TMPDIR. Both need /dev/shm."""
IMAGES_BEFORE_POOL = 256
"""Images that are decoded in this process before the pool starts."""
BEFORE_POOL_S = 0.5
"""The pool starts earlier if these images take longer than this."""
FIRST_CHUNK_IMAGES = 32
"""Images per chunk until the pool starts."""
CHUNK_BYTES = 1 << 19
"""Largest size of the decoded pixels of a chunk."""
MAX_CHUNK_IMAGES = 128
CHUNK_SOURCE_BYTES = 1 << 22
"""A chunk ends when its undecoded files reach this size."""
IN_FLIGHT = 4
"""Chunks in flight per process: bounds the memory."""
MAX_DEATHS = 20
"""After this many deaths of processes, with no chunk decoded in between, the machine is at fault, not the images."""
CRASHED = "decoding it ended the process twice: out of memory, or a crash in the decoder"

Decoded = tuple[list[str], NDArray[np.uint8], list[str]]
"""The error of each entry (empty if readable), the images N x H x W x C of the readable ones, and the ranges that were
guessed for images of more than 8 bits."""


def guessed_text(guessed: Mapping[str, int]) -> str:
    """How many images of more than 8 bits had which guessed range."""
    ranges = [f"{count:,} from {text}" for text, count in sorted(guessed.items())]
    return f"images of more than 8 bits; their range was guessed: {first_few(ranges)}"


@dataclass(frozen=True)
class Chunk:
    """Some entries, and the images of those that can be read."""

    entries: list[Entry]
    errors: list[str]
    """One for each entry; empty if the image can be read."""
    images_NHWC: NDArray[np.uint8]
    """The readable images, in order."""
    guessed: list[str] = field(default_factory=list)
    """For each image of more than 8 bits whose range had to be guessed: that range, in words."""

    @property
    def names(self) -> list[str]:
        """The names of the entries."""
        return [entry.name for entry in self.entries]


@dataclass(frozen=True)
class _Request:
    """A chunk in flight."""

    entries: list[Entry]
    result: Future[Decoded] | Decoded

    def value(self) -> Decoded:
        """Wait for the result. Raises BrokenProcessPool when the process died."""
        return self.result.result() if isinstance(self.result, Future) else self.result

    def value_if_done(self) -> Decoded | None:
        """The result if it arrived before the process died."""
        if not isinstance(self.result, Future):
            return self.result
        finished = self.result.done() and not self.result.cancelled() and not self.result.exception()
        return self.result.result() if finished else None


class Decoder:
    """Decodes entries to the input size of a model. Close it, or use it in a `with`.

    Its processes start when they are first needed.
    """

    def __init__(
        self, size: Input, *, processes: int | None = None, fit: Fit = "crop", max_pixels: int = MAX_PIXELS
    ) -> None:
        """`processes`: 0 decodes in the calling process; None means one process per core."""
        self.reading = Reading(size, fit, max_pixels)
        self.guessed: Counter[str] = Counter()
        """The guessed ranges of the images so far."""
        self.processes = usable_cores() if processes is None else processes
        images = CHUNK_BYTES // (size.height * size.width * size.channels)
        self.chunk_images = min(max(images, 1), MAX_CHUNK_IMAGES)
        self._pool: ProcessPoolExecutor | None = None
        self._deaths = 0

    def chunks(self, entries: Iterable[Entry]) -> Iterator[Chunk]:
        """Yield all entries, decoded or with their error, in order. Raises DataError when processes keep dying."""
        for chunk in self._chunks(iter(entries)):
            self.guessed.update(chunk.guessed)
            yield chunk

    def _chunks(self, iterator: Iterator[Entry]) -> Iterator[Chunk]:
        if self.processes == 0:
            yield from (self._decode_here(part) for part in _lists(iterator, self.chunk_images))
            return
        if self._pool is None:
            yield from self._first_chunks(iterator)
        yield from self._in_pool(_lists(iterator, self.chunk_images))

    def _first_chunks(self, entries: Iterator[Entry]) -> Iterator[Chunk]:
        """Decode the first images in this process."""
        decoded, started_at = 0, time.monotonic()
        for part in _lists(entries, min(FIRST_CHUNK_IMAGES, self.chunk_images)):
            yield self._decode_here(part)
            decoded += len(part)
            if decoded >= IMAGES_BEFORE_POOL or time.monotonic() - started_at > BEFORE_POOL_S:
                return

    def _in_pool(self, parts: Iterator[list[Entry]]) -> Iterator[Chunk]:
        """Decode in processes, several chunks at a time."""
        in_flight: deque[_Request] = deque()
        try:
            for part in parts:
                in_flight.append(self._submit(part))
                if len(in_flight) >= self.processes * IN_FLIGHT:
                    yield from self._collect(in_flight)
            while in_flight:
                yield from self._collect(in_flight)
        finally:
            for request in in_flight:
                if isinstance(request.result, Future):
                    request.result.cancel()

    def _submit(self, entries: list[Entry]) -> _Request:
        if all(_needs_no_decoding(entry, self.reading.size) for entry in entries):
            return _Request(entries, decode(entries, self.reading))
        pool = self.start()
        if pool is None:
            return _Request(entries, decode(entries, self.reading))
        try:
            return _Request(entries, pool.submit(decode, entries, self.reading))
        except BrokenProcessPool as error:
            failed: Future[Decoded] = Future()
            failed.set_exception(error)
            return _Request(entries, failed)
        except OSError:  # no room for one more process
            return _Request(entries, decode(entries, self.reading))

    def _collect(self, in_flight: deque[_Request]) -> Iterator[Chunk]:
        """Yield the oldest chunk; if a process died, yield all chunks in flight."""
        oldest = in_flight[0]
        try:
            decoded = oldest.value()
        except BrokenProcessPool:
            self._count_death(oldest.entries[0].name)
        else:
            in_flight.popleft()
            self._deaths = 0
            yield Chunk(oldest.entries, *decoded)
            return
        while in_flight:
            request = in_flight.popleft()
            yield Chunk(request.entries, *(request.value_if_done() or self._decode_one_by_one(request.entries)))

    def _decode_one_by_one(self, entries: list[Entry]) -> Decoded:
        """Decode each entry in a request of its own, to find the one whose process dies."""
        parts = [self._decode_alone(entry) for entry in entries]
        return (
            [error for errors, _, _ in parts for error in errors],
            np.concatenate([images for _, images, _ in parts]),
            [guessed for _, _, some in parts for guessed in some],
        )

    def _decode_alone(self, entry: Entry) -> Decoded:
        for _ in range(2):
            pool = self.start()
            if pool is None:
                raise DataError(f"{entry.name!r}: a decoding process died, and no other starts; try --workers 0")
            try:
                decoded = pool.submit(decode, [entry], self.reading).result()
            except BrokenProcessPool:
                self._count_death(entry.name)
            else:
                self._deaths = 0
                return decoded
        return [CRASHED], np.empty((0, *self.reading.size.shape), np.uint8), []

    def _count_death(self, name: str) -> None:
        """Drop the broken pool. Raises DataError after too many deaths."""
        self.close()
        self._deaths += 1
        if self._deaths > MAX_DEATHS:
            raise DataError(
                f"{name!r}: {self._deaths} processes died while decoding; look for out of memory in the system log, "
                "or decode in this process: --workers 0"
            )

    def _decode_here(self, entries: list[Entry]) -> Chunk:
        return Chunk(entries, *decode(entries, self.reading))

    def start(self) -> ProcessPoolExecutor | None:
        """Start the processes now if they are not running; None, after a line in the log, where none can start."""
        if self._pool is None and self.processes:
            try:
                self._pool = _started_pool(self.processes)
            except (OSError, ImportError, NotImplementedError) as error:  # no room or rights in /dev/shm or TMPDIR
                _log.warning(
                    f"no decoding processes: {one_line(error)}; this process decodes; give /dev/shm some MiB "
                    "(docker run --shm-size), or set TMPDIR to a folder that can be written"
                )
                self.processes = 0
        return self._pool

    @property
    def process_ids(self) -> list[int]:
        """The ids of the decoding processes; empty before they start."""
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


def _started_pool(processes: int) -> ProcessPoolExecutor:
    """A pool whose first process is starting. Raises OSError, ImportError or NotImplementedError where none can."""
    for method in START_METHODS:
        pool = ProcessPoolExecutor(
            processes, mp_context=multiprocessing.get_context(method), initializer=_prepare_process
        )
        try:
            pool.submit(os.getpid)
        except OSError:
            if method == START_METHODS[-1]:
                raise
        else:
            break
    return pool


def decode_chunk(entries: list[Entry], size: Input, fit: Fit = "crop") -> Chunk:
    """Decode some entries in this process."""
    return Chunk(entries, *decode(entries, Reading(size, fit)))


def decode(entries: list[Entry], reading: Reading) -> Decoded:
    """Decode some entries. Processes of the pool run this; the entries themselves are not sent back."""
    errors: list[str] = []
    images: list[NDArray[np.uint8]] = []
    ranges: list[str] = []
    for entry in entries:
        error = entry.error
        if not error:
            try:
                image_HWC, guessed = _image(entry, reading)
            except ImageError as failure:
                error = str(failure).removeprefix(f"{entry.name}: ")
            else:
                images.append(image_HWC)
                ranges += [guessed] if guessed else []
        errors.append(error)
    return errors, np.stack(images) if images else np.empty((0, *reading.size.shape), np.uint8), ranges


def _image(entry: Entry, reading: Reading) -> tuple[NDArray[np.uint8], str]:
    """The image in the model's size, and a guessed range. Raises ImageError."""
    content = entry.content
    if isinstance(content, np.ndarray) and content.shape == reading.size.shape and content.dtype == np.uint8:
        return content, ""
    return read_image(entry.name if content is None else content, reading, name=entry.name)


def _needs_no_decoding(entry: Entry, size: Input) -> bool:
    return bool(entry.error) or (isinstance(entry.content, np.ndarray) and entry.content.shape == size.shape)


def _prepare_process() -> None:
    """Prepare a decoding process: it ignores Ctrl-C, which the parent handles, and ends when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _lists(entries: Iterator[Entry], count: int) -> Iterator[list[Entry]]:
    """Split entries into lists of `count`; a list ends earlier when its contents are large."""
    part: list[Entry] = []
    content_bytes = 0
    for entry in entries:
        part.append(entry)
        if entry.content is not None:
            content_bytes += entry.content.nbytes if isinstance(entry.content, np.ndarray) else len(entry.content)
        if len(part) == count or content_bytes >= CHUNK_SOURCE_BYTES:
            yield part
            part, content_bytes = [], 0
    if part:
        yield part
