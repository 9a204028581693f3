"""The resident memory of a long classification, and its growth."""

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from ...core.data.datasets import Split
from ...core.data.decode import Decoder
from ...core.files import temporary_folder
from ...core.machine import system_number
from ...infer.backend import Backend
from ...infer.classify import ClassifyConfig, classify
from .image_files import disk_errors, write_pngs

SAMPLES = 50
MIB = 2**20


@dataclass(frozen=True)
class MemoryResult:
    """The resident memory of this process and its decoding processes during a classification."""

    entries: int
    samples_mib: list[float]
    """In order, taken at equal steps."""

    @property
    def growth(self) -> float:
        """Mean of the last fifth of the samples over that of the second; in the first, queues and caches fill."""
        fifth = len(self.samples_mib) // 5
        return statistics.fmean(self.samples_mib[-fifth:]) / statistics.fmean(self.samples_mib[fifth : 2 * fifth])


def measure_memory(
    backend: Backend, split: Split, config: ClassifyConfig, *, count: int, advance: Callable[[int], None]
) -> MemoryResult:
    """Classify `count` entries, the split's PNG files again and again, and sample the memory."""
    step = max(count // SAMPLES, 1)
    samples_mib: list[float] = []
    with temporary_folder(None) as folder, Decoder(backend.card.input) as decoder:
        with disk_errors():
            pngs = write_pngs(split, folder, min(len(split), count))
        for answered, _ in enumerate(classify(islice(cycle(pngs), count), backend, decoder, config), 1):
            advance(1)
            if answered % step == 0:
                processes = [os.getpid(), *decoder.process_ids]
                samples_mib.append(sum(map(_resident_mib, processes)))
    return MemoryResult(count, samples_mib)


def _resident_mib(process: int) -> float:
    """Resident memory of one process; not a number where the system does not report it."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * (system_number("SC_PAGE_SIZE") or float("nan")) / MIB
