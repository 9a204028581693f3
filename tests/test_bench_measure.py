"""Measuring: what a cell says follows from its samples, and the samples from the clock."""

import itertools

import numpy as np
import pytest
from rtk.bench.config import BenchConfig, parse_batches
from rtk.bench.measure import Cell, measure, take_turns
from rtk.core.errors import BackendError, UsageError
from rtk.infer.backend import FakeBackend


def nothing(count: int) -> None:
    del count


def test_rates_are_totals_over_totals() -> None:
    cell = Cell("a", 10, rounds=[[0.1, 0.3], [0.2, 0.2]])
    assert cell.images_per_s == pytest.approx(50)  # 40 images in 0.8 s
    assert cell.round_rates.tolist() == pytest.approx([50, 50])
    assert cell.spread == pytest.approx(0)
    assert not cell.noisy
    assert cell.percentile_ms(50) == pytest.approx(200)
    assert cell.percentile_ms(100) == pytest.approx(300)


def test_rounds_that_differ_are_called_noisy() -> None:
    cell = Cell("a", 1, rounds=[[0.1], [0.1], [0.2], [0.2]])
    assert cell.spread == pytest.approx(2 / 3, abs=0.01)  # rates 10 10 5 5: quartiles 5 and 10 around 7.5
    assert cell.noisy


@pytest.mark.parametrize("batch", [1, 16])
def test_a_known_delay_is_measured(batch: int) -> None:
    (cell,) = measure({"fake": FakeBackend(delay_s=0.02)}, BenchConfig((batch,), seconds=0.3), advance=nothing)
    assert cell.percentile_ms(50) == pytest.approx(20, rel=0.2)
    assert len(cell.rounds) >= 10


def test_every_cell_gets_its_turn_in_every_round() -> None:
    order: list[str] = []

    def runner(name: str) -> float:
        order.append(name)
        return 0.2

    cells = [Cell("a", 1), Cell("b", 1), Cell("c", 1)]
    take_turns(cells, [lambda n=cell.backend: runner(n) for cell in cells], BenchConfig(seconds=0.1), advance=nothing)
    warm_up = 3 * 2  # two calls each fill the warm-up
    assert order[warm_up : warm_up + 6] == ["a", "b", "c", "a", "b", "c"]
    assert [len(cell.rounds) for cell in cells] == [10, 10, 10]


def test_a_backend_that_fails_stops_alone() -> None:
    backends = {"good": FakeBackend(delay_s=0.01), "bad": FakeBackend(delay_s=0.01, fail_at_call=45)}
    good, bad = measure(backends, BenchConfig((4,), seconds=0.1), advance=nothing)
    assert len(good.rounds) == 10
    assert not good.error
    assert bad.error == "fake: failed on purpose at call 45"


def test_ctrl_c_gives_what_was_measured_so_far() -> None:
    calls = 0

    def interrupted() -> float:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return 0.2

    (cell,) = take_turns([Cell("a", 1)], [interrupted], BenchConfig(seconds=60), advance=nothing)
    assert sum(map(len, cell.rounds)) == 5  # two calls of warm-up, the eighth never ended


def test_batches_over_the_maximum_of_a_backend_are_left_out() -> None:
    cells = measure({"fake": FakeBackend(max_batch=4)}, BenchConfig((2, 8), seconds=0.01), advance=nothing)
    assert [cell.batch for cell in cells] == [2]


def test_every_call_sees_other_images_than_the_one_before() -> None:
    seen: list[int] = []

    class Watching(FakeBackend):
        def _run(self, images_NHWC):  # type: ignore[no-untyped-def]
            seen.append(images_NHWC.__array_interface__["data"][0])
            return super()._run(images_NHWC)

    measure({"fake": Watching(delay_s=0.001)}, BenchConfig((64,), seconds=0.01), advance=nothing)
    assert all(first != second for first, second in itertools.pairwise(seen))
    assert len(set(seen)) > 100


@pytest.mark.parametrize(("text", "batches"), [("1,8,64", (1, 8, 64)), ("4", (4,)), ("2,2,1", (2, 1))])
def test_batch_sizes_are_read(text: str, batches: tuple[int, ...]) -> None:
    assert parse_batches(text) == batches


@pytest.mark.parametrize("text", ["", "a", "1;2", "0", "-3,1"])
def test_batch_sizes_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--batch"):
        BenchConfig(parse_batches(text))


def test_images_vary_over_the_whole_range() -> None:
    from rtk.bench.measure import rotating_images
    from rtk.core.card import Input

    images_NHWC = rotating_images(Input(32, 32, 3), 8)
    assert images_NHWC.nbytes >= 127 << 20
    assert set(np.unique(images_NHWC[:100])) == set(range(256))


def test_an_error_in_warming_up_is_kept() -> None:
    def broken() -> float:
        raise BackendError("no memory")

    (cell,) = take_turns([Cell("a", 1)], [broken], BenchConfig(seconds=0.1), advance=nothing)
    assert cell.error == "no memory"
    assert not cell.rounds
