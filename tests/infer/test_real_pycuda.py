"""The trt pipeline with the real PyCUDA and the real cuda-bindings, on the fake CUDA driver (`make test-driver`).

LazyCuda shows missing waits. These tests show what only the real libraries do: which thread may destroy an event, what
a destructor calls, what is left on the stack of contexts.
"""

import itertools
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fakes.driver.host_engine import OUT_OF_MEMORY, UNKNOWN, FakeDriver
from fakes.driver.scenarios import CLASSES, SCENARIOS, images, left, new_pipeline, outcome, single_calls
from fakes.lazy_cuda import fake_logits
from rtk.core.errors import BackendError
from rtk.core.nvidia import driver as cuda
from rtk.infer.trt.pipeline import Pipeline
from rtk.infer.trt.pycuda_driver import primary_context, pycuda_driver

pytestmark = pytest.mark.driver

CLEAN_UP = {
    "cuMemFree_v2",
    "cuMemFreeHost",
    "cuStreamDestroy_v2",
    "cuEventDestroy_v2",
    "cuStreamSynchronize",
    "cuGraphDestroy",
}
"""Functions whose errors are those of earlier work, and were raised there: PyCUDA warns, and rtk goes on."""

OPTIONAL = {"cuDriverGetVersion"}
"""Functions that a check can do without: TensorRT itself says later whether the driver is too old."""

TRIED_AGAIN = {"cuMemAlloc_v2", "cuMemHostAlloc"}
"""Functions that PyCUDA calls again if there is too little memory, after a garbage collection."""


@pytest.fixture(autouse=True)
def _the_driver_is_the_fake_one() -> None:
    try:
        FakeDriver()
    except (OSError, AttributeError):
        pytest.skip("needs the fake CUDA driver: make test-driver")


@pytest.fixture
def fake() -> Iterator[FakeDriver]:
    """The fake driver. After the test nothing may be left in it but retained contexts."""
    found = FakeDriver()
    found.fail(0)
    assert left(found) == {}
    with warnings.catch_warnings(record=True) as caught:  # a warning of a destructor must not become an error there
        warnings.simplefilter("always")
        yield found
    found.fail(0)
    assert left(found) == {}
    assert [str(one.message) for one in caught] == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_works_and_leaves_nothing(name: str, fake: FakeDriver) -> None:
    SCENARIOS[name]()
    assert left(fake) == {}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_works_in_another_thread_and_leaves_nothing(name: str, fake: FakeDriver) -> None:
    single_calls()  # the main thread retains the context
    with ThreadPoolExecutor(1) as thread:
        thread.submit(SCENARIOS[name]).result()
    assert left(fake) == {}


def forget() -> None:
    """Start the driver and retain contexts anew."""
    for cached in (pycuda_driver, primary_context, cuda._start, cuda.driver_cuda, cuda.gpu):
        cached.cache_clear()


@pytest.mark.parametrize("error", [UNKNOWN, OUT_OF_MEMORY])
@pytest.mark.parametrize("name", SCENARIOS)
def test_after_a_failure_of_any_call_nothing_is_left_and_the_next_run_works(
    name: str, error: int, fake: FakeDriver, capfd: pytest.CaptureFixture[str]
) -> None:
    failed_functions = set()
    for number in itertools.count(1):
        forget()
        fake.fail(number, error)
        raised = outcome(SCENARIOS[name])
        function = fake.failed()
        fake.fail(0)
        if not function:
            assert raised is None
            break
        failed_functions.add(function)
        if raised is None:
            assert function in CLEAN_UP | OPTIONAL or (error == OUT_OF_MEMORY and function in TRIED_AGAIN), function
        else:
            assert any(word in str(raised) for word in ("unknown error", "out of ", "UNKNOWN", "OUT_OF", "CUDA error"))
            assert "\n" not in str(raised)
        if function == "cuCtxPopCurrent_v2":
            single_calls()  # pops what the failed pop has left
        assert left(fake) == {}, (number, function)
        if function in ("cuInit", "cuDeviceGetCount"):
            forget()  # a driver that did not start is not tried again
        SCENARIOS[name]()
    assert {"cuInit", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2"} <= failed_functions
    capfd.readouterr()  # PyCUDA warns of clean-up operations that fail


@pytest.mark.parametrize("name", SCENARIOS)
def test_after_an_error_that_ends_the_context_every_call_fails_and_nothing_crashes(name: str) -> None:
    code = f"""
from fakes.driver.host_engine import *
from fakes.driver.scenarios import *
SCENARIOS[{name!r}]()
fake = FakeDriver()
total = fake.calls()
SCENARIOS[{name!r}]()
for number in range(1, fake.calls() - total + 1):
    fake.fail(number, ILLEGAL_ADDRESS)
    first = outcome(SCENARIOS[{name!r}])
    if fake.failed() in ("cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2"):
        continue
    assert first is None or "illegal" in str(first).lower() or "700" in str(first), first
    assert outcome(SCENARIOS[{name!r}]) is not None
fake.fail(0)
SCENARIOS[{name!r}]()
assert left(fake) == {{}}, left(fake)
"""
    done = new_process(code)
    assert done.returncode == 0, done.stderr


def new_process(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new process, with the modules of the tests."""
    tests = str(Path(__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {tests!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


# Many times, many threads, several GPUs.


@pytest.mark.parametrize("graphs", [False, True])
def test_a_thousand_opens_and_closes_leave_nothing(graphs: bool, fake: FakeDriver) -> None:
    for _ in range(1000):
        pipeline = new_pipeline(graphs=graphs)
        pipeline.run(images(1))
        pipeline.close()
    assert left(fake) == {}


def test_several_threads_have_their_own_pipelines(fake: FakeDriver) -> None:
    with ThreadPoolExecutor(4) as threads:
        for work in [threads.submit(SCENARIOS[name]) for name in SCENARIOS for _ in range(10)]:
            work.result()
    assert left(fake) == {}


def test_a_pipeline_may_be_opened_used_and_closed_by_three_threads(fake: FakeDriver) -> None:
    steps: list[Callable[[Pipeline], object]] = [lambda one: one.run(images(3)), lambda one: one.close()]
    pipeline = new_pipeline()
    for step in steps:
        thread = threading.Thread(target=step, args=(pipeline,))
        thread.start()
        thread.join()
    assert left(fake) == {}


def test_a_stream_may_be_closed_inside_the_work_of_another_pipeline(
    fake: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the garbage collector does with an abandoned stream, at any moment."""
    first, second = new_pipeline(), new_pipeline()
    abandoned = first.stream(images(8, seed=seed) for seed in range(4))
    next(abandoned)
    enqueue = second._engine.enqueue

    def work(count: int, *, images_at: int, logits_at: int, stream_handle: int) -> None:
        abandoned.close()  # type: ignore[attr-defined]
        enqueue(count, images_at=images_at, logits_at=logits_at, stream_handle=stream_handle)

    monkeypatch.setattr(second._engine, "enqueue", work)
    assert np.array_equal(second.run(images(3)), fake_logits(images(3), CLASSES))
    first.close()
    second.close()
    assert left(fake) == {}


def test_a_second_gpu_has_its_own_context(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "2")
    both = [new_pipeline(device=device) for device in (0, 1)]
    for pipeline in (*both, *both):
        assert np.array_equal(pipeline.run(images(5)), fake_logits(images(5), CLASSES))
    for pipeline in both:
        pipeline.close()
    assert left(fake) == {}


def test_too_little_memory_is_one_line_and_leaves_nothing(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_MIB", "0")
    with pytest.raises(BackendError, match="out of GPU memory: .* for a slot of up to 8 images, 0 of 0 MiB are free"):
        new_pipeline()
    assert left(fake) == {}


# The end of the process, and Ctrl-C.


@pytest.mark.parametrize("last", ["single_calls()", "kept = new_pipeline(); kept.run(images(3))"])
def test_a_process_ends_without_a_word_of_pycuda(last: str) -> None:
    done = new_process(f"from fakes.driver.scenarios import *\n{last}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


def test_a_context_that_ctrl_c_left_pushed_is_popped_at_the_end() -> None:
    code = """
from fakes.driver.host_engine import *
from fakes.driver.scenarios import *
from rtk.infer.trt.pycuda_driver import CurrentGpu
CurrentGpu(pycuda_driver(), 0).__enter__()  # as if Ctrl-C came before the block
assert FakeDriver().alive()["pushed contexts"] == 1
"""
    done = new_process(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


@pytest.mark.parametrize("ended", ["del block", "block._block.began = False"])
def test_a_context_of_a_block_that_did_not_end_is_popped_by_the_next_one(ended: str) -> None:
    """Ctrl-C may come in __exit__, or before its first line, and no block may wait for the end of the process."""
    code = f"""
from fakes.driver.host_engine import *
from fakes.driver.scenarios import *
from rtk.infer.trt.pycuda_driver import CurrentGpu
block = CurrentGpu(pycuda_driver(), 0)
block.__enter__()
{ended}
assert FakeDriver().alive()["pushed contexts"] == 1
single_calls()
assert FakeDriver().alive()["pushed contexts"] == 0
"""
    done = new_process(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


def test_ctrl_c_at_random_moments_leaves_nothing() -> None:
    code = """
import gc, itertools, random, signal, time
from fakes.driver.host_engine import *
from fakes.driver.scenarios import *
signal.signal(signal.SIGALRM, signal.default_int_handler)
random.seed(0)
taken_s = {}
for name in [*SCENARIOS, *SCENARIOS]:
    began = time.perf_counter()
    SCENARIOS[name]()
    taken_s[name] = time.perf_counter() - began
fake, interrupted = FakeDriver(), 0
for turn, (name, scenario) in enumerate(itertools.islice(itertools.cycle(SCENARIOS.items()), 3000)):
    if interrupted == 150:
        break
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, taken_s[name]))
        scenario()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
    gc.collect()
    single_calls()
    there = left(fake)
    graphs = there.pop("graphs", 0) + there.pop("executable graphs", 0)  # the driver has made it, nobody has it yet
    assert there == {}, (turn, there)
    assert graphs <= 10, (turn, graphs)
assert interrupted > 10, interrupted
"""
    done = new_process(code)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "CUDA" not in done.stderr  # Python itself may complain about a file that it was just opening
