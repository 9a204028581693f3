"""The self-check catches what returns before its work is done, and nothing else."""

import numpy as np
import pytest
from fakes.early_backend import EarlyFake
from rtk.bench.measure.cell import Cell
from rtk.bench.measure.self_check import caught_early, mark
from rtk.core.card import Input
from rtk.core.probe import probe_images
from rtk.infer.fake import FakeBackend

BATCHES = [probe_images(4 * k, Input(32, 32, 3))[-4:] for k in range(1, 7)]


@pytest.mark.parametrize(
    ("early", "words"),
    [
        ("reading", "reading its answer another"),
        ("thread", "4 of 4 answers changed after the call had returned"),
        ("queue", "4 of 4 answers changed after the call had returned"),
    ],
)
def test_what_is_not_done_on_return_is_caught(early: str, words: str) -> None:
    backend = EarlyFake(early, delay_s=0.03)
    # Three tries: where this process stands still for the whole delay, the answer is there before anyone looks.
    assert any(words in caught_early(backend, BATCHES) for _ in range(3))
    backend.close()


def test_work_put_off_to_the_next_call_is_caught_though_its_answers_are_there() -> None:
    class Tidying(FakeBackend):
        """Answers at once, and lets the next call wait until it has tidied up."""

        busy_until = 0.0

        def _run(self, images_NHWC):  # type: ignore[no-untyped-def]
            import time

            time.sleep(max(0.0, self.busy_until - time.perf_counter()))
            self.busy_until = time.perf_counter() + 0.02
            return super()._run(images_NHWC)

    assert any("a call alone takes" in caught_early(Tidying(), BATCHES) for _ in range(3))


@pytest.mark.parametrize("delay_s", [0.0, 0.01])
def test_an_honest_backend_is_left_in_peace(delay_s: float) -> None:
    # Three tries: a machine that stops this process for a while in the middle of a copy looks like a lazy backend.
    assert "" in [caught_early(FakeBackend(delay_s=delay_s), BATCHES) for _ in range(3)]


def test_a_call_that_is_slow_alone_is_no_liar() -> None:
    """After a pause caches are cold and threads asleep: that is the usual direction, and honest."""

    class Sleepy(FakeBackend):
        last = 0.0

        def _run(self, images_NHWC):  # type: ignore[no-untyped-def]
            import time

            paused = time.perf_counter() - self.last > 0.01
            time.sleep(0.02 if paused else 0.005)
            self.last = time.perf_counter()
            return super()._run(images_NHWC)

    assert "" in [caught_early(Sleepy(), BATCHES) for _ in range(3)]


def test_all_cells_of_the_liar_are_marked_and_no_others() -> None:
    cells = [Cell("a", 1, rounds=[[1.0]]), Cell("a", 8, rounds=[[1.0]]), Cell("a", 1, "int8", rounds=[[1.0]])]
    mark(cells, "a", "it lies")
    assert [cell.believed for cell in cells] == [False, False, True]
    assert cells[0].caught == "not believed: returns before its work is done: it lies"
    mark(cells, "a", "", error="died")
    assert [cell.error for cell in cells] == ["died", "died", ""]
    assert cells[0].believed


def test_late_answers_are_right_in_the_end() -> None:
    images_NHWC = BATCHES[0]
    for early in ("reading", "thread", "queue"):
        backend = EarlyFake(early, delay_s=0.01)
        answer = backend(images_NHWC)
        backend.close()
        assert np.array_equal(np.array(answer), FakeBackend()(images_NHWC))
