"""The self-check: whether a backend has really done its work when a call returns. What it catches has no figures.

Three questions, asked after the cells are warm. Is the answer there: copying it twice, the first copy must take no
longer than the second, but for a small part of the call. Does the answer stay: a copy made at once is the answer some
time later. Does one call alone take as long as one of many: work that is put off shows when calls follow each other.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...infer.backend import Backend
from .cell import Cell

T = TypeVar("T")
SHARE = 0.2
"""Of a call's time, that reading its answer may take longer than reading it again."""
NOTHING_S = 2e-3
"""Differences below this are the system's; also the least time that is waited for a late answer."""
SEVERAL = 3
ALONE = 0.6
"""A call alone that takes less than this of a call among many has left work behind."""
CONFIRMED = 3
"""So many times in a row a question about times must be answered badly: a busy machine does it once, a liar always."""
FEWEST_IN_A_ROW, MOST_IN_A_ROW, ROW_S = 6, 24, 0.5
LATE_S = 0.25
"""How long late answers are waited for, at least."""


def caught_early(backend: Backend, batches: Sequence[NDArray[np.uint8]]) -> str:
    """How it was caught returning before its work was done, or an empty string. `batches`: several, of one size.

    Raises BackendError as the backend does.
    """
    backend(batches[0])
    changed = _changing(backend, batches)
    if changed:
        return changed
    for question in (_reading, _alone):
        found = [question(backend, batches)]
        while found[-1] and len(found) < CONFIRMED:
            found.append(question(backend, batches))
        if found[-1]:
            return found[-1]
    return ""


def _reading(backend: Backend, batches: Sequence[NDArray[np.uint8]]) -> str:
    calls_s, firsts_s, seconds_s = [], [], []
    for batch_BHWC in batches[:SEVERAL]:
        call_s, answer_BK = _timed(backend, batch_BHWC)
        first_s, copied_BK = _timed(np.array, answer_BK)
        second_s, _ = _timed(np.array, copied_BK)
        calls_s.append(call_s)
        firsts_s.append(first_s)
        seconds_s.append(second_s)
    call_s, late_s = float(np.median(calls_s)), float(np.median(firsts_s) - np.median(seconds_s))
    if late_s > max(NOTHING_S, SHARE * call_s):
        return f"a call takes {1e3 * call_s:.2f} ms, and reading its answer another {1e3 * late_s:.2f} ms"
    return ""


def _changing(backend: Backend, batches: Sequence[NDArray[np.uint8]]) -> str:
    answers, call_s = [], 0.0
    for batch_BHWC in batches[:SEVERAL]:
        call_s, answer_BK = _timed(backend, batch_BHWC)
        answers.append((answer_BK, np.array(answer_BK)))
    time.sleep(max(LATE_S, 3 * call_s))
    for answer_BK, at_once_BK in answers:
        later_BK = np.array(answer_BK)
        if not np.array_equal(at_once_BK, later_BK, equal_nan=True):
            changed = int((at_once_BK != later_BK).any(axis=1).sum())
            return f"{changed:,} of {len(later_BK):,} answers changed after the call had returned"
    return ""


def _alone(backend: Backend, batches: Sequence[NDArray[np.uint8]]) -> str:
    row_s: list[float] = []
    while len(row_s) < FEWEST_IN_A_ROW or (len(row_s) < MOST_IN_A_ROW and sum(row_s) < ROW_S):
        row_s.append(_timed(backend, batches[len(row_s) % len(batches)])[0])
    count = len(row_s)
    each_s = float(np.median(row_s[count // 2 :]))
    alone_s = []
    for batch_BHWC in batches[:SEVERAL]:
        time.sleep(min(1.0, max(0.02, 2 * each_s)))
        alone_s.append(_timed(backend, batch_BHWC)[0])
    one_s = float(np.median(alone_s))
    if one_s < ALONE * each_s and each_s - one_s > NOTHING_S:
        return f"a call alone takes {1e3 * one_s:.2f} ms, one of {count} in a row {1e3 * each_s:.2f} ms"
    return ""


def mark(cells: Sequence[Cell], label: str, found: str, *, error: str = "") -> None:
    """Note on all cells of a contender that it was caught, or that it failed while it was asked."""
    for cell in cells:
        if cell.label == label:
            cell.caught = f"not believed: returns before its work is done: {found}" if found else ""
            cell.error = cell.error or error


def _timed(call: Callable[..., T], *values: object) -> tuple[float, T]:
    started_at = time.perf_counter()
    result = call(*values)
    return time.perf_counter() - started_at, result
