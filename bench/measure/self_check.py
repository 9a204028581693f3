"""The self-check: does a backend return before its work is done? If it does, its figures are rejected.

It runs after the cells are warm, and tests three things. (1) The result is ready: copying it a first time takes no
longer than copying it again, except for a small share of the call's time. (2) The result is final: a copy made at once
equals the result some time later. (3) A single call takes as long as one of many in a row: deferred work shows when
calls follow each other. Time in which other programs had the processors does not count: a process that has slept gets
them at once for a single call, but not for many in a row.
"""

import contextlib
import glob
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...infer.backend import Backend
from .cell import Cell

T = TypeVar("T")
REJECTED = "rejected: asynchronous result"
SHARE = 0.2
"""Share of a call's time by which the first copy of its result may take longer than the second."""
NOISE_S = 2e-3
"""Smaller differences come from the operating system."""
SINGLE_CALLS = 3
"""Calls whose median counts as one time."""
ALONE = 0.6
"""A single call that takes a smaller share than this of a call in a row has deferred work."""
CONFIRMATIONS = 3
"""Times in a row that a timing test must fail: a busy machine fails it once, an asynchronous backend always."""
FEWEST_IN_A_ROW, MOST_IN_A_ROW, ROW_S = 6, 24, 0.5
LATE_S = 0.25
"""Shortest wait for a result that changes late."""


def early_return(backend: Backend, batches: Sequence[NDArray[np.uint8]]) -> str:
    """How the backend was found to return before its work is done; empty if it was not. `batches`: several of one size.

    Raises BackendError as the backend does.
    """
    backend(batches[0])
    changed = _result_changes(backend, batches)
    if changed:
        return changed
    for test in (_result_is_late, _work_is_deferred):
        found = [test(backend, batches)]
        while found[-1] and len(found) < CONFIRMATIONS:
            found.append(test(backend, batches))
        if found[-1]:
            return found[-1]
    return ""


def _result_changes(backend: Backend, batches: Sequence[NDArray[np.uint8]]) -> str:
    results, call_s = [], 0.0
    for batch_BHWC in batches[:SINGLE_CALLS]:
        call_s, logits_BK = _timed(backend, batch_BHWC)
        results.append((logits_BK, np.array(logits_BK)))
    time.sleep(max(LATE_S, 3 * call_s))
    for logits_BK, at_once_BK in results:
        later_BK = np.array(logits_BK)
        if not np.array_equal(at_once_BK, later_BK, equal_nan=True):
            changed = int((at_once_BK != later_BK).any(axis=1).sum())
            return f"{changed:,} of {len(later_BK):,} answers changed after the call had returned"
    return ""


def _result_is_late(backend: Backend, batches: Sequence[NDArray[np.uint8]]) -> str:
    calls_s, firsts_s, seconds_s = [], [], []
    for batch_BHWC in batches[:SINGLE_CALLS]:
        call_s, logits_BK = _timed(backend, batch_BHWC)
        first_s, copied_BK = _timed(np.array, logits_BK)
        second_s, _ = _timed(np.array, copied_BK)
        calls_s.append(call_s)
        firsts_s.append(first_s)
        seconds_s.append(second_s)
    call_s, late_s = float(np.median(calls_s)), float(np.median(firsts_s) - np.median(seconds_s))
    if late_s > max(NOISE_S, SHARE * call_s):
        return f"a call takes {1e3 * call_s:.2f} ms, and reading its answer another {1e3 * late_s:.2f} ms"
    return ""


def _work_is_deferred(backend: Backend, batches: Sequence[NDArray[np.uint8]]) -> str:
    row_s: list[float] = []
    waited_before = _waited_s()
    while len(row_s) < FEWEST_IN_A_ROW or (len(row_s) < MOST_IN_A_ROW and sum(row_s) < ROW_S):
        row_s.append(_timed(backend, batches[len(row_s) % len(batches)])[0])
    count = len(row_s)
    waited_s = max((seconds - waited_before.get(thread, 0.0) for thread, seconds in _waited_s().items()), default=0.0)
    each_s = float(np.median(row_s[count // 2 :])) - waited_s / count
    alone_s = []
    for batch_BHWC in batches[:SINGLE_CALLS]:
        time.sleep(min(1.0, max(0.02, 2 * each_s)))
        alone_s.append(_timed(backend, batch_BHWC)[0])
    one_s = float(np.median(alone_s))
    if one_s < ALONE * each_s and each_s - one_s > NOISE_S:
        return f"a call alone takes {1e3 * one_s:.2f} ms, one of {count} in a row {1e3 * each_s:.2f} ms"
    return ""


def _waited_s() -> dict[str, float]:
    """Seconds that each thread of this process was ready to run and had no processor; empty where Linux counts none."""
    waited = {}
    for path in glob.glob("/proc/self/task/*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            waited[path] = int(Path(path).read_text().split()[1]) / 1e9
    return waited


def note_result(cells: Sequence[Cell], label: str, found: str, *, error: str = "") -> None:
    """Reject all cells of a contender if the self-check found something, and note an error that the check met."""
    for cell in cells:
        if cell.label == label:
            cell.rejected = f"{REJECTED}: {found}" if found else ""
            cell.error = cell.error or error


def _timed(call: Callable[..., T], *values: object) -> tuple[float, T]:
    started_at = time.perf_counter()
    result = call(*values)
    return time.perf_counter() - started_at, result
