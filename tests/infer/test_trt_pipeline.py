"""The pipeline on a fake CUDA that does all work as late as possible, compared with plain calls.

The last part removes each synchronisation, event record and event wait from the pipeline, one at a time, and shows that
the checks fail without it.
"""

import ast
import gc
import inspect
import random
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fakes.lazy_cuda import NOISE, CudaError, CudaMemoryError, LazyCuda, LazyEngine, fake_logits
from numpy.typing import NDArray
from rtk.core.errors import BackendError
from rtk.infer.trt import pipeline as trt_pipeline

SHAPE = (2, 3, 1)
CLASSES = 4
MAX_BATCH = 5
NOTHING = {"device_bytes": 0, "pagelocked_bytes": 0, "streams": 0, "events": 0}

Batches = list[NDArray[np.uint8]]
Bench = tuple[Any, LazyCuda, LazyEngine]


def images(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def random_batches(random_: random.Random, count: int) -> Batches:
    return [images(random_.choice([0, 1, 2, MAX_BATCH, MAX_BATCH]), seed=k) for k in range(count)]


def opened(
    *, module: Any = trt_pipeline, slots: int = 2, schedule: random.Random | None = None, **machine_options: Any
) -> Bench:
    machine = LazyCuda(schedule=schedule, **machine_options)
    engine = LazyEngine(machine, image_shape=SHAPE, classes=CLASSES)
    pipeline = module.Pipeline(machine, engine, image_shape=SHAPE, classes=CLASSES, max_batch=MAX_BATCH, slots=slots)
    return pipeline, machine, engine


def check_stream(pipeline: Any, batches: Batches) -> None:
    """Every batch gets the logits of its own images, in order."""
    answers = list(pipeline.stream(batch.copy() for batch in batches))
    assert len(answers) == len(batches)
    for batch, logits_NK in zip(batches, answers, strict=True):
        assert logits_NK.shape == (len(batch), CLASSES)
        assert logits_NK.dtype == np.float32
        assert np.array_equal(logits_NK, fake_logits(batch, CLASSES))


# The fake itself.


def test_the_fake_does_no_work_before_a_synchronisation() -> None:
    machine = LazyCuda()
    machine.Device(0).retain_primary_context().push()
    stream, memory = machine.Stream(1), machine.mem_alloc(4)
    source, target = np.arange(4, dtype=np.uint8), np.zeros(4, np.uint8)
    machine.memcpy_htod_async(memory, source, stream)
    source[:] = 9
    machine.memcpy_dtoh_async(target, memory, stream)
    assert target.tolist() == [0, 0, 0, 0]
    assert machine.pending() == 2
    stream.synchronize()
    assert target.tolist() == [9, 9, 9, 9]
    assert machine.pending() == 0


def test_the_fake_orders_streams_only_by_events() -> None:
    machine = LazyCuda()
    machine.Device(0).retain_primary_context().push()
    first, second, event = machine.Stream(1), machine.Stream(1), machine.Event(2)
    memory = machine.mem_alloc(1)
    early, late = np.zeros(1, np.uint8), np.zeros(1, np.uint8)
    machine.memcpy_htod_async(memory, np.array([7], np.uint8), first)
    event.record(first)
    machine.memcpy_dtoh_async(early, memory, second)
    second.wait_for_event(event)
    machine.memcpy_dtoh_async(late, memory, second)
    second.synchronize()
    assert (early[0], late[0]) == (NOISE, 7)


def test_the_fake_rejects_memory_that_was_freed() -> None:
    machine = LazyCuda()
    machine.Device(0).retain_primary_context().push()
    stream, memory = machine.Stream(1), machine.mem_alloc(4)
    machine.memcpy_htod_async(memory, np.zeros(4, np.uint8), stream)
    memory.free()
    with pytest.raises(CudaError, match="freed"):
        stream.synchronize()
    host = machine.pagelocked_empty((4,), np.uint8)
    machine.memcpy_htod_async(machine.mem_alloc(4), host[:2], stream)
    assert host.base is not None
    host.base.free()  # type: ignore[union-attr]
    with pytest.raises(CudaError, match="freed"):
        stream.synchronize()


def test_the_fake_runs_out_of_memory_and_requires_a_context() -> None:
    machine = LazyCuda(memory_bytes=100)
    with pytest.raises(CudaError, match="no context is current"):
        machine.mem_alloc(1)
    machine.Device(0).retain_primary_context().push()
    with pytest.raises(CudaMemoryError):
        machine.mem_alloc(101)
    with pytest.raises(CudaError, match="invalid device"):
        machine.Device(1)


def test_the_fake_logits_depend_on_every_pixel_of_their_own_image() -> None:
    batch = images(3)
    answers_NK = fake_logits(batch, CLASSES)
    assert np.array_equal(fake_logits(batch[1:2], CLASSES)[0], answers_NK[1])
    for place in np.ndindex(*SHAPE):
        changed = batch.copy()
        changed[(0, *place)] ^= 1
        assert not np.array_equal(fake_logits(changed, CLASSES)[0], answers_NK[0])


# The pipeline.


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(8))
def test_a_stream_gives_the_logits_of_single_calls(slots: int, seed: int) -> None:
    random_ = random.Random(seed)
    pipeline, machine, _ = opened(slots=slots, schedule=random.Random(seed) if seed % 2 else None)
    for count in (0, 1, slots, slots + 1, 17):
        check_stream(pipeline, random_batches(random_, count))
        assert machine.pending() == 0
    pipeline.close()


def test_a_short_batch_after_a_full_one_gets_only_its_own_logits() -> None:
    pipeline, _, _ = opened(slots=1)
    check_stream(pipeline, [images(MAX_BATCH, seed=1), images(1, seed=2), images(2, seed=3), images(MAX_BATCH, seed=4)])


def test_a_single_call_reads_the_callers_array_only_until_it_returns() -> None:
    pipeline, machine, _ = opened()
    batch = images(3)
    expected = fake_logits(batch, CLASSES)
    staged = machine.calls["pagelocked_empty"]
    answers_NK = pipeline.run(batch)
    batch[:] = 0
    assert machine.pending() == 0
    assert machine.calls["pagelocked_empty"] == staged
    assert np.array_equal(answers_NK, expected)


def test_the_caller_owns_the_logits() -> None:
    pipeline, _, _ = opened()
    first = pipeline.run(images(2, seed=1))
    kept = first.copy()
    pipeline.run(images(2, seed=2))
    pipeline.close()
    assert np.array_equal(first, kept)


def test_the_source_may_reuse_a_batch_when_the_next_one_is_requested() -> None:
    pipeline, _, _ = opened(slots=3)
    buffer = np.empty((MAX_BATCH, *SHAPE), np.uint8)
    expected = [fake_logits(images(MAX_BATCH, seed=k), CLASSES) for k in range(9)]

    def refilled() -> Iterator[NDArray[np.uint8]]:
        for k in range(9):
            buffer[:] = images(MAX_BATCH, seed=k)
            yield buffer

    for logits_NK, wanted_NK in zip(pipeline.stream(refilled()), expected, strict=True):
        assert np.array_equal(logits_NK, wanted_NK)


def test_a_stream_reads_ahead_only_by_its_slots() -> None:
    pipeline, _, _ = opened(slots=2)
    taken = []
    stream = pipeline.stream(images(1) for k in range(9) if taken.append(k) is None)
    assert taken == []
    next(stream)
    assert taken == [0, 1, 2]
    next(stream)
    assert taken == [0, 1, 2, 3]


def test_empty_batches_are_not_read_ahead() -> None:
    pipeline, _, _ = opened(slots=3)
    sizes, taken = [1, 1, *[0] * 50, 1], []
    stream = pipeline.stream(images(size) for k, size in enumerate(sizes) if taken.append(k) is None)
    assert [len(next(stream)) for _ in range(2)] == [1, 1]
    assert taken == [0, 1, 2]
    for k in range(50):
        assert len(next(stream)) == 0
        assert taken[-1] == 2 + k
    assert [len(logits_NK) for logits_NK in stream] == [1]


def test_single_calls_are_allowed_during_a_stream() -> None:
    pipeline, _, _ = opened(slots=2, schedule=random.Random(1))
    batches = [images(MAX_BATCH, seed=k) for k in range(7)]
    for k, logits_NK in enumerate(pipeline.stream(batches)):
        assert np.array_equal(logits_NK, fake_logits(batches[k], CLASSES))
        assert np.array_equal(pipeline.run(images(2, seed=99)), fake_logits(images(2, seed=99), CLASSES))


def test_a_second_stream_at_the_same_time_is_rejected_and_the_first_goes_on() -> None:
    pipeline, _, _ = opened()
    batches = [images(2, seed=k) for k in range(5)]
    first = pipeline.stream(batches)
    answers = [next(first)]
    with pytest.raises(BackendError, match="still open"):
        next(pipeline.stream(batches))
    answers += list(first)
    assert all(np.array_equal(a, fake_logits(b, CLASSES)) for a, b in zip(answers, batches, strict=True))
    check_stream(pipeline, batches)


def test_two_pipelines_on_one_gpu_do_not_mix() -> None:
    machine = LazyCuda(schedule=random.Random(5))
    pipelines = [
        trt_pipeline.Pipeline(
            machine,
            LazyEngine(machine, image_shape=SHAPE, classes=classes),
            image_shape=SHAPE,
            classes=classes,
            max_batch=MAX_BATCH,
        )
        for classes in (3, 6)
    ]
    batches = [images(MAX_BATCH, seed=k) for k in range(9)]
    both = zip(*(pipeline.stream(batches) for pipeline in pipelines), strict=True)
    for batch, (three, six) in zip(batches, both, strict=True):
        assert np.array_equal(three, fake_logits(batch, 3))
        assert np.array_equal(six, fake_logits(batch, 6))
    pipelines[0].close()
    assert np.array_equal(pipelines[1].run(batches[0]), fake_logits(batches[0], 6))


def test_a_second_gpu_has_its_own_memory() -> None:
    machine = LazyCuda(devices=2)
    engine = LazyEngine(machine, image_shape=SHAPE, classes=CLASSES)
    pipeline = trt_pipeline.Pipeline(machine, engine, image_shape=SHAPE, classes=CLASSES, max_batch=2, device_index=1)
    assert {device for device, _ in machine.device_memory.values()} == {1}
    assert np.array_equal(pipeline.run(images(2)), fake_logits(images(2), CLASSES))


def test_the_context_is_current_only_during_calls() -> None:
    pipeline, machine, _ = opened()
    assert machine.stack == []
    pipeline.run(images(1))
    assert machine.stack == []
    for _ in pipeline.stream([images(1)] * 4):
        assert machine.stack == []
    pipeline.close()
    assert machine.stack == []
    assert machine.calls["retain_primary_context"] == 1


def test_close_frees_everything_and_a_second_close_does_nothing() -> None:
    pipeline, machine, engine = opened()
    check_stream(pipeline, [images(MAX_BATCH)] * 4)
    pipeline.close()
    pipeline.close()
    assert machine.live() == NOTHING
    assert engine.closed
    with pytest.raises(BackendError, match="closed"):
        pipeline.run(images(1))


def test_a_thousand_opens_and_closes_leak_nothing() -> None:
    machine = LazyCuda()
    for _ in range(1000):
        engine = LazyEngine(machine, image_shape=SHAPE, classes=CLASSES)
        pipeline = trt_pipeline.Pipeline(machine, engine, image_shape=SHAPE, classes=CLASSES, max_batch=2)
        pipeline.run(images(1))
        pipeline.close()
    assert machine.live() == NOTHING
    assert machine.calls["retain_primary_context"] == 1


def test_closing_during_a_stream_ends_it_with_an_error() -> None:
    pipeline, machine, _ = opened()
    stream = pipeline.stream([images(2)] * 6)
    next(stream)
    pipeline.close()
    assert machine.pending() == 0
    with pytest.raises(BackendError, match="closed"):
        next(stream)
    del stream
    gc.collect()
    assert machine.live() == NOTHING


@pytest.mark.parametrize("how", ["close", "forget", "throw"])
def test_a_stream_that_ends_early_leaves_nothing_in_flight(how: str) -> None:
    pipeline, machine, _ = opened(slots=3)
    stream = pipeline.stream([images(2, seed=k) for k in range(9)])
    next(stream)
    assert machine.pending() > 0
    if how == "close":
        stream.close()
    elif how == "throw":
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt)
    del stream
    gc.collect()
    assert machine.pending() == 0
    check_stream(pipeline, [images(3, seed=k) for k in range(5)])


def test_an_error_of_the_source_is_raised_and_the_next_stream_works() -> None:
    pipeline, machine, _ = opened()

    def failing() -> Iterator[NDArray[np.uint8]]:
        yield images(2)
        yield images(3)
        raise ValueError("the source failed")

    with pytest.raises(ValueError, match="the source failed"):
        list(pipeline.stream(failing()))
    assert machine.pending() == 0
    check_stream(pipeline, [images(2)] * 3)


CALLS = ("memcpy_htod_async", "record", "wait_for_event", "memcpy_dtoh_async", "Event.synchronize")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_a_cuda_error_in_any_call_leaks_nothing_and_the_next_call_works(name: str, after: int) -> None:
    for use in (lambda p: p.run(images(3)), lambda p: list(p.stream([images(2, seed=k) for k in range(9)]))):
        pipeline, machine, _ = opened()
        before = machine.live()
        machine.fail_at[name] = machine.calls[name] + after
        try:
            use(pipeline)
        except BackendError as error:
            assert f"cuda:0: {name} failed on purpose" in str(error)  # noqa: PT017
        assert machine.pending() == 0
        assert machine.live() == before
        assert machine.stack == []
        machine.fail_at.clear()
        check_stream(pipeline, [images(2, seed=7)] * 3)
        pipeline.close()
        assert machine.live() == NOTHING


@pytest.mark.parametrize("run", [1, 2, 5])
def test_a_failed_run_leaks_nothing_and_the_next_call_works(run: int) -> None:
    pipeline, machine, engine = opened()
    engine.fail_at = run
    with pytest.raises(BackendError, match="the run failed on purpose"):
        list(pipeline.stream([images(2, seed=k) for k in range(9)]))
    assert machine.pending() == 0
    check_stream(pipeline, [images(2, seed=7)] * 3)


@pytest.mark.parametrize("name", ["Stream", "Event", "mem_alloc", "pagelocked_empty"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_error_while_opening_frees_all_memory_and_the_engine(name: str, call: int) -> None:
    machine = LazyCuda()
    machine.fail_at[name] = call
    engine = LazyEngine(machine, image_shape=SHAPE, classes=CLASSES)
    with pytest.raises(BackendError, match="failed on purpose"):
        trt_pipeline.Pipeline(machine, engine, image_shape=SHAPE, classes=CLASSES, max_batch=2)
    assert machine.live() == NOTHING
    assert machine.stack == []
    assert engine.closed


def test_too_little_memory_is_reported_with_the_request_and_the_option_to_lower() -> None:
    machine = LazyCuda(memory_bytes=3 * 2**20)
    engine = LazyEngine(machine, image_shape=(1024, 1024, 1), classes=CLASSES)
    with pytest.raises(
        BackendError,
        match=r"cuda:0: out of GPU memory: 2\.0 MiB for a slot of up to 2 images, 1 of 3 MiB are free; .*--max-batch",
    ):
        trt_pipeline.Pipeline(machine, engine, image_shape=(1024, 1024, 1), classes=CLASSES, max_batch=2)
    assert machine.live() == NOTHING


def test_a_failing_query_of_the_free_memory_hides_no_error() -> None:
    machine = LazyCuda(memory_bytes=3 * 2**20)
    machine.fail_at["mem_get_info"] = 4  # after those of the three requests, of which the third fails
    engine = LazyEngine(machine, image_shape=(1024, 1024, 1), classes=CLASSES)
    with pytest.raises(BackendError, match=r"out of GPU memory: 2\.0 MiB for a slot of up to 2 images; stop other"):
        trt_pipeline.Pipeline(machine, engine, image_shape=(1024, 1024, 1), classes=CLASSES, max_batch=2)
    assert machine.calls["mem_get_info"] == 4


# Mutations: each synchronisation removed, one at a time.

SYNCHRONISATIONS = {
    "_submit: slot.uploaded.record": "the run does not know when its images have arrived",
    "_submit: lanes.runs.wait_for_event": "the run reads images that have not arrived",
    "_submit: slot.computed.record": "the download does not know when the logits are computed",
    "_submit: lanes.downloads.wait_for_event": "the download reads logits that are not computed",
    "_submit: slot.downloaded.record": "the host does not know when the download is complete",
    "_collect: slot.downloaded.synchronize": "the host reads logits, and uses the slot again, before the download",
    "settle: getattr(self, name).synchronize": "work is in flight when a stream is closed or memory is freed",
    "run: self._settle": "after an error the caller's array is still being read",
    "stream: self._settle": "a stream that is closed early leaves work in flight",
    "close: self._settle": "memory is freed under work in flight",
}
"""Every call in pipeline.py that orders work or waits for it, with its function, and the effect of removing it."""
ORDERING = ("record", "wait_for_event", "synchronize", "_settle")


class _Remove(ast.NodeTransformer):
    """Finds the statements that call a name in ORDERING, and replaces the chosen one by `pass`."""

    def __init__(self, chosen: str | None = None) -> None:
        self.chosen = chosen
        self.found: list[str] = []
        self._function = ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._function = node.name
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ORDERING):
            return node
        name = f"{self._function}: {ast.unparse(call.func)}"
        self.found.append(name)
        return ast.copy_location(ast.Pass(), node) if name == self.chosen else node


def mutated(chosen: str) -> Any:
    """The pipeline module without one of its synchronisations."""
    remover = _Remove(chosen)
    tree = ast.fix_missing_locations(remover.visit(ast.parse(inspect.getsource(trt_pipeline))))
    assert remover.found.count(chosen) == 1
    return compiled(tree)


def compiled(tree: ast.Module) -> Any:
    """A module from that source, instead of the pipeline module."""
    module = ModuleType("rtk.infer.trt.pipeline_mutated")
    module.__package__ = "rtk.infer.trt"
    sys.modules[module.__name__] = module  # dataclasses look up their module
    try:
        exec(compile(tree, module.__name__, "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


def failed_checks(module: Any) -> list[str]:
    """The names of the checks that fail."""
    failed = []
    for check in CHECKS:
        try:
            check(module)
        except (AssertionError, BackendError, CudaError):
            failed.append(check.__name__)
    return failed


def check_answers(module: Any) -> None:
    """Streams and calls give the logits of their own images."""
    for slots in (1, 2, 3):
        pipeline, _, _ = opened(module=module, slots=slots)
        check_stream(pipeline, [images(n, seed=k) for k, n in enumerate((5, 3, 5, 1, 5, 5, 2))])
        for k in range(3):
            assert np.array_equal(pipeline.run(images(2, seed=k)), fake_logits(images(2, seed=k), CLASSES))


def check_early_end(module: Any) -> None:
    """A stream that is closed early leaves nothing in flight."""
    pipeline, machine, _ = opened(module=module, slots=3)
    stream = pipeline.stream([images(2)] * 9)
    next(stream)
    stream.close()
    assert machine.pending() == 0


def check_failed_call(module: Any) -> None:
    """After an error nothing touches the caller's array, on any CUDA stream."""
    for name in ("wait_for_event", "record", "Event.synchronize"):
        for after in (1, 2, 3):
            pipeline, machine, _ = opened(module=module)
            machine.fail_at[name] = machine.calls[name] + after
            try:
                pipeline.run(images(2))
            except BackendError:
                assert machine.pending() == 0


def check_close_in_flight(module: Any) -> None:
    """Close waits before it frees memory."""
    pipeline, machine, _ = opened(module=module, slots=3)
    stream = pipeline.stream([images(2)] * 9)
    next(stream)
    pipeline.close()
    assert machine.pending() == 0
    assert machine.live()["device_bytes"] == 0


CHECKS: tuple[Callable[[Any], None], ...] = (check_answers, check_early_end, check_failed_call, check_close_in_flight)


def test_every_synchronisation_of_the_pipeline_is_listed() -> None:
    finder = _Remove()
    finder.visit(ast.parse(inspect.getsource(trt_pipeline)))
    assert sorted(finder.found) == sorted(SYNCHRONISATIONS)


def test_the_unchanged_pipeline_passes_the_checks() -> None:
    for check in CHECKS:
        check(trt_pipeline)


@pytest.mark.parametrize("chosen", SYNCHRONISATIONS)
def test_without_any_one_synchronisation_a_check_fails(chosen: str) -> None:
    assert failed_checks(mutated(chosen)), f"no check fails: {SYNCHRONISATIONS[chosen]}"


@pytest.mark.parametrize("lane", [0, 1, 2])
def test_settling_needs_each_of_the_streams(lane: int) -> None:
    source, lanes = inspect.getsource(trt_pipeline), ("uploads", "runs", "downloads")
    loop = f"for name in {lanes}:".replace("'", '"')
    assert source.count(loop) == 1
    others = source.replace(loop, f"for name in {(*lanes[:lane], *lanes[lane + 1 :])}:")
    assert "check_failed_call" in failed_checks(compiled(ast.parse(others)))
