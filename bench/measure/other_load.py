"""How much of the cores other processes take while a cell is measured.

What is neither idle nor used by this process is used by others: by programs beside it, or by other virtual machines on
the same processor. Linux counts idle time for each core in ticks (man 5 proc, /proc/stat), and the time of the threads
of a process exactly. Other systems do not report this; then the load is unknown.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.machine import system_number

STAT = Path("/proc/stat")
IDLE_COLUMNS = (4, 5)
"""Columns of a core's line in /proc/stat, counted from its name: idle, and idle while waiting for a disk."""

ProcessIds = Callable[[], Sequence[int]]
"""The ids of other processes that work for this one, such as those that decode images."""


def no_processes() -> Sequence[int]:
    """For a cell that computes in this process alone."""
    return ()


@dataclass(frozen=True)
class Reading:
    """The clocks of the machine at one moment."""

    wall_s: float
    own_s: float
    """Processor time of this process and of those that work for it."""
    idle_s: float | None
    """Idle time of all cores that this process may use; None where the system does not report it."""

    def other_cores_since(self, earlier: "Reading") -> float | None:
        """Cores that other processes took since an earlier reading, on average; None where that is unknown."""
        wall_s = self.wall_s - earlier.wall_s
        if self.idle_s is None or earlier.idle_s is None or wall_s <= 0:
            return None
        taken_s = core_count() * wall_s - (self.idle_s - earlier.idle_s) - (self.own_s - earlier.own_s)
        return max(0.0, taken_s / wall_s)


def read_clocks(processes: ProcessIds = no_processes) -> Reading:
    """Read all clocks. `processes`: those that work for this one."""
    return Reading(time.perf_counter(), own_processor_s(processes), _idle_s())


def own_processor_s(processes: ProcessIds = no_processes) -> float:
    """Processor time of all threads of this process, and of the processes that work for it."""
    return time.process_time() + sum(map(_process_s, processes()))


def core_count() -> int:
    """Number of cores that this process may run on; 0 where the system does not report them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


def _idle_s() -> float | None:
    ticks_per_s = system_number("SC_CLK_TCK")
    if not core_count() or not ticks_per_s:
        return None
    names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    try:
        rows = [line.split() for line in STAT.read_text().splitlines()]
        return sum(int(row[column]) for row in rows if row[0] in names for column in IDLE_COLUMNS) / ticks_per_s
    except (OSError, ValueError, IndexError):
        return None


def _process_s(process: int) -> float:
    """Processor time of the threads of another process that run now; 0 where the system does not report it."""
    total_ns = 0
    for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # the thread has ended
            total_ns += int(path.read_text().split()[0])
    return total_ns / 1e9
