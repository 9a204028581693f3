"""Measurements of fakes: backends that sleep, and calls that claim to take some time."""

from rtk.bench.config import BenchConfig
from rtk.bench.measure.cell import Cell
from rtk.bench.measure.contenders import Contender
from rtk.bench.measure.prepare import prepare
from rtk.bench.measure.timing import Measured, Runner, measure_interleaved, one_by_one
from rtk.infer.backend import Backend


def nothing(cell: Cell) -> None:
    del cell


def measured(*backends: Backend, config: BenchConfig) -> list[Cell]:
    """The measured cells of these backends."""
    prepared = prepare([Contender(backend) for backend in backends], config, files=None)
    return measure_interleaved(prepared.cells, prepared.runners, config, on_change=nothing).cells


def interleaved(cells: list[Cell], calls: list[float] | list[Runner], config: BenchConfig) -> Measured:
    """Measure cells with runners, or with calls that claim to take that many seconds."""
    runners = [one if isinstance(one, Runner) else one_by_one(lambda taken_s=one: taken_s) for one in calls]
    return measure_interleaved(cells, runners, config, on_change=nothing)
