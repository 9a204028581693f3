"""The ceiling of a cell: the highest rate that the device's measured rates allow for the graph's counted work.

compute: the slower of arithmetic and memory decides. Host to host on a GPU, copies to and from the device are added;
streaming overlaps them, so the slowest of the three decides. On a CPU nothing is copied. Files to labels have no
ceiling here: `rtk bench-files` measures what decoding and the backend allow together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ..measure.bootstrap import Interval, Rates, paired_values_interval, values_interval
from ..measure.cell import Cell

ARITHMETIC, MEMORY, COPIES = "arithmetic", "memory", "copies"
COPY, UPLOAD, DOWNLOAD = "copy", "upload", "download"
"""Names of the rates of copies in `DeviceRates.turns`, besides the precisions."""
WRONG_CEILING = 1.1
"""A cell that reaches more than this share of a ceiling shows that the ceiling is wrong."""


@dataclass(frozen=True)
class Operations:
    """The work of one image, except `weight_bytes`, which count once per batch; counted by graph_cost.py."""

    matrix: int
    """Operations of convolutions and matrix products, which the matrix rate bounds."""
    other: int
    """All other operations."""
    image_bytes: int
    logits_bytes: int
    weight_bytes: int
    between_bytes: int
    """Written by one layer and read by the next, once each, if nothing stays in caches."""


@dataclass(frozen=True)
class DeviceRates:
    """The rates of one device, each the median over turns; measured by device_rates.py."""

    device: str
    matrix_per_s: dict[str, float]
    """Operations per second in products of square matrices, by precision."""
    copy_bytes_per_s: float
    """Bytes read plus bytes written."""
    upload_bytes_per_s: float | None
    """From page-locked host memory to the device; None on a CPU."""
    download_bytes_per_s: float | None
    turns: dict[str, list[float]] = field(default_factory=dict)
    """The rate of each turn, by precision, and of COPY, UPLOAD and DOWNLOAD; empty in earlier reports."""

    @classmethod
    def of(cls, device: str, once: Mapping[str, float], turns: Mapping[str, Sequence[float]]) -> Self:
        """The rates of a device. `once`: those that were measured one time only."""
        medians = {**once, **{name: float(np.median(rates)) for name, rates in turns.items()}}
        copies = {name: medians.pop(name, None) for name in (COPY, UPLOAD, DOWNLOAD)}
        kept = {name: list(rates) for name, rates in turns.items()}
        return cls(device, medians, copies[COPY] or 0.0, copies[UPLOAD], copies[DOWNLOAD], kept)

    def interval(self, name: str) -> Interval | None:
        """95 % interval of a rate; `name`: a precision, COPY, UPLOAD or DOWNLOAD. None where it was measured once."""
        return values_interval(np.array(self.turns.get(name, ())))

    def at_turn(self, turn: int) -> "DeviceRates":
        """The rates of one turn alone."""
        rates = {name: values[turn] for name, values in self.turns.items()}
        return DeviceRates(
            self.device,
            {name: rates.get(name, median) for name, median in self.matrix_per_s.items()},
            rates.get(COPY, self.copy_bytes_per_s),
            rates.get(UPLOAD, self.upload_bytes_per_s),
            rates.get(DOWNLOAD, self.download_bytes_per_s),
        )

    @property
    def turn_count(self) -> int:
        """Number of turns in which every rate was measured."""
        return min(map(len, self.turns.values()), default=0)


@dataclass(frozen=True)
class Ceiling:
    """The highest rate that a cell can reach."""

    images_per_s: float
    binds: str
    """What limits the rate: arithmetic, memory or copies."""


@dataclass(frozen=True)
class Share:
    """The share of its ceiling that a cell reaches."""

    value: float
    interval: Interval | None
    """95 %, over the turns of both; None where the device's rates were measured once."""
    binds: str

    @property
    def wrong(self) -> bool:
        """Whether the ceiling is wrong: the cell is clearly faster."""
        return self.value > WRONG_CEILING


def share_of(cell: Cell, graph: Operations, rates: DeviceRates) -> Share | None:
    """The cell's rate divided by its ceiling; None without a ceiling.

    A ceiling is computed for each turn of the rates, so that a machine whose speed changes affects both alike.
    """
    ceiling = ceiling_of(cell, graph, rates)
    if ceiling is None:
        return None
    ceilings_R = _ceilings(cell, graph, rates)
    middle = float(np.median(ceilings_R)) if len(ceilings_R) else ceiling.images_per_s
    interval = paired_values_interval(cell.round_rates, ceilings_R)
    return Share(cell.images_per_s / middle, interval, ceiling.binds)


def _ceilings(cell: Cell, graph: Operations, rates: DeviceRates) -> Rates:
    each = (ceiling_of(cell, graph, rates.at_turn(turn)) for turn in range(rates.turn_count))
    return np.array([one.images_per_s for one in each if one is not None])


def ceiling_of(cell: Cell, graph: Operations, rates: DeviceRates) -> Ceiling | None:
    """The ceiling of a cell; None without a measured rate for its precision, and for files."""
    matrix_per_s = _matrix_rate(cell.precision, rates)
    if matrix_per_s is None or cell.scope == "files":
        return None
    moved = cell.batch * (graph.image_bytes + graph.logits_bytes) + graph.weight_bytes
    seconds = {
        ARITHMETIC: cell.batch * graph.matrix / matrix_per_s,
        MEMORY: moved / rates.copy_bytes_per_s,
        COPIES: 0.0,
    }
    on_device_s = max(seconds[ARITHMETIC], seconds[MEMORY])
    if cell.scope == "compute" or rates.upload_bytes_per_s is None or rates.download_bytes_per_s is None:
        total_s = on_device_s
    else:
        up_s = cell.batch * graph.image_bytes / rates.upload_bytes_per_s
        down_s = cell.batch * graph.logits_bytes / rates.download_bytes_per_s
        seconds[COPIES] = max(up_s, down_s) if cell.scope == "stream" else up_s + down_s
        total_s = max(on_device_s, up_s, down_s) if cell.scope == "stream" else on_device_s + up_s + down_s
    return Ceiling(cell.batch / total_s, max(seconds, key=seconds.__getitem__))


def _matrix_rate(precision: str, rates: DeviceRates) -> float | None:
    """The higher rate of fp32 and this precision: a runtime may compute it in fp32 where that is faster."""
    if precision not in ("fp32", "fp16", "bf16"):
        return None
    known = [rates.matrix_per_s[name] for name in {"fp32", precision} if name in rates.matrix_per_s]
    return max(known, default=None)
