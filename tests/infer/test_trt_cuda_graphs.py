"""Runs recorded as CUDA graphs: each image gets its own logits, and nothing leaks."""

import random
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes.lazy_cuda import CudaError, LazyCuda, LazyEngine, LazyGraphs, fake_logits
from numpy.typing import NDArray
from rtk.core.errors import BackendError
from rtk.infer.trt import cuda_graphs as trt_graphs
from rtk.infer.trt.cuda_graphs import CudaGraphs, RecordedRuns
from rtk.infer.trt.pipeline import Pipeline

SHAPE = (2, 3, 1)
CLASSES = 4
MAX_BATCH = 5


def images(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


class Bench:
    """A pipeline with recorded runs, on a fake CUDA that does all work as late as possible."""

    def __init__(self, *, schedule: random.Random | None = None, kept: int = 32) -> None:
        self.machine = LazyCuda(schedule=schedule)
        self.engine = LazyEngine(self.machine, image_shape=SHAPE, classes=CLASSES)
        self.graphs = LazyGraphs(self.machine)
        runs = RecordedRuns(self.engine, self.graphs, kept=kept)
        self.pipeline = Pipeline(self.machine, runs, image_shape=SHAPE, classes=CLASSES, max_batch=MAX_BATCH, slots=2)

    def check(self, batches: list[NDArray[np.uint8]]) -> None:
        for batch, logits_NK in zip(batches, self.pipeline.stream(iter(batches)), strict=True):
            assert np.array_equal(logits_NK, fake_logits(batch, CLASSES))


@pytest.mark.parametrize("seed", range(20))
def test_every_batch_gets_its_own_logits_in_every_schedule(seed: int) -> None:
    random_ = random.Random(seed)
    bench = Bench(schedule=random_ if seed else None, kept=random_.choice([4, 32]))
    bench.check([images(random_.choice([0, 1, 2, MAX_BATCH]), seed=k) for k in range(60)])
    for k in range(9):
        batch = images(1 + k % MAX_BATCH, seed=k)
        assert np.array_equal(bench.pipeline.run(batch), fake_logits(batch, CLASSES))


def test_a_batch_size_is_recorded_once_per_slot_and_then_replayed() -> None:
    bench = Bench()
    bench.check([images(MAX_BATCH, seed=k) for k in range(10)])
    assert len(bench.graphs.live) == 2  # slots
    assert bench.graphs.launches == 8
    assert [fork.runs for fork in bench.engine.forks] == [2, 2]  # once for the logits, once to record
    assert bench.engine.runs == 0


def test_a_new_graph_replaces_the_least_recently_used() -> None:
    bench = Bench(kept=3)
    for count in (1, 2, 3, 1, 4, 5):
        bench.pipeline.run(images(count))
    assert len(bench.graphs.live) == 3
    assert [fork.closed for fork in bench.engine.forks] == [False, True, True, False, False]  # 2 and 3 were replaced


def test_closing_frees_graphs_contexts_and_engine() -> None:
    bench = Bench()
    bench.check([images(count) for count in (1, 2, 3, 1)])
    bench.pipeline.close()
    assert bench.graphs.live == []
    assert all(fork.closed for fork in bench.engine.forks)
    assert bench.engine.closed
    assert set(bench.machine.live().values()) == {0}


def test_a_failed_recording_leaves_the_stream_usable_and_closes_its_context() -> None:
    bench = Bench()
    fork = bench.engine.fork

    def failing() -> LazyEngine:
        made = fork()
        made.fail_at = 2  # the recorded run
        return made

    bench.engine.fork = failing  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="failed on purpose"):
        bench.pipeline.run(images(3))
    assert bench.engine.forks[0].closed
    assert bench.machine.recording == {}
    bench.engine.fork = fork  # type: ignore[method-assign]
    assert np.array_equal(bench.pipeline.run(images(3)), fake_logits(images(3), CLASSES))


def test_a_destroyed_graph_cannot_be_launched() -> None:
    machine = LazyCuda()
    machine.Device(0).retain_primary_context().push()
    graphs, stream = LazyGraphs(machine), machine.Stream(1)
    graph = graphs.record(stream.handle, lambda: None)
    graphs.destroy(graph)
    with pytest.raises(CudaError, match="invalid argument"):
        graphs.launch(graph, stream.handle)


# The calls of cuda-python, on a stand-in that records them.


class Driver(ModuleType):
    """cuda.bindings.driver: records every call and returns (status, result)."""

    def __init__(self, *, fails: str = "") -> None:
        super().__init__("cuda.bindings.driver")
        self.calls: list[tuple[Any, ...]] = []
        self.CUresult = SimpleNamespace(CUDA_SUCCESS=SimpleNamespace(name="CUDA_SUCCESS"))
        self.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local")
        self.CUstream: Callable[[int], str] = "stream {}".format
        for name, result in (
            ("cuStreamBeginCapture", ()),
            ("cuStreamEndCapture", ("recorded",)),
            ("cuGraphInstantiate", ("graph",)),
            ("cuGraphDestroy", ()),
            ("cuGraphLaunch", ()),
            ("cuGraphExecDestroy", ()),
        ):
            setattr(self, name, self._call(name, result, fails=fails))

    def _call(self, name: str, result: tuple[str, ...], *, fails: str) -> Callable[..., tuple[Any, ...]]:
        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            status = SimpleNamespace(name="CUDA_ERROR_OF_A_TEST") if name == fails else self.CUresult.CUDA_SUCCESS
            return (status, *result)

        return call


def stand_in(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> Driver:
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", ModuleType("cuda.bindings"))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)
    monkeypatch.setattr(trt_graphs.util, "find_spec", lambda name: name)
    return driver


def test_recording_launching_and_freeing_make_these_calls_in_this_order(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = stand_in(monkeypatch, Driver())
    graphs = CudaGraphs()
    graph = graphs.record(7, lambda: driver.calls.append(("work",)))
    graphs.launch(graph, 7)
    graphs.destroy(graph)
    assert driver.calls == [
        ("cuStreamBeginCapture", "stream 7", "thread local"),
        ("work",),
        ("cuStreamEndCapture", "stream 7"),
        ("cuGraphInstantiate", "recorded", 0),
        ("cuGraphDestroy", "recorded"),
        ("cuGraphLaunch", "graph", "stream 7"),
        ("cuGraphExecDestroy", "graph"),
    ]


def test_a_capture_ends_even_if_its_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = stand_in(monkeypatch, Driver())

    def fail() -> None:
        raise BackendError("refused")

    with pytest.raises(BackendError, match="refused"):
        CudaGraphs().record(7, fail)
    assert [name for name, *_ in driver.calls] == ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphDestroy"]


def test_a_graph_is_destroyed_once_with_its_last_reference_at_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = stand_in(monkeypatch, Driver())
    graphs = CudaGraphs()
    graph = graphs.record(7, lambda: None)
    del graph
    assert [name for name, *_ in driver.calls].count("cuGraphExecDestroy") == 1
    graph = graphs.record(7, lambda: None)
    graphs.destroy(graph)
    graphs.destroy(graph)
    del graph
    assert [name for name, *_ in driver.calls].count("cuGraphExecDestroy") == 2
    assert [name for name, *_ in driver.calls].count("cuGraphDestroy") == 2


@pytest.mark.parametrize("name", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_a_failed_call_is_reported_with_the_name_of_its_cuda_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    stand_in(monkeypatch, Driver(fails=name))
    with pytest.raises(BackendError, match=f"^trt: CUDA graphs: {name} failed: CUDA_ERROR_OF_A_TEST$"):
        CudaGraphs().record(7, lambda: None)


def test_a_missing_cuda_python_is_reported_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_graphs.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install cuda-bindings"):
        CudaGraphs()
