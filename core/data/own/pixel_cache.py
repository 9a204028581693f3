"""The images of a split, decoded once into a file of pixels that is mapped into memory.

The file is in the cache, under a key of everything that decides the pixels: the names, sizes and times of change of the
files, and how they are read. A second start decodes nothing, and memory does not grow with the number of images. Where
the file does not fit on the disk, the images are decoded into memory, and a line says so.
"""

import hashlib
import json
import logging
import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from ...errors import DataError, OutputError
from ...files import made_by_one, make_folder, temporary_folder, write_whole, writing
from ...json_text import json_text
from ...machine import usable_memory
from ...paths import cache_path
from ...progress import progress_bar
from ...text import wrapped
from ..decode import Decoder
from ..images import Reading
from ..sources.entry import Entry
from .files import Files
from .listing import Item

_log = logging.getLogger(__name__)

DATASETS_FOLDER = "datasets"
"""The folder in the cache."""
PIXELS, INDEX = "pixels.bin", "index.json"
FORMAT = 2
"""Raised whenever the same files give other pixels."""
IN_MEMORY_BYTES = 1 << 29
"""Splits up to this size are read into memory, which is faster than a map."""
SPARE_BYTES = 1 << 30
"""Space that stays free on the disk."""


@dataclass(frozen=True)
class Pixels:
    """The readable images of a split."""

    images_NHWC: NDArray[np.uint8]
    """A map of the file, which cannot be written to, if the split is large."""
    rows: list[int]
    """For each image, its position among the items."""
    unreadable: list[tuple[str, str]]
    """Name and reason of each image that cannot be read."""
    hashes: list[str]
    """A hash of the pixels of each image."""
    guessed: dict[str, int]
    """Guessed ranges of images with more than 8 bits, and how many images have them."""


def pixels_of(files: Files, items: Sequence[Item], reading: Reading, *, what: str) -> Pixels:
    """Read all images of a split, from the cache if it has them. `what`: the split in words, for progress and log.

    Raises DataError if the images fit neither on the disk nor into memory.
    """
    key = _key(files, items, reading)
    needed = len(items) * reading.size.height * reading.size.width * reading.size.channels
    try:
        folder = cache_path(DATASETS_FOLDER, key)
        found = _read(folder, reading)
        if found is not None and not _readable_again(files, found.unreadable, reading):
            return found
        return _cached(folder, files, items, reading, needed=needed, what=what, anew=found is not None)
    except OutputError as error:
        if needed > (usable_memory() or math.inf) / 2:
            raise DataError(
                f"{error}; {needed / 2**30:,.1f} GiB of images do not fit into memory either; set RTK_CACHE_DIR to a "
                "folder with more space, or choose a smaller --image-size"
            ) from error
        _log.warning(wrapped(f"{error}; the images are decoded into memory, and again the next time"))
    parts: list[NDArray[np.uint8]] = []
    decoded = _decoded(files, items, reading, what=what, put=parts.append)
    return replace(decoded, images_NHWC=np.concatenate(parts) if parts else decoded.images_NHWC)


def _cached(
    folder: Path, files: Files, items: Sequence[Item], reading: Reading, *, needed: int, what: str, anew: bool
) -> Pixels:
    """Decode the images into a folder of the cache, one process at a time. Raises OutputError.

    `anew`: what the folder holds is not used.
    """
    with made_by_one(folder):
        found = None if anew else _read(folder, reading)
        if found is not None:  # another process has just made it
            return found
        if shutil.disk_usage(folder.parent).free < needed + SPARE_BYTES:
            raise OutputError(f"{folder.parent}: {needed / 2**30:,.1f} GiB of pixels do not fit on the disk")
        with temporary_folder(folder.parent) as aside:
            made = make_folder(aside / "made")
            with writing(made / PIXELS, shown=folder) as file:
                decoded = _decoded(files, items, reading, what=what, put=lambda images: file.write(images.data))
            index = {name: getattr(decoded, name) for name in ("rows", "unreadable", "hashes", "guessed")}
            write_whole(made / INDEX, json_text(index) + "\n")
            shutil.rmtree(folder, ignore_errors=True)
            try:
                made.rename(folder)
            except OSError as error:
                raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    found = _read(folder, reading)
    if found is None:
        raise OutputError(f"{folder}: cannot be read back")
    return found


def _readable_again(files: Files, unreadable: Sequence[tuple[str, str]], reading: Reading) -> bool:
    """Whether an image that could not be read can be now: a package, a permission or memory may have been missing."""
    if not unreadable:
        return False
    with Decoder(reading.size, processes=0, fit=reading.fit, max_pixels=reading.max_pixels) as decoder:
        entries = (entry for _, entry in files.entries({name for name, _ in unreadable}))
        return any(not error for chunk in decoder.chunks(entries) for error in chunk.errors)


def _decoded(
    files: Files, items: Sequence[Item], reading: Reading, *, what: str, put: Callable[[NDArray[np.uint8]], object]
) -> Pixels:
    """Decode all images; `put` gets their pixels, N x H x W x C, part by part, and the result holds none."""
    position = {item.name: number for number, item in enumerate(items)}
    names: deque[str] = deque()
    found = Pixels(np.empty((0, *reading.size.shape), np.uint8), [], [], [], {})

    def entries() -> Iterator[Entry]:
        for name, entry in files.entries(position.keys()):
            names.append(name)
            yield entry

    with (
        Decoder(reading.size, fit=reading.fit, max_pixels=reading.max_pixels) as decoder,
        progress_bar(f"decoding {what}", len(items), unit="images") as advance,
    ):
        for chunk in decoder.chunks(entries()):
            for error in chunk.errors:
                name = names.popleft()
                if error:
                    found.unreadable.append((name, error))
                else:
                    found.rows.append(position[name])
            found.hashes.extend(
                hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in chunk.images_NHWC
            )
            put(np.ascontiguousarray(chunk.images_NHWC))
            advance(len(chunk.errors))
        found.guessed.update(decoder.guessed)
    lost = position.keys() - {items[row].name for row in found.rows} - {name for name, _ in found.unreadable}
    found.unreadable.extend((name, "no such file") for name in sorted(lost))
    return found


def _read(folder: Path, reading: Reading) -> Pixels | None:
    """What the cache holds in this folder; None if it is missing or damaged."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
        shape = (len(index["rows"]), *reading.size.shape)
        if (folder / PIXELS).stat().st_size != math.prod(shape):
            return None
        if not shape[0]:
            images_NHWC = np.empty(shape, np.uint8)
        elif math.prod(shape) <= IN_MEMORY_BYTES:
            images_NHWC = np.fromfile(folder / PIXELS, np.uint8).reshape(shape)
        else:
            images_NHWC = np.memmap(folder / PIXELS, np.uint8, "r", shape=shape)
        unreadable = [(name, reason) for name, reason in index["unreadable"]]
        return Pixels(images_NHWC, index["rows"], unreadable, index["hashes"], index["guessed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _key(files: Files, items: Sequence[Item], reading: Reading) -> str:
    """A name for everything that decides the pixels."""
    digest = hashlib.sha256(json_text([FORMAT, PIL.__version__, str(files.root.resolve()), asdict(reading)]).encode())
    for item in items:
        digest.update(f"{item.name}\0{files.stamp(item.name)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
