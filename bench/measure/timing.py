"""Timing: every cell is warmed up, then the cells are measured in interleaved rounds.

In each round every cell makes some calls, so that a machine whose speed changes affects all cells alike. A cell starts
when nothing of the cell before it still computes: the threads of some libraries look for new work for many
milliseconds after a call, on cores that the next cell needs. The time of every call is kept, and nothing else happens
between the first and the last clock reading of a cell's round. `seconds` counts the calls alone; the time before the
first round is kept separately in the cell. A cell whose next round would exceed the time is finished; its first round
always runs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import RtkError, noted
from ...core.library_errors import translated_errors
from ..config import BenchConfig
from .cell import Cell

ROUND_S = 0.1
"""Approximate time of a cell in one round; shorter where ten rounds of all cells would not fit otherwise."""
MOST_CALLS = 1 << 20
IDLE_STEP_S = 0.012
"""Longer than a tick, in which the system counts the time of threads on other processors: 10 ms at most."""
IDLE_SHARE = 0.2
"""Share of one core; a process that computes less than that during a step is idle."""
IDLE_LIMIT_S = 0.5
"""Longest wait for an idle process."""

OnChange = Callable[[Cell], None]
"""Called after a cell was warmed up, and after each of its rounds."""


@dataclass(frozen=True)
class Runner:
    """How a cell is run."""

    calls: Callable[[int], list[float]]
    """Makes that many calls and returns the seconds of each."""
    at_least: int = 1
    """Fewest calls of a round, so that calls can overlap."""
    device_s: Callable[[], float | None] = lambda: None
    """Seconds by the device's own clock, of all calls since this function was last called."""


def one_by_one(call: Callable[[], float]) -> Runner:
    """A runner whose calls follow each other; `call` makes one and returns its seconds."""
    return Runner(lambda count: [call() for _ in range(count)])


@dataclass
class _Round:
    """The next round of a cell."""

    calls: int
    expected_s: float


@dataclass(frozen=True)
class Measured:
    """The cells that have rounds or an error, and whether Ctrl-C stopped the measurement."""

    cells: list[Cell]
    interrupted: bool


def measure_interleaved(
    cells: Sequence[Cell], runners: Sequence[Runner], config: BenchConfig, *, on_change: OnChange
) -> Measured:
    """Warm every cell up, then measure them round by round until the time is over and all minimum counts are reached.

    A cell that fails stops alone. Ctrl-C stops the measurement; the rounds so far are returned. A cell that already has
    an error is not run.
    """
    interrupted = False
    try:
        rounds = _warmed_up(cells, runners, config, on_change)
        measured_s = 0.0
        while rounds:
            for index in list(rounds):
                cell, upcoming = cells[index], rounds[index]
                late = measured_s + upcoming.expected_s > config.seconds
                if cell.rounds and late and not _below_minimum(cell, config):
                    del rounds[index]
                    continue
                _wait_until_idle()
                try:
                    with translated_errors(cell.label):
                        samples_s = runners[index].calls(upcoming.calls)
                except RtkError as error:
                    cell.error = noted(error)
                    del rounds[index]
                    continue
                _add_round(cell, samples_s, runners[index].device_s())
                measured_s += sum(samples_s)
                upcoming.expected_s = float(np.median([sum(one) for one in cell.rounds]))
                on_change(cell)
    except KeyboardInterrupt:
        interrupted = True
    return Measured([cell for cell in cells if cell.rounds or cell.error], interrupted)


def _add_round(cell: Cell, samples_s: list[float], device_s: float | None) -> None:
    cell.rounds.append(samples_s)
    if device_s is not None:
        cell.device_s = (cell.device_s or 0.0) + device_s


def _wait_until_idle() -> None:
    deadline = time.perf_counter() + IDLE_LIMIT_S
    while time.perf_counter() < deadline:
        started_at, used_s = time.perf_counter(), time.process_time()
        time.sleep(IDLE_STEP_S)
        if time.process_time() - used_s < IDLE_SHARE * (time.perf_counter() - started_at):
            return


def _warmed_up(
    cells: Sequence[Cell], runners: Sequence[Runner], config: BenchConfig, on_change: OnChange
) -> dict[int, _Round]:
    """Call every cell until its times have settled; return the first round of each, by the cell's index."""
    call_s: dict[int, float] = {}
    for index, (cell, runner) in enumerate(zip(cells, runners, strict=True)):
        if cell.error:
            continue
        _wait_until_idle()
        started_at = time.perf_counter()
        try:
            with translated_errors(cell.label):
                call_s[index] = _settled_call_s(runner, config.warm_up_s)
        except RtkError as error:
            cell.error = noted(error)
        runner.device_s()
        cell.warm_up_s = time.perf_counter() - started_at
        on_change(cell)
    round_s = min(ROUND_S, config.seconds / (config.rounds * max(1, len(call_s))))
    rounds = {}
    for index, seconds in call_s.items():
        calls = max(runners[index].at_least, min(MOST_CALLS, round(round_s / seconds)))
        rounds[index] = _Round(calls, calls * seconds)
    return rounds


def _settled_call_s(runner: Runner, warm_up_s: float) -> float:
    """Seconds of a call in the last of several runs, each longer than the one before, that together fill the warm-up.

    There are at least two runs.
    """
    count, spent_s, runs = runner.at_least, 0.0, 0
    while True:
        samples = runner.calls(count)
        spent_s, runs = spent_s + sum(samples), runs + 1
        call_s = max(float(np.median(samples)), 1e-7)
        if runs >= 2 and spent_s >= warm_up_s:
            return call_s
        count = max(runner.at_least, min(2 * count, round((warm_up_s - spent_s) / call_s) or 1))


def _below_minimum(cell: Cell, config: BenchConfig) -> bool:
    """Whether the cell has fewer calls or images than the config requires."""
    calls = sum(map(len, cell.rounds))
    return calls < config.min_calls or calls * cell.batch < config.min_images
