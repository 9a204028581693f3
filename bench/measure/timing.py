"""Timing: every cell is warmed up, then the cells are measured in interleaved rounds.

In each round every cell makes some calls, so that a machine whose speed changes affects all cells alike. A cell starts
when nothing of the cell before it still computes: the threads of some libraries look for new work for many
milliseconds after a call, on cores that the next cell needs. The first calls of a cell in each round are not timed as
its samples: on a change of the batch size some libraries plan every layer anew, such as ONNX Runtime on a GPU, where
that took up to thirty times as long as the call. How long the first one took is kept. The time of every later call is
kept, and nothing else happens between the first and the last clock reading of a cell's round. What other processes took
of the cores meanwhile is kept too. `seconds` counts all calls of the rounds, the first ones too; the time before the
first round is kept separately in the cell. A cell whose next round would exceed the time is finished; its first round
always runs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ...core.errors import RtkError, noted
from ...core.library_errors import translated_errors
from ..config import BenchConfig
from .cell import Cell
from .other_load import ProcessIds, core_count, no_processes, own_processor_s, read_clocks

ROUND_S = 0.1
"""Approximate time of a cell in one round; shorter where ten rounds of all cells would not fit otherwise."""
MOST_CALLS = 1 << 20
IDLE_STEP_S = 0.012
"""Longer than a tick, in which the system counts the time of threads on other processors: 10 ms at most."""
IDLE_SHARE = 0.2
"""Share of one core; a process that computes less than that during a step is idle."""
IDLE_LIMIT_S = 2.0
"""Longest wait for an idle process. Threads that look for work without end, as with OMP_WAIT_POLICY=active, exceed it.
"""
PROBE_SHARE = 0.2
"""The probes of the ceiling get at most this share of the time, after their first rounds."""
PROBE_ROUNDS = 10
"""Rounds of the probes that always run."""

OnChange = Callable[[Cell], None]
"""Called after a cell was warmed up, and after each of its rounds."""


@dataclass(frozen=True)
class Runner:
    """How a cell is run."""

    calls: Callable[[int], list[float]]
    """Makes that many calls and returns the seconds of each."""
    at_least: int = 1
    """Fewest calls of a round, so that calls can overlap; also the number of its first calls, which do not count."""
    device_s: Callable[[], float | None] = lambda: None
    """Seconds by the device's own clock, of all calls since this function was last called."""
    processes: ProcessIds = no_processes
    """Other processes that work for this one in this cell."""


def one_by_one(call: Callable[[], float]) -> Runner:
    """A runner whose calls follow each other; `call` makes one and returns its seconds."""
    return Runner(lambda count: [call() for _ in range(count)])


class Probe(Protocol):
    """Something that is measured in each round beside the cells: a rate of the device."""

    def measure(self) -> None:
        """Measure once more and keep the result."""


@dataclass
class _Round:
    """The next round of a cell."""

    calls: int
    expected_s: float
    """Of all calls, the first ones too."""
    taken_s: list[float] = field(default_factory=list)
    """The same of the rounds before."""


@dataclass(frozen=True)
class Measured:
    """The cells that have rounds or an error, and whether Ctrl-C stopped the measurement."""

    cells: list[Cell]
    interrupted: bool


def measure_interleaved(
    cells: Sequence[Cell],
    runners: Sequence[Runner],
    config: BenchConfig,
    *,
    on_change: OnChange,
    probes: Sequence[Probe] = (),
    before_round: Callable[[], None] = lambda: None,
) -> Measured:
    """Warm every cell up, then measure them round by round until the time is over and all minimum counts are reached.

    A cell that fails stops alone. Ctrl-C stops the measurement; the rounds so far are returned. A cell that already has
    an error is not run. `probes` take their turn at the beginning of a round; their time is not counted in `seconds`.
    `before_round` is called before each round of all cells.
    """
    interrupted = False

    def processes() -> list[int]:
        return list(dict.fromkeys(process for runner in runners for process in runner.processes()))

    try:
        before_round()
        rounds = _warmed_up(cells, runners, config, on_change, processes)
        measured_s, probed_s, probe_rounds = 0.0, 0.0, 0
        while rounds:
            before_round()
            if probe_rounds < PROBE_ROUNDS or probed_s < PROBE_SHARE * measured_s:
                probed_s, probe_rounds = probed_s + _probed_s(probes, processes), probe_rounds + 1
            for index in list(rounds):
                cell, upcoming = cells[index], rounds[index]
                late = measured_s + upcoming.expected_s > config.seconds
                if cell.rounds and late and not _below_minimum(cell, config):
                    del rounds[index]
                    continue
                try:
                    with translated_errors(cell.label):
                        upcoming.taken_s.append(_one_round(cell, runners[index], upcoming.calls, processes))
                except RtkError as error:
                    cell.error = noted(error)
                    del rounds[index]
                    continue
                measured_s += upcoming.taken_s[-1]
                upcoming.expected_s = float(np.median(upcoming.taken_s))
                on_change(cell)
    except KeyboardInterrupt:
        interrupted = True
    return Measured([cell for cell in cells if cell.rounds or cell.error], interrupted)


def _one_round(cell: Cell, runner: Runner, calls: int, processes: ProcessIds) -> float:
    """Make the first calls of one round, then those that count; keep both in the cell and return the seconds of all."""
    idle = wait_until_idle(processes)
    first_s = runner.calls(runner.at_least)
    runner.device_s()
    before = read_clocks(processes)
    samples_s = runner.calls(calls)
    others = read_clocks(processes).other_cores_since(before)
    cell.rounds.append(samples_s)
    cell.first_call_s.extend(first_s[:1])
    cell.first_calls_s += sum(first_s)
    cell.overlapped += not idle
    if others is not None:
        cell.cores = core_count()
        cell.other_cores.append(others)
    device_s = runner.device_s()
    if device_s is not None:
        cell.device_s = (cell.device_s or 0.0) + device_s
    return sum(first_s) + sum(samples_s)


def _probed_s(probes: Sequence[Probe], processes: ProcessIds) -> float:
    started_at = time.perf_counter()
    for probe in probes:
        wait_until_idle(processes)
        probe.measure()
    return time.perf_counter() - started_at


def wait_until_idle(processes: ProcessIds = no_processes) -> bool:
    """Wait until no thread of this process computes, nor a process that works for it; False if that takes too long."""
    deadline = time.perf_counter() + IDLE_LIMIT_S
    while time.perf_counter() < deadline:
        started_at, used_s = time.perf_counter(), own_processor_s(processes)
        time.sleep(IDLE_STEP_S)
        if own_processor_s(processes) - used_s < IDLE_SHARE * (time.perf_counter() - started_at):
            return True
    return False


def _warmed_up(
    cells: Sequence[Cell],
    runners: Sequence[Runner],
    config: BenchConfig,
    on_change: OnChange,
    processes: ProcessIds,
) -> dict[int, _Round]:
    """Call every cell until its times have settled; return the first round of each, by the cell's index."""
    call_s: dict[int, float] = {}
    for index, (cell, runner) in enumerate(zip(cells, runners, strict=True)):
        if cell.error:
            continue
        wait_until_idle(processes)
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
        first = runners[index].at_least
        calls = max(first, min(MOST_CALLS, round(round_s / seconds) - first))
        rounds[index] = _Round(calls, (first + calls) * seconds)
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
