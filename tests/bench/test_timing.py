"""Timing: the figures of a cell follow from its samples, and the samples from the clock."""

import itertools
import time

import numpy as np
import pytest
from fakes.simulated_clock import SimulatedClock
from fakes.timed import interleaved, measured, nothing
from rtk.bench.config import BenchConfig, parse_batches, parse_scopes
from rtk.bench.measure import other_load, timing
from rtk.bench.measure.cell import Cell
from rtk.bench.measure.contenders import Contender
from rtk.bench.measure.prepare import prepare
from rtk.bench.measure.runners import rotating_images
from rtk.bench.measure.timing import Runner, measure_interleaved, one_by_one
from rtk.core.card import Input
from rtk.core.errors import BackendError, UnknownNameError, UsageError
from rtk.infer.backend import Resident
from rtk.infer.fake import FakeBackend


def test_the_headline_rate_is_that_of_the_median_round_and_the_mean_stands_beside_it() -> None:
    cell = Cell("a", 10, rounds=[[0.1, 0.3], [0.2, 0.2]])
    assert cell.images_per_s == pytest.approx(50)  # 20 images in 0.4 s, in both rounds
    assert cell.mean_images_per_s == pytest.approx(50)  # 40 images in 0.8 s
    assert cell.round_rates.tolist() == pytest.approx([50, 50])
    assert cell.spread == pytest.approx(0)
    assert not cell.noisy
    assert cell.percentile_ms(50) == pytest.approx(200)
    assert cell.percentile_ms(100) == pytest.approx(300)


def test_rounds_that_differ_are_called_noisy() -> None:
    cell = Cell("a", 1, rounds=[[0.1], [0.1], [0.2], [0.2]])
    assert cell.spread == pytest.approx(2 / 3, abs=0.01)  # rates 10 10 5 5: quartiles 5 and 10 around 7.5
    assert cell.noisy


@pytest.mark.parametrize("batch", [1, 256])
def test_a_known_delay_is_measured(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    SimulatedClock().use(monkeypatch)
    (cell,) = measured(FakeBackend(delay_s=0.1), config=BenchConfig((batch,), seconds=2, scopes=("sync",)))
    assert [cell.percentile_ms(share) for share in (0, 50, 100)] == pytest.approx([100] * 3)
    assert [cell.images_per_s, cell.mean_images_per_s] == pytest.approx([10 * batch] * 2)
    assert cell.other_share in (0, None)


def test_the_clock_is_that_of_the_machine() -> None:
    """No call ends before its backend has slept."""
    (cell,) = measured(FakeBackend(delay_s=0.02), config=BenchConfig((1,), seconds=0.2, warm_up_s=0.01))
    assert cell.percentile_ms(0) >= 20


def test_every_cell_is_measured_in_every_round() -> None:
    order: list[str] = []

    def runner(name: str) -> Runner:
        return one_by_one(lambda: order.append(name) or 0.2)

    cells = [Cell("a", 1), Cell("b", 1), Cell("c", 1)]
    interleaved(cells, [runner(cell.backend) for cell in cells], BenchConfig(seconds=6.1))
    warm_up = 3 * 2  # two calls each fill the warm-up
    assert order[warm_up : warm_up + 12] == ["a", "a", "b", "b", "c", "c"] * 2  # the first call does not count
    assert [len(cell.rounds) for cell in cells] == [5, 5, 5]


def test_a_cell_starts_when_the_process_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(timing, "wait_until_idle", lambda processes: order.append("wait") or True)
    runners = [one_by_one(lambda name=name: order.append(name) or 0.2) for name in "ab"]
    interleaved([Cell("a", 1), Cell("b", 1)], runners, BenchConfig(seconds=2.1))
    warm_up = ["wait", "a", "a", "wait", "b", "b"]  # two calls each fill the warm-up
    assert order[:6] == warm_up
    assert order[6:18] == ["wait", "a", "a", "wait", "b", "b"] * 2


@pytest.mark.parametrize(("busy_s", "waited_s"), [(0.0, 0.012), (0.1, 0.108), (60.0, 2.004)])
def test_the_wait_ends_when_threads_stop_computing_or_after_two_seconds(
    monkeypatch: pytest.MonkeyPatch, busy_s: float, waited_s: float
) -> None:
    """A clock that only sleeping advances; another thread computes for the first `busy_s`. The step is 12 ms."""
    now = [0.0]

    class Clock:
        def perf_counter(self) -> float:
            return now[0]

        def process_time(self) -> float:
            return min(now[0], busy_s)

        def sleep(self, seconds: float) -> None:
            now[0] += seconds

    monkeypatch.setattr(timing, "time", Clock())
    monkeypatch.setattr(other_load, "time", Clock())
    assert timing.wait_until_idle() == (busy_s < 60)
    assert now[0] == pytest.approx(waited_s, abs=0.013)


@pytest.mark.parametrize("calls", [[0.001], [0.001, 0.05, 0.2], [0.3, 0.3], [0.011] * 12])
def test_the_time_limit_is_kept_within_a_tenth(calls: list[float]) -> None:
    cells = [Cell(str(k), 1) for k in range(len(calls))]
    interleaved(cells, calls, BenchConfig(seconds=5))
    measured_s = sum(cell.first_calls_s + float(cell.samples_s.sum()) for cell in cells)
    assert 4.5 <= measured_s <= 5.5
    assert all(len(cell.rounds) >= 4 for cell in cells)


def test_every_cell_gets_one_round_even_beyond_the_time() -> None:
    cells = [Cell("slow", 1), Cell("slower", 1)]
    interleaved(cells, [1.0, 3.0], BenchConfig(seconds=0.1))
    assert [len(cell.rounds) for cell in cells] == [1, 1]


def test_minimum_images_are_measured_even_beyond_the_time() -> None:
    cells = [Cell("a", 256), Cell("b", 256)]
    interleaved(cells, [0.01, 0.5], BenchConfig(seconds=1, min_images=24_576))
    assert all(cell.batch * len(cell.samples_s) >= 24_576 for cell in cells)


def test_warm_up_is_recorded_separately() -> None:
    (cell,) = measured(FakeBackend(delay_s=0.05), config=BenchConfig((1,), seconds=0.2, warm_up_s=0.2))
    assert cell.warm_up_s >= 0.2


def test_a_backend_that_fails_stops_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    SimulatedClock(late=0.1).use(monkeypatch)
    backends = (FakeBackend(name="good", delay_s=0.01), FakeBackend(name="bad", delay_s=0.01, fail_at_call=30))
    good, bad = measured(*backends, config=BenchConfig((4,), seconds=1.0, warm_up_s=0.05))
    assert len(good.rounds) >= 5
    assert not good.error
    assert bad.error == "bad: failed on purpose at call 30"


def slow_to_switch(name: str, running: list[str], *, call_s: float, switch_s: float) -> Runner:
    """A runner whose calls claim `call_s`, and `switch_s` more if another one ran before."""

    def call() -> float:
        before, running[:] = list(running), [name]
        return call_s if before == [name] else call_s + switch_s

    return one_by_one(call)


def test_a_change_of_the_batch_size_is_in_no_rate_and_is_recorded() -> None:
    """ONNX Runtime on a GPU plans every convolution anew: with 150 ms in calls of 5 ms the rate would be a fifth."""
    cells, running = [Cell("onnx", 64), Cell("onnx", 256), Cell("torch", 64)], list[str]()
    runners = [slow_to_switch(str(cell.key), running, call_s=0.005, switch_s=0.15) for cell in cells[:2]]
    runners.append(slow_to_switch("torch", running, call_s=0.005, switch_s=0.002))
    interleaved(cells, runners, BenchConfig(seconds=6))
    for cell in cells:
        assert [cell.images_per_s, cell.mean_images_per_s] == pytest.approx([cell.batch / 0.005] * 2)
        assert cell.percentile_ms(100) == pytest.approx(5)
        assert cell.first_calls_s == pytest.approx(sum(cell.first_call_s))
    assert [cell.switch_ms for cell in cells] == pytest.approx([150, 150, 2])
    assert [cell.switch_is_long for cell in cells] == [True, True, False]
    spent_s = sum(cell.first_calls_s + float(cell.samples_s.sum()) for cell in cells)
    assert 5.4 <= spent_s <= 6.6  # the calls that do not count take part of the time


def test_first_calls_that_overlap_are_as_many_as_a_stream_needs() -> None:
    counts: list[int] = []
    clock = itertools.count()

    def calls(count: int) -> list[float]:
        counts.append(count)
        return [0.03] + [0.01] * (count - 1)  # the first batch fills the stream

    runner = Runner(calls, at_least=4, device_s=lambda: float(next(clock)))
    (cell,) = interleaved([Cell("a", 1, scope="stream")], [runner], BenchConfig(seconds=1)).cells
    assert counts[-2] == 4
    assert counts[-1] >= 4
    assert len(cell.rounds[0]) == counts[-1]
    assert cell.switch_ms == pytest.approx(0)  # a stream that is filled anew is no change of the batch size
    rounds = len(cell.rounds)
    assert cell.device_s == sum(2 * k + 2 for k in range(rounds))  # the warm-up's and the first calls' are dropped


def test_reports_without_first_calls_have_no_switch() -> None:
    assert Cell("a", 1, rounds=[[0.1]]).switch_ms is None
    assert not Cell("a", 1, rounds=[[0.1]]).switch_is_long


@pytest.mark.parametrize(
    ("first_s", "call_s", "long"),
    [(0.1, 0.01, True), (0.1, 0.03, False), (0.02, 0.001, False), (0.03, 0.001, True)],
)
def test_a_switch_is_long_beyond_20_ms_and_five_calls(first_s: float, call_s: float, long: bool) -> None:
    assert Cell("a", 1, rounds=[[call_s] * 9], first_call_s=[first_s]).switch_is_long == long


def test_ctrl_c_returns_the_rounds_so_far() -> None:
    calls = itertools.count(1)

    def interrupted() -> float:
        if next(calls) == 8:
            raise KeyboardInterrupt
        return 0.2

    done = interleaved([Cell("a", 1)], [one_by_one(interrupted)], BenchConfig(seconds=60))
    assert done.interrupted
    # Two calls of warm-up, two rounds of a first call and one that counts, a first call; the eighth did not finish.
    assert done.cells[0].rounds == [[0.2], [0.2]]


def test_a_batch_over_the_maximum_is_an_error_of_its_cell_only() -> None:
    first, second = measured(FakeBackend(max_batch=4), config=BenchConfig((2, 8), seconds=0.01))
    assert first.rounds
    assert second.error == "a batch of 8, expected at most 4, for which it was built"


def test_consecutive_calls_get_different_images(monkeypatch: pytest.MonkeyPatch) -> None:
    SimulatedClock().use(monkeypatch)
    seen: list[int] = []

    class Watching(FakeBackend):
        def _run(self, images_NHWC):  # type: ignore[no-untyped-def]
            seen.append(images_NHWC.__array_interface__["data"][0])
            return super()._run(images_NHWC)

    measured(Watching(delay_s=0.001), config=BenchConfig((64,), seconds=0.3))
    assert all(first != second for first, second in itertools.pairwise(seen))
    assert len(set(seen)) > 50


@pytest.mark.parametrize(("text", "batches"), [("1,8,64", (1, 8, 64)), ("4", (4,)), ("2,2,1", (2, 1))])
def test_batch_sizes_are_read(text: str, batches: tuple[int, ...]) -> None:
    assert parse_batches(text) == batches


@pytest.mark.parametrize("text", ["", "a", "1;2", "0", "-3,1"])
def test_invalid_batch_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--batch"):
        BenchConfig(parse_batches(text))


def test_images_vary_over_the_whole_range() -> None:
    images_NHWC = rotating_images(Input(32, 32, 3), 8)
    assert images_NHWC.nbytes >= 127 << 20
    assert set(np.unique(images_NHWC[:100])) == set(range(256))


def test_an_error_during_warm_up_is_kept() -> None:
    def broken() -> float:
        raise BackendError("no memory")

    (cell,) = interleaved([Cell("a", 1)], [one_by_one(broken)], BenchConfig(seconds=0.1)).cells
    assert cell.error == "no memory"
    assert not cell.rounds


# Scopes.


class OnDevice(FakeBackend):
    """A fake that claims a GPU, overlaps its batches, and reports 2 ms for calls that take 3 ms."""

    def __init__(self, *, short: bool = False, places: int | None = None) -> None:
        super().__init__(name="gpu", size=Input(28, 28, 1))
        self.device, self.short, self.starts, self.places = "cuda:0", short, list[int](), places

    def _stream(self, batches):  # type: ignore[no-untyped-def]
        return map(self, batches)

    def resident(self, images_NHWC):  # type: ignore[no-untyped-def]
        if self.short:
            raise BackendError("gpu: out of GPU memory")
        starts, limit = self.starts, self.places

        class OnGpu(Resident):
            places = limit

            def run(self, start: int, count: int) -> float:

                starts.append(start)
                time.sleep(0.003)
                return 0.002

        return OnGpu()


def test_on_a_cpu_the_scopes_coincide_and_the_notes_say_so() -> None:
    prepared = prepare([Contender(FakeBackend())], BenchConfig((1, 8)), files=None)
    assert [(cell.scope, cell.batch) for cell in prepared.cells] == [("sync", 1), ("sync", 8)]
    assert prepared.notes == [
        "compute is not measured for fake: it equals host to host, because on a CPU nothing is copied",
        "host to host, streaming is not measured for fake: it equals host to host, because batches do not overlap "
        "there",
    ]


def test_on_a_gpu_each_scope_has_its_cell_and_two_clocks_are_compared() -> None:
    cells = measured(OnDevice(), config=BenchConfig((16,), seconds=0.5))
    assert [cell.scope for cell in cells] == ["compute", "sync", "stream"]
    assert cells[0].device_s == pytest.approx(0.002 * len(cells[0].samples_s))
    assert cells[0].clock_disagreement is not None
    assert cells[0].clock_disagreement >= 0.5
    assert cells[1].device_s is None


def test_batches_on_a_gpu_begin_at_aligned_addresses() -> None:
    backend = OnDevice()
    measured(backend, config=BenchConfig((1, 3), seconds=0.05, scopes=("compute",)))
    assert len(set(backend.starts)) > 3
    assert all(start * 28 * 28 % 256 == 0 for start in backend.starts)


@pytest.mark.parametrize("places", [1, 3])
def test_a_backend_may_limit_the_batches_that_are_run_in_turn(places: int) -> None:
    backend = OnDevice(places=places)
    measured(backend, config=BenchConfig((1, 3), seconds=0.05, scopes=("compute",)))
    assert sorted(set(backend.starts)) == [16 * place for place in range(places)]


def test_too_little_gpu_memory_for_the_images_is_an_error_of_the_cell() -> None:
    cells = measured(OnDevice(short=True), config=BenchConfig((2,), seconds=0.05))
    assert [cell.error for cell in cells] == ["gpu: out of GPU memory", "", ""]


def test_a_stream_is_timed_between_batches_and_has_at_least_four() -> None:
    cells = measured(OnDevice(), config=BenchConfig((2,), seconds=0.01, scopes=("stream",)))
    assert all(len(samples) >= 4 for samples in cells[0].rounds)


def test_files_to_labels_counts_every_image() -> None:
    from rtk.bench.files.image_files import PngFiles
    from rtk.core.data.datasets import Split
    from rtk.core.data.synthetic_shapes import draw_shapes

    backend = FakeBackend()
    config = BenchConfig((8,), seconds=0.1, scopes=("files",), warm_up_s=0.01)
    with PngFiles(Split(*draw_shapes(64, seed=7)), backend.card.input) as files:
        prepared = prepare([Contender(backend, for_files=backend)], config, files=files)
        (cell,) = measure_interleaved(prepared.cells, prepared.runners, config, on_change=nothing).cells
    assert cell.scope == "files"
    assert all(len(samples) >= 4 for samples in cell.rounds)
    assert cell.images_per_s > 0


def test_scopes_are_sorted_and_unknown_ones_are_named() -> None:
    assert parse_scopes(["files", "sync", "sync"]) == ("sync", "files")
    with pytest.raises(UnknownNameError, match="scope 'syn' is unknown; did you mean sync"):
        parse_scopes(["syn"])
