"""From files to labels: how close classification comes to what decoding and the backend allow together.

On a CPU both want all cores, so that no pipeline can beat 1 / (1 / decode + 1 / backend), with each of the two rates
measured alone. The share of that bound is what is reported, for PNG files and for a tar of them; an array needs no
decoding, so that its bound is the backend; and the plain loop, which opens, converts and runs one image at a time, is
what all this is worth doing for. Starting up, processes included, is not counted. All take turns, round by round.
"""

import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from ..core.card import Input
from ..core.data.datasets import Split
from ..core.data.images import encoded_image
from ..infer.backend import Backend
from ..infer.classify import ClassifyConfig, classify
from ..infer.decode import Decoder
from ..infer.sources.entry import Entry
from ..infer.sources.listing import entries

WARM_UP_IMAGES = 1_000
PLAIN_IMAGES = 1_000
"""Of a round of the plain loop, which is slow."""
PLAIN_LOOP = "plain loop"
MEMORY_SAMPLES = 50
MIB = 2**20


@dataclass(frozen=True)
class Ratio:
    """A rate beside what it is compared with."""

    name: str
    images_per_s: float
    compared_with: str
    other_per_s: float
    rounds: list[float]
    """The ratio in each round."""
    at_least: float
    """What it is meant to reach."""

    @property
    def value(self) -> float:
        """Over all rounds."""
        return self.images_per_s / self.other_per_s


@dataclass(frozen=True)
class FilesResult:
    """What each round took for an image, in seconds, by what was done."""

    images: int
    rounds: list[dict[str, float]]

    def images_per_s(self, name: str) -> float:
        """Over all rounds."""
        return 1 / statistics.fmean(one[name] for one in self.rounds)

    @property
    def ratios(self) -> list[Ratio]:
        """Each way to labels beside what bounds it, and the first one beside every plain loop."""
        both = "decoding and the backend, each alone"
        return [
            self._ratio("PNG files", both, _png_bound_s, 0.9),
            self._ratio("tar", both, lambda one: one["decoding tar"] + one["backend"], 0.9),
            self._ratio(".npy", "the backend alone", lambda one: one["backend"], 0.95),
            *(self._ratio("PNG files", f"the {name}", itemgetter(name), 2.0) for name in self._plain_loops),
        ]

    @property
    def allowed(self) -> dict[str, float]:
        """By the name of each plain loop, how many times its rate decoding and the backend allow together."""
        bound_s = statistics.fmean(map(_png_bound_s, self.rounds))
        return {f"the {name}": 1 / self.images_per_s(name) / bound_s for name in self._plain_loops}

    @property
    def _plain_loops(self) -> list[str]:
        return [name for name in self.rounds[0] if name.startswith(PLAIN_LOOP)]

    def _ratio(self, name: str, words: str, other: Callable[[dict[str, float]], float], at_least: float) -> Ratio:
        others = [other(one) for one in self.rounds]
        ratios = [theirs / one[name] for theirs, one in zip(others, self.rounds, strict=True)]
        return Ratio(name, self.images_per_s(name), words, 1 / statistics.fmean(others), ratios, at_least)

    @property
    def rows(self) -> list[dict[str, str]]:
        """For a table."""
        return [
            {
                "from": one.name,
                "images/s": f"{one.images_per_s:,.0f}",
                "compared with": one.compared_with,
                "its images/s": f"{one.other_per_s:,.0f}",
                "ratio": f"{one.value:.2f}",
                "rounds": f"{min(one.rounds):.2f} to {max(one.rounds):.2f}",
                "meant": f"{one.at_least:g}",
            }
            for one in self.ratios
        ]


@dataclass(frozen=True)
class MemoryResult:
    """The resident memory of this process and those that decode for it, while entries were answered."""

    entries: int
    samples_mib: list[float]
    """In the order in which they were taken, at equal steps."""

    @property
    def growth(self) -> float:
        """The last fifth of the samples over the second: the first fifth is spent on filling queues and caches."""
        fifth = len(self.samples_mib) // 5
        return statistics.fmean(self.samples_mib[-fifth:]) / statistics.fmean(self.samples_mib[fifth : 2 * fifth])


def _png_bound_s(one: dict[str, float]) -> float:
    return one["decoding PNG files"] + one["backend"]


def measure_files(
    backend: Backend,
    alone: Backend,
    loops: Mapping[str, Backend],
    split: Split,
    config: ClassifyConfig,
    *,
    images: int,
    rounds: int,
    advance: Callable[[int], None],
) -> FilesResult:
    """Write the split, over and over until there are so many images, as PNG files, a tar and an array; then take turns.

    `alone`: the same model with all cores for itself; `loops`: what plain loops run, by names that follow PLAIN_LOOP.
    """
    with tempfile.TemporaryDirectory(prefix="rtk-bench-") as name, Decoder(backend.card.input) as decoder:
        folder = Path(name)
        pngs = _written(split, folder, images)
        _write_tar(folder / "images.tar", pngs)
        _write_npy(folder / "images.npy", split, images)
        decoder.start()
        _drained(classify(pngs[:WARM_UP_IMAGES], backend, decoder, config))
        for one in loops.values():
            _drained(_plain_loop(pngs[: PLAIN_IMAGES // 10], one))

        def png_files() -> Iterable[Entry]:
            return pngs

        def tar() -> Iterable[Entry]:
            return entries([str(folder / "images.tar")])

        def npy() -> Iterable[Entry]:
            return entries([str(folder / "images.npy")])

        ways: dict[str, Callable[[], float]] = {
            "backend": lambda: _drained(alone.stream(_batches(split, images, config.batch_size))) / images,
            "decoding PNG files": lambda: _drained(decoder.chunks(png_files())) / images,
            "PNG files": lambda: _drained(classify(png_files(), backend, decoder, config)) / images,
            "decoding tar": lambda: _drained(decoder.chunks(tar())) / images,
            "tar": lambda: _drained(classify(tar(), backend, decoder, config)) / images,
            ".npy": lambda: _drained(classify(npy(), backend, decoder, config)) / images,
        }
        for name, one in loops.items():
            ways[PLAIN_LOOP + name] = partial(_plain_loop_s, pngs[:PLAIN_IMAGES], one)
        found: list[dict[str, float]] = []
        for _ in range(rounds):
            found.append({name: measure() for name, measure in ways.items()})
            advance(1)
    return FilesResult(images, found)


def measure_memory(
    backend: Backend, split: Split, config: ClassifyConfig, *, count: int, advance: Callable[[int], None]
) -> MemoryResult:
    """Answer `count` entries, the split's PNG files again and again, and watch the memory."""
    every = max(count // MEMORY_SAMPLES, 1)
    samples: list[float] = []
    with tempfile.TemporaryDirectory(prefix="rtk-bench-") as folder, Decoder(backend.card.input) as decoder:
        pngs = _written(split, Path(folder), min(len(split), count))
        for answered, _ in enumerate(classify(islice(cycle(pngs), count), backend, decoder, config), 1):
            advance(1)
            if answered % every == 0:
                processes = [os.getpid(), *decoder.process_ids]
                samples.append(sum(map(_resident_mib, processes)))
    return MemoryResult(count, samples)


class PngFiles:
    """A split as PNG files, with the processes that decode them: the cells of the scope files share both."""

    def __init__(self, split: Split, size: Input) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rtk-bench-")
        self._decoder = Decoder(size)
        self._entries = cycle(_written(split, Path(self._folder.name), len(split)))

    def __enter__(self) -> Self:
        self._decoder.__enter__()
        self._decoder.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoder.__exit__(kind, error, trace)
        self._folder.cleanup()

    def classified_by(self, backend: Backend, batch: int) -> Callable[[int], list[float]]:
        """A runner's calls: so many batches of files to labels, and the seconds from one batch's labels to the next."""
        config = ClassifyConfig(batch_size=batch)

        def calls(count: int) -> list[float]:
            entries = list(islice(self._entries, count * batch))
            samples, started_at = [], time.perf_counter()
            for answered, _ in enumerate(classify(entries, backend, self._decoder, config), 1):
                if answered % batch == 0:
                    now = time.perf_counter()
                    samples.append(now - started_at)
                    started_at = now
            return samples

        return calls


def _written(split: Split, folder: Path, count: int) -> list[Entry]:
    found = []
    for number in range(count):
        image_HWC = split.images_NHWC[number % len(split)]
        path = folder / f"{number:07}.png"
        path.write_bytes(encoded_image(image_HWC))
        found.append(Entry(str(path)))
    return found


def _write_tar(path: Path, pngs: list[Entry]) -> None:
    with tarfile.open(path, "w") as archive:
        for entry in pngs:
            content = entry.path.read_bytes()
            member = tarfile.TarInfo(entry.path.name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
            archive.members.clear()  # type: ignore[attr-defined]  # or they would all be held


def _write_npy(path: Path, split: Split, count: int) -> None:
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *split.images_NHWC.shape[1:]))
    for start in range(0, count, len(split)):
        array[start : start + len(split)] = split.images_NHWC[: count - start]
    array.flush()


def _batches(split: Split, count: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, count, size):
        wanted = np.arange(start, min(start + size, count)) % len(split)
        yield split.images_NHWC[wanted]


def _plain_loop(pngs: list[Entry], backend: Backend) -> Iterator[int]:
    """What one writes first: open, convert and run, image by image."""
    mode = "RGB" if backend.card.input.channels == 3 else "L"
    for entry in pngs:
        with Image.open(entry.name) as image:
            pixels = np.asarray(image.convert(mode))
        logits_NK = backend(pixels.reshape(1, *backend.card.input.shape))
        yield int(logits_NK[0].argmax())


def _plain_loop_s(pngs: list[Entry], backend: Backend) -> float:
    return _drained(_plain_loop(pngs, backend)) / len(pngs)


def _drained(items: Iterable[object]) -> float:
    started_at = time.perf_counter()
    for _ in items:
        pass
    return time.perf_counter() - started_at


def _resident_mib(process: int) -> float:
    """Of one process; not a number where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB
