"""The self-check rejects backends that return before their work is done, and no others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.early_backend import EarlyFake
from fakes.simulated_clock import SimulatedClock
from rtk.bench.measure import self_check
from rtk.bench.measure.cell import Cell
from rtk.bench.measure.self_check import early_return, note_result
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
def test_a_backend_that_returns_early_is_rejected(early: str, words: str) -> None:
    backend = EarlyFake(early, delay_s=0.03)
    # Three tries: if the process stalls for the whole delay, the answer is ready before it is read.
    assert any(words in early_return(backend, BATCHES) for _ in range(3))
    backend.close()


class Tidying(FakeBackend):
    """Answers at once, and makes the next call wait until it has tidied up."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__()
        self.clock, self.busy_until = clock, 0.0

    def _run(self, images_NHWC):  # type: ignore[no-untyped-def]
        self.clock.sleep(max(0.0, self.busy_until - self.clock.perf_counter()))
        self.busy_until = self.clock.perf_counter() + 0.02
        return super()._run(images_NHWC)


def test_time_in_which_other_programs_had_the_processor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of a row take longer than a call alone, but the system says that the thread had no processor then."""
    clock = SimulatedClock().use(monkeypatch)
    monkeypatch.setattr(self_check, "_waited_s", lambda: {"thread": clock.perf_counter()})
    assert early_return(Tidying(clock), BATCHES) == ""


def test_linux_counts_the_waits_of_threads_that_compete_for_one_processor(in_new_process: Callable[[str], str]) -> None:
    """Two processes compute on one core for a second: each waits for about half of it."""
    if not Path("/proc/self/schedstat").is_file():
        assert self_check._waited_s() == {}
        return
    code = (
        "import os, subprocess, sys, time\n"
        "from rtk.bench.measure.self_check import _waited_s\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "other = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\n"
        "before, until = _waited_s(), time.monotonic() + 1\n"
        "while time.monotonic() < until: pass\n"
        "other.kill(); other.wait()\n"
        "print(max(seconds - before[thread] for thread, seconds in _waited_s().items()))\n"
    )
    assert 0.05 < float(in_new_process(code)) < 60


def test_work_deferred_to_the_next_call_is_rejected_although_the_answers_are_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimulatedClock().use(monkeypatch)
    assert early_return(Tidying(clock), BATCHES) == "a call alone takes 0.00 ms, one of 24 in a row 20.00 ms"


@pytest.mark.parametrize("delay_s", [0.0, 0.01])
@pytest.mark.parametrize("late", [0.0, 0.5])
def test_a_synchronous_backend_is_accepted(delay_s: float, late: float, monkeypatch: pytest.MonkeyPatch) -> None:
    SimulatedClock(late=late).use(monkeypatch)
    assert early_return(FakeBackend(delay_s=delay_s), BATCHES) == ""


def test_a_synchronous_backend_is_accepted_by_the_clock_of_the_machine() -> None:
    # Three tries: if the machine stops this process in the middle of a copy, the backend looks asynchronous.
    assert "" in [early_return(FakeBackend(delay_s=0.01), BATCHES) for _ in range(3)]


def test_a_call_that_is_slow_alone_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause caches are cold and threads asleep: a single call is usually slower, not faster."""
    clock = SimulatedClock().use(monkeypatch)

    class Sleepy(FakeBackend):
        last = 0.0

        def _run(self, images_NHWC):  # type: ignore[no-untyped-def]
            paused = clock.perf_counter() - self.last > 0.01
            clock.sleep(0.02 if paused else 0.005)
            self.last = clock.perf_counter()
            return super()._run(images_NHWC)

    assert early_return(Sleepy(), BATCHES) == ""


def test_all_cells_of_the_rejected_backend_are_marked_and_no_others() -> None:
    cells = [Cell("a", 1, rounds=[[1.0]]), Cell("a", 8, rounds=[[1.0]]), Cell("a", 1, "int8", rounds=[[1.0]])]
    note_result(cells, "a", "it returns early")
    assert [cell.valid for cell in cells] == [False, False, True]
    assert cells[0].rejected == "rejected: asynchronous result: it returns early"
    note_result(cells, "a", "", error="died")
    assert [cell.error for cell in cells] == ["died", "died", ""]
    assert cells[0].valid


def test_late_answers_are_correct_after_the_delay() -> None:
    images_NHWC = BATCHES[0]
    for early in ("reading", "thread", "queue"):
        backend = EarlyFake(early, delay_s=0.01)
        answer = backend(images_NHWC)
        backend.close()
        assert np.array_equal(np.array(answer), FakeBackend()(images_NHWC))
