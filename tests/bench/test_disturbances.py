"""What disturbs a measurement: pauses, other processes, and work that still runs; none of it passes unnoticed."""

import itertools
import logging
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.simulated_clock import SimulatedClock
from fakes.timed import interleaved, measured, nothing
from rtk.bench.config import BenchConfig
from rtk.bench.measure import other_load, timing, wait_quiet
from rtk.bench.measure.cell import Cell
from rtk.bench.measure.ratio import compares_nothing, ratio_of
from rtk.bench.measure.timing import measure_interleaved, one_by_one
from rtk.bench.report.notes import noise
from rtk.bench.report.report import read_report
from rtk.bench.report.tables import base_of, throughput_table
from rtk.core.errors import LimitError
from rtk.infer.fake import FakeBackend

RESULTS = Path(__file__).parent.parent.parent / "bench" / "results"


def with_one_pause(cell: Cell, pause_s: float) -> Cell:
    """The same cell, with a pause in the first call of the fourth round."""
    rounds = [list(samples) for samples in cell.rounds]
    rounds[3][0] += pause_s
    return replace(cell, rounds=rounds)


def test_one_pause_changes_no_headline_rate_and_is_flagged() -> None:
    """By totals over totals the same pause would turn the ratio 2 into 0.67."""
    base, cell = (Cell(name, 8, rounds=[[s] * 10 for _ in range(10)]) for name, s in (("torch", 0.01), ("onnx", 0.005)))
    paused = with_one_pause(cell, 1.0)
    assert paused.images_per_s == cell.images_per_s
    assert paused.mean_images_per_s == pytest.approx(8 * 100 / 1.5)
    assert paused.outliers == pytest.approx([21])  # 1.05 s instead of 0.05 s
    assert not cell.outliers
    assert ratio_of(paused, base).value == pytest.approx(2)
    assert throughput_table([base, paused])[1]["outliers"] == "1"
    assert noise([base, paused]) == [
        "outliers: 1 of 20 rounds took much longer than the others of their kind, at most 21.0 times the median "
        "(onnx, host, batch 8); images/s leaves them out, mean counts them"
    ]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_pause_of_two_seconds_in_a_kept_report_changes_no_ratio(path: Path) -> None:
    """In every cell of the recorded runs in turn: the median moves to the next round at most."""
    report, compared = read_report(path), 0
    for cell in report.cells:
        base = base_of(cell, report.cells, "torch")
        if base is None or base is cell or len(cell.rounds) < 6:
            continue
        paused = with_one_pause(cell, 2.0)
        next_s = np.sort(cell.round_s)[len(cell.rounds) // 2 + 1]
        assert cell.batch / next_s <= paused.images_per_s <= cell.images_per_s
        assert max(paused.outliers) > 2
        if not cell.noisy:
            assert ratio_of(paused, base).value == pytest.approx(ratio_of(cell, base).value, rel=0.05)
            compared += paused.mean_images_per_s < 0.8 * cell.mean_images_per_s
    assert compared >= 1 or all(cell.noisy for cell in report.cells)


def test_a_pause_in_a_run_changes_no_headline_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = SimulatedClock(late=0.1).use(monkeypatch), itertools.count()

    def call() -> float:
        started_at = clock.perf_counter()
        clock.sleep(0.5 if next(calls) == 60 else 0.004)
        return clock.perf_counter() - started_at

    (cell,) = interleaved([Cell("a", 1)], [one_by_one(call)], BenchConfig(seconds=1.2, warm_up_s=0.01)).cells
    assert next(calls) > 61  # the pause was among the measured calls
    assert max(cell.outliers) > 3
    without = 1 / float(np.median(cell.samples_s))
    assert cell.images_per_s == pytest.approx(without, rel=0.05)
    assert cell.mean_images_per_s < cell.images_per_s


def test_what_other_processes_take_is_neither_idle_nor_our_own() -> None:
    cores = other_load.core_count()
    before = other_load.Reading(wall_s=10.0, own_s=3.0, idle_s=100.0)
    after = other_load.Reading(wall_s=12.0, own_s=4.0, idle_s=100.0 + 2 * cores - 1.0 - 0.5)
    assert after.other_cores_since(before) == pytest.approx(0.25)  # 0.5 s of 2 s
    unknown = other_load.Reading(wall_s=12.0, own_s=4.0, idle_s=None)
    assert unknown.other_cores_since(before) is None


def test_idle_time_is_that_of_our_own_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu 9 9 9 9 9\ncpu0 1 0 0 300 20 0\ncpu1 1 0 0 500 0 0\ncpu2 1 0 0 100 0 0\nintr 1\n")
    monkeypatch.setattr(other_load, "STAT", stat)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2})
    monkeypatch.setattr(other_load, "system_number", lambda name: 100)
    assert other_load.read_clocks().idle_s == pytest.approx(4.2)
    stat.unlink()
    assert other_load.read_clocks().idle_s is None


@pytest.mark.parametrize(
    ("cores", "other_cores", "busy"), [(2, 0.02, False), (2, 0.5, True), (64, 0.3, False), (64, 1.0, True)]
)
def test_a_cell_beside_which_others_computed_is_busy(cores: int, other_cores: float, busy: bool) -> None:
    cell = Cell("a", 1, rounds=[[0.1]] * 20, cores=cores, other_cores=[other_cores] * 20)
    assert cell.other_share == pytest.approx(other_cores / cores)
    assert cell.busy == busy
    assert not Cell("a", 1, rounds=[[0.1]] * 20).busy


def test_a_reading_that_is_too_coarse_calls_nothing_busy() -> None:
    """Rounds of 2 ms on ticks of 10 ms: one tick that falls into a round looks like five cores."""
    assert not Cell("a", 1, rounds=[[0.002]] * 5, cores=2, other_cores=[0, 0, 5.0, 0, 0]).busy


@pytest.mark.skipif(other_load.read_clocks().idle_s is None, reason="the system does not report idle time")
def test_busy_neighbours_are_seen_and_ratios_beside_them_are_marked() -> None:
    """As many processes as there are cores compute; the fakes sleep, so nearly all cores are taken."""
    ours = [FakeBackend(name="torch", delay_s=0.01), FakeBackend(name="fast", delay_s=0.005)]
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(other_load.core_count())]
    try:
        time.sleep(0.5)
        cells = measured(*ours, config=BenchConfig((1,), seconds=1.0, warm_up_s=0.05))
    finally:
        for one in neighbours:
            one.kill()
            one.wait()
    for cell in cells:
        assert cell.other_share is not None
        assert cell.other_share > 0.5
        assert cell.busy
    rows = throughput_table(cells, baseline="torch")
    assert re.fullmatch(r"\d\.\d\d busy", rows[1]["x"])
    assert rows[1]["other load"].endswith("% busy")
    assert compares_nothing(cells).startswith("this run compares nothing: 2 of 2 measurements are noisy, or other ")
    assert any(re.match(r"busy: other processes took up to \d+% of the cores during 2 of 2", n) for n in noise(cells))


def test_most_cells_noisy_means_that_the_run_compares_nothing() -> None:
    quiet = Cell("a", 1, rounds=[[0.1]] * 4)
    noisy = Cell("b", 1, rounds=[[0.1], [0.1], [0.2], [0.2]])
    assert compares_nothing([quiet, noisy]) == ""
    assert compares_nothing([quiet, noisy, noisy]) == (
        "this run compares nothing: 2 of 3 measurements are noisy, or other processes disturbed them; repeat it on a "
        "quiet machine: --wait-quiet"
    )


def test_threads_that_never_stop_looking_for_work_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "IDLE_LIMIT_S", 0.03)
    monkeypatch.setattr(timing, "IDLE_SHARE", -1.0)  # never idle
    cells = interleaved([Cell("a", 1), Cell("b", 1)], [0.2, 0.2], BenchConfig(seconds=2)).cells
    assert [cell.overlapped for cell in cells] == [len(cell.rounds) for cell in cells]
    assert all(cell.disturbed for cell in cells)
    assert noise(cells)[-1].startswith("overlapped: threads of another backend still computed at the beginning of 5 of")
    assert throughput_table(cells)[1]["x"] == "1.00 busy"


def test_probes_take_turns_with_the_cells_and_do_not_use_up_their_time() -> None:
    order: list[str] = []

    class Counting:
        def measure(self) -> None:
            order.append("probe")

    runner = one_by_one(lambda: order.append("cell") or 0.2)
    done = measure_interleaved([Cell("a", 1)], [runner], BenchConfig(seconds=2), on_change=nothing, probes=[Counting()])
    assert order[2:8] == ["probe", "cell", "cell"] * 2  # after two calls of warm-up; the first one does not count
    assert len(done.cells[0].rounds) == 5


def test_wait_quiet_waits_before_each_round_and_only_the_first_wait_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loads = [float(other_load.core_count()), 0.0]
    monkeypatch.setattr(wait_quiet, "other_cores_now", lambda: loads.pop(0))
    caplog.set_level(logging.INFO, logger="rtk")
    wait_quiet.wait_until_quiet()
    assert not loads
    assert [one.getMessage() for one in caplog.records] == [
        f"waiting: other processes take 100% of the {other_load.core_count()} cores"
    ]
    monkeypatch.setattr(wait_quiet, "other_cores_now", lambda: float(other_load.core_count()))
    monkeypatch.setattr(wait_quiet, "WAIT_LIMIT_S", 0.05)
    with pytest.raises(
        LimitError, match=r"^--wait-quiet: after 0 s other processes still take 100% of the \d+ cores; "
    ):
        wait_quiet.before_each_round(wait=True)()
    results = [None, LimitError("still busy")]
    waits: list[object] = []

    def waited(*, limit_s: float) -> None:
        waits.append(found := results.pop(0))
        if found:
            raise found

    monkeypatch.setattr(wait_quiet, "wait_until_quiet", waited)
    done = measure_interleaved(
        [Cell("a", 1)],
        [one_by_one(lambda: 0.2)],
        BenchConfig(seconds=2),
        on_change=nothing,
        before_round=wait_quiet.before_each_round(wait=True),
    )
    assert len(waits) == 2
    assert len(done.cells[0].rounds) == 5
    assert caplog.messages[-1] == "still busy; the other rounds are measured without waiting"
