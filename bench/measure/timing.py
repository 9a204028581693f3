"""Measuring: every cell is warmed up, then the cells take turns, round after round.

So a machine that drifts drifts for all of them alike. A turn begins when nothing of the one before it computes any
more: the threads of some libraries look for new work for many milliseconds after a call, on cores that the next one
needs. Every call's time is kept, and nothing else is done between the first and the last clock reading of a turn.
`seconds` counts the calls alone: what comes before the first round is stated by the cell. A cell that would not end in
time takes no further turn; its first round it always gets.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import RtkError
from ..config import BenchConfig
from .cell import Cell

ROUND_S = 0.1
"""A turn of a cell takes about this much time, or less where ten rounds of all cells would not fit otherwise."""
MOST_CALLS = 1 << 20
IDLE_STEP_S = 0.012
"""More than a tick, by which the system counts the time of threads that run on other processors: 10 ms at most."""
IDLE_SHARE = 0.2
"""Of one core, over such a step: with less computing than that, this process is idle."""
IDLE_LIMIT_S = 0.5
"""A turn waits no longer for that."""

Told = Callable[[Cell], None]
"""Is told of a cell that was warmed up or had its turn."""


@dataclass(frozen=True)
class Runner:
    """How a cell is run."""

    calls: Callable[[int], list[float]]
    """Makes so many calls and returns the seconds of each."""
    at_least: int = 1
    """Calls of a turn, so that what overlaps can overlap."""
    device_s: Callable[[], float | None] = lambda: None
    """Seconds of all calls since it was last asked, by the device's own clock."""


def one_by_one(call: Callable[[], float]) -> Runner:
    """A runner of calls that follow each other; `call` makes one and returns its seconds."""
    return Runner(lambda count: [call() for _ in range(count)])


@dataclass
class _Turn:
    """What the next turn of a cell is."""

    calls: int
    seconds: float
    """How long it will take, as far as one can tell."""


@dataclass(frozen=True)
class Measured:
    """Cells that have rounds or an error, and whether Ctrl-C ended it."""

    cells: list[Cell]
    interrupted: bool


def take_turns(cells: Sequence[Cell], runners: Sequence[Runner], config: BenchConfig, *, told: Told) -> Measured:
    """Warm every cell up, then measure them in turns until the time is up and no cell owes anything.

    A cell that fails stops alone. Ctrl-C ends measuring; what was measured is returned. A cell that has an error
    already is left as it is.
    """
    interrupted = False
    try:
        turns = _warmed_up(cells, runners, config, told)
        measured_s = 0.0
        while turns:
            for index in list(turns):
                cell, turn = cells[index], turns[index]
                if cell.rounds and measured_s + turn.seconds > config.seconds and not _must_go_on(cell, config):
                    del turns[index]
                    continue
                _wait_until_idle()
                try:
                    samples = runners[index].calls(turn.calls)
                except RtkError as error:
                    cell.error = str(error)
                    del turns[index]
                    continue
                cell.rounds.append(samples)
                device_s = runners[index].device_s()
                if device_s is not None:
                    cell.device_s = (cell.device_s or 0.0) + device_s
                measured_s += sum(samples)
                turn.seconds = float(np.median([sum(one) for one in cell.rounds]))
                told(cell)
    except KeyboardInterrupt:
        interrupted = True
    return Measured([cell for cell in cells if cell.rounds or cell.error], interrupted)


def _wait_until_idle() -> None:
    deadline = time.perf_counter() + IDLE_LIMIT_S
    while time.perf_counter() < deadline:
        started_at, used_s = time.perf_counter(), time.process_time()
        time.sleep(IDLE_STEP_S)
        if time.process_time() - used_s < IDLE_SHARE * (time.perf_counter() - started_at):
            return


def _warmed_up(cells: Sequence[Cell], runners: Sequence[Runner], config: BenchConfig, told: Told) -> dict[int, _Turn]:
    """Call every cell until its times have settled; how many calls fill its turns."""
    call_s: dict[int, float] = {}
    for index, (cell, runner) in enumerate(zip(cells, runners, strict=True)):
        if cell.error:
            continue
        _wait_until_idle()
        started_at = time.perf_counter()
        try:
            call_s[index] = _settled_call_s(runner, config.warm_up_s)
        except RtkError as error:
            cell.error = str(error)
        runner.device_s()
        cell.warm_up_s = time.perf_counter() - started_at
        told(cell)
    turn_s = min(ROUND_S, config.seconds / (config.rounds * max(1, len(call_s))))
    turns = {}
    for index, seconds in call_s.items():
        calls = max(runners[index].at_least, min(MOST_CALLS, round(turn_s / seconds)))
        turns[index] = _Turn(calls, calls * seconds)
    return turns


def _settled_call_s(runner: Runner, warm_up_s: float) -> float:
    """Seconds of a call in the last of ever longer runs that together fill the warm-up; at least two runs."""
    count, spent_s, runs = runner.at_least, 0.0, 0
    while True:
        samples = runner.calls(count)
        spent_s, runs = spent_s + sum(samples), runs + 1
        call_s = max(float(np.median(samples)), 1e-7)
        if runs >= 2 and spent_s >= warm_up_s:
            return call_s
        count = max(runner.at_least, min(2 * count, round((warm_up_s - spent_s) / call_s) or 1))


def _must_go_on(cell: Cell, config: BenchConfig) -> bool:
    """Whether the cell still lacks the calls or images that the config demands whatever the time."""
    calls = sum(map(len, cell.rounds))
    return calls < config.min_calls or calls * cell.batch < config.min_images
