"""From files to labels: how close classification comes to what decoding and the backend allow together.

On a CPU both want all cores, so that no pipeline can beat 1 / (1 / decode + 1 / backend), with each of the two rates
measured alone. The share of that bound is what is reported. Starting up, processes included, is not counted.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..core.datasets import Split
from ..infer.backend import Backend
from ..infer.classify import ClassifyConfig, classify
from ..infer.decode import Decoder
from ..infer.sources import Entry

WARM_UP_IMAGES = 1_000


@dataclass(frozen=True)
class FilesResult:
    """Images per second, and their share of the bound."""

    images: int
    rounds: int
    decode_per_s: float
    backend_per_s: float
    classify_per_s: float

    @property
    def bound_per_s(self) -> float:
        """What decoding and the backend allow when they share the cores."""
        return 1 / (1 / self.decode_per_s + 1 / self.backend_per_s)

    @property
    def share(self) -> float:
        """Of the bound; 1 is perfect."""
        return self.classify_per_s / self.bound_per_s


def measure_files(
    backend: Backend, split: Split, config: ClassifyConfig, *, rounds: int, advance: Callable[[int], None]
) -> FilesResult:
    """Write the split as PNG files and measure decoding, the backend and both, in turns, `rounds` times each."""
    with tempfile.TemporaryDirectory(prefix="rtk-bench-") as folder, Decoder(backend.card.input) as decoder:
        entries = _written(split, Path(folder))
        decoder.start()
        _drained(1 for _ in classify(entries[:WARM_UP_IMAGES], backend, decoder, config))
        count = len(split)
        seconds = {"decode": 0.0, "backend": 0.0, "classify": 0.0}
        for _ in range(rounds):
            seconds["decode"] += _drained(len(chunk.names) for chunk in decoder.chunks(entries))
            batches = (split.images_NHWC[i : i + config.batch_size] for i in range(0, count, config.batch_size))
            seconds["backend"] += _drained(len(logits) for logits in backend.stream(batches))
            seconds["classify"] += _drained(1 for _ in classify(entries, backend, decoder, config))
            advance(1)
    return FilesResult(count, rounds, *(rounds * count / seconds[name] for name in ("decode", "backend", "classify")))


def _written(split: Split, folder: Path) -> list[Entry]:
    entries = []
    for number, image_HWC in enumerate(split.images_NHWC):
        path = folder / f"{number:06}.png"
        Image.fromarray(image_HWC if image_HWC.shape[2] == 3 else image_HWC[..., 0]).save(path)
        entries.append(Entry(str(path)))
    return entries


def _drained(counts: Iterator[int]) -> float:
    started_at = time.perf_counter()
    for _ in counts:
        pass
    return time.perf_counter() - started_at
