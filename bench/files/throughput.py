"""From files to labels: the share that classification reaches of the rate that decoding and the backend allow together.

On a CPU both compete for all cores, so no pipeline can be faster than 1 / (1 / decode + 1 / backend), where each of the
two rates is measured alone. The result is the share of that bound, for PNG files and for a tar of them. An array needs
no decoding, so its bound is the backend. The plain loop opens, converts and runs one image at a time: it is the code
that a user writes first. Startup, including that of processes, is not counted. All are measured in interleaved rounds;
each starts when nothing of the one before still computes. Rates are those of the median round.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import numpy as np
from PIL import Image

from ...core.data.datasets import Split
from ...core.data.decode import Decoder
from ...core.data.sources.entry import Entry
from ...core.files import temporary_folder
from ...infer.backend import Backend
from ...infer.classify import ClassifyConfig, classify
from ...infer.sources.listing import entries
from ..measure.cell import quiet_cores
from ..measure.other_load import core_count, read_clocks
from ..measure.timing import wait_until_idle
from .image_files import disk_errors, write_npy, write_pngs, write_tar

WARM_UP_IMAGES = 1_000
PLAIN_IMAGES = 1_000
"""Images of a plain loop's round: it is slow."""
PLAIN_LOOP = "plain loop"

Round = dict[str, float]
"""Seconds per image, by what was measured."""


@dataclass(frozen=True)
class Ratio:
    """A rate, and the rate that it is compared with."""

    name: str
    images_per_s: float
    compared_with: str
    other_per_s: float
    rounds: list[float]
    """The ratio in each round."""
    target: float
    """The smallest ratio that is good."""

    @property
    def value(self) -> float:
        """The ratio of the median round."""
        return statistics.median(self.rounds)


@dataclass(frozen=True)
class FilesResult:
    """Seconds per image in each round, by what was measured."""

    images: int
    rounds: list[Round]
    other_share: float | None = None
    """Share of the cores that other processes took, in the measurement where it was highest; None where unknown."""

    @property
    def busy(self) -> str:
        """A line that says that other processes disturbed the measurement; empty if they did not."""
        if self.other_share is None or self.other_share * core_count() <= quiet_cores(core_count()):
            return ""
        return (
            f"busy: other processes took up to {self.other_share:.0%} of the cores, which changes the ratios; "
            "--wait-quiet waits until they stop"
        )

    def images_per_s(self, name: str) -> float:
        """The rate of the median round."""
        return 1 / statistics.median(one[name] for one in self.rounds)

    @property
    def ratios(self) -> list[Ratio]:
        """Each kind of file compared with its bound, and PNG files compared with every plain loop."""
        both = "decoding + backend"
        return [
            self._ratio("PNG", both, _png_bound_s, 0.9),
            self._ratio("tar", both, lambda one: one["decoding tar"] + one["backend"], 0.9),
            self._ratio(".npy", "backend", lambda one: one["backend"], 0.95),
            *(self._ratio("PNG", name, itemgetter(name), 2.0) for name in self._plain_loops),
        ]

    @property
    def allowed(self) -> dict[str, float]:
        """For each plain loop, how many times its rate decoding and the backend allow together."""
        bound_s = statistics.median(map(_png_bound_s, self.rounds))
        return {f"the {name}": 1 / self.images_per_s(name) / bound_s for name in self._plain_loops}

    @property
    def _plain_loops(self) -> list[str]:
        return [name for name in self.rounds[0] if name.startswith(PLAIN_LOOP)]

    def _ratio(self, name: str, compared_with: str, other: Callable[[Round], float], target: float) -> Ratio:
        others_s = [other(one) for one in self.rounds]
        ratios = [other_s / one[name] for other_s, one in zip(others_s, self.rounds, strict=True)]
        return Ratio(name, self.images_per_s(name), compared_with, 1 / statistics.median(others_s), ratios, target)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The ratios as rows of a table of at most 80 columns."""
        return [
            {
                "from": one.name,
                "images/s": f"{one.images_per_s:,.0f}",
                "compared with": one.compared_with,
                "other img/s": f"{one.other_per_s:,.0f}",
                "ratio": f"{one.value:.2f}",
                "range": f"{min(one.rounds):.2f} to {max(one.rounds):.2f}",
                "goal": f"{one.target:g}",
            }
            for one in self.ratios
        ]


def _png_bound_s(one: Round) -> float:
    return one["decoding PNG"] + one["backend"]


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
    before_round: Callable[[], None] = lambda: None,
) -> FilesResult:
    """Write `images` images as PNG files, a tar and an array, then measure all in interleaved rounds.

    The split is repeated where it has fewer images. `alone`: the same model with all cores for itself. `loops`: the
    backends of the plain loops, by the suffix of their name after PLAIN_LOOP. `before_round` is called before each
    round.
    """
    with temporary_folder(None) as folder, Decoder(backend.card.input) as decoder:
        tar, npy = folder / "images.tar", folder / "images.npy"
        with disk_errors():
            pngs = write_pngs(split, folder, images)
            write_tar(tar, pngs)
            write_npy(npy, split, images)
        decoder.start()
        _drain_s(classify(pngs[:WARM_UP_IMAGES], backend, decoder, config))
        for one in loops.values():
            _drain_s(_plain_loop(pngs[: PLAIN_IMAGES // 10], one))

        def classify_s(source: Iterable[Entry]) -> float:
            return _drain_s(classify(source, backend, decoder, config)) / images

        def decode_s(source: Iterable[Entry]) -> float:
            return _drain_s(decoder.chunks(source)) / images

        def processes() -> list[int]:
            return decoder.process_ids

        measurements: dict[str, Callable[[], float]] = {
            "backend": lambda: _drain_s(alone.stream(_batches(split, images, config.batch_size))) / images,
            "decoding PNG": lambda: decode_s(pngs),
            "PNG": lambda: classify_s(pngs),
            "decoding tar": lambda: decode_s(entries([str(tar)])),
            "tar": lambda: classify_s(entries([str(tar)])),
            ".npy": lambda: classify_s(entries([str(npy)])),
        }
        for suffix, one in loops.items():
            measurements[PLAIN_LOOP + suffix] = partial(_plain_loop_s, pngs[:PLAIN_IMAGES], one)
        done: list[Round] = []
        loads: dict[str, list[float]] = {name: [] for name in measurements}
        for _ in range(rounds):
            before_round()
            done.append({})
            for name, measure_s in measurements.items():
                wait_until_idle(processes)
                before = read_clocks(processes)
                done[-1][name] = measure_s()
                others = read_clocks(processes).other_cores_since(before)
                loads[name] += [] if others is None else [others / core_count()]
            advance(1)
    return FilesResult(images, done, max((statistics.fmean(one) for one in loads.values() if one), default=None))


def _batches(split: Split, count: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, count, size):
        indices = np.arange(start, min(start + size, count)) % len(split)
        yield split.images_NHWC[indices]


def _plain_loop(pngs: list[Entry], backend: Backend) -> Iterator[int]:
    """The code that a user writes first: open, convert and run, image by image."""
    mode = "RGB" if backend.card.input.channels == 3 else "L"
    for entry in pngs:
        with Image.open(entry.name) as image:
            pixels = np.asarray(image.convert(mode))
        logits_NK = backend(pixels.reshape(1, *backend.card.input.shape))
        yield int(logits_NK[0].argmax())


def _plain_loop_s(pngs: list[Entry], backend: Backend) -> float:
    return _drain_s(_plain_loop(pngs, backend)) / len(pngs)


def _drain_s(items: Iterable[object]) -> float:
    """Seconds that it takes to read all items."""
    started_at = time.perf_counter()
    for _ in items:
        pass
    return time.perf_counter() - started_at
