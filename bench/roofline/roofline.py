"""The ceiling of a cell: the highest rate that the device's measured rates allow for the graph's counted work.

compute: the slower of arithmetic and memory decides. Host to host on a GPU, copies to and from the device are added;
streaming overlaps them, so the slowest of the three decides. On a CPU nothing is copied. Files to labels have no
ceiling here: `rtk bench-files` measures what decoding and the backend allow together.
"""

from dataclasses import dataclass

from ..measure.cell import Cell

ARITHMETIC, MEMORY, COPIES = "arithmetic", "memory", "copies"


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
    """The rates of one device; measured by device_rates.py."""

    device: str
    matrix_per_s: dict[str, float]
    """Operations per second in products of square matrices, by precision."""
    copy_bytes_per_s: float
    """Bytes read plus bytes written."""
    upload_bytes_per_s: float | None
    """From page-locked host memory to the device; None on a CPU."""
    download_bytes_per_s: float | None


@dataclass(frozen=True)
class Ceiling:
    """The highest rate that a cell can reach."""

    images_per_s: float
    binds: str
    """What limits the rate: arithmetic, memory or copies."""


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
