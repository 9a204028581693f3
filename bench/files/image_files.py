"""A data set's split as files: PNG files, a tar of them, and an array; and the calls of the scope files."""

import contextlib
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ...core.card import Input
from ...core.data.datasets import Split
from ...core.data.decode import Decoder
from ...core.data.images import encoded_image
from ...core.data.sources.entry import Entry
from ...core.errors import OutputError
from ...core.files import temporary_folder
from ...infer.backend import Backend
from ...infer.classify import ClassifyConfig, classify


class PngFiles:
    """A split as PNG files, with the processes that decode them. All cells of the scope files share one of these."""

    def __init__(self, split: Split, size: Input) -> None:
        self._decoder = Decoder(size)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(temporary_folder(None))
            with disk_errors():
                self._entries = cycle(write_pngs(split, folder, len(split)))
            self._folder = stack.pop_all()

    def __enter__(self) -> Self:
        self._decoder.__enter__()
        self._decoder.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoder.__exit__(kind, error, trace)
        self._folder.close()

    def process_ids(self) -> list[int]:
        """The ids of the decoding processes."""
        return self._decoder.process_ids

    def calls_of(self, backend: Backend, batch: int) -> Callable[[int], list[float]]:
        """A runner's calls: classify that many batches, and return the seconds from one batch's labels to the next."""
        config = ClassifyConfig(batch_size=batch)

        def calls(count: int) -> list[float]:
            entries = list(islice(self._entries, count * batch))
            samples_s, started_at = [], time.perf_counter()
            for answered, _ in enumerate(classify(entries, backend, self._decoder, config), 1):
                if answered % batch == 0:
                    now = time.perf_counter()
                    samples_s.append(now - started_at)
                    started_at = now
            return samples_s

        return calls


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Convert errors of writing to the folder for temporary files to OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()}: the image files of the benchmark cannot be written: "
            f"{error.strerror or error}; choose another folder: TMPDIR=DIR rtk ..."
        ) from error


def write_pngs(split: Split, folder: Path, count: int) -> list[Entry]:
    """Write the first `count` images of the split, repeated where it has fewer, as PNG files."""
    written = []
    for number in range(count):
        image_HWC = split.images_NHWC[number % len(split)]
        path = folder / f"{number:07}.png"
        path.write_bytes(encoded_image(image_HWC))
        written.append(Entry(str(path)))
    return written


def write_tar(path: Path, pngs: list[Entry]) -> None:
    """Write these PNG files into one tar."""
    with tarfile.open(path, "w") as archive:
        for entry in pngs:
            content = entry.path.read_bytes()
            member = tarfile.TarInfo(entry.path.name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
            archive.members.clear()  # type: ignore[attr-defined]  # otherwise all members stay in memory


def write_npy(path: Path, split: Split, count: int) -> None:
    """Write the first `count` images of the split, repeated where it has fewer, as one .npy array."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *split.images_NHWC.shape[1:])}
    with path.open("wb") as file:  # not mapped into memory: on a full disk, that would end the process
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, count, len(split)):
            file.write(np.ascontiguousarray(split.images_NHWC[: count - start]).data)
