"""What tests do with the trt pipeline on the fake CUDA driver; also for processes of their own."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.driver.host_engine import FakeDriver, HostEngine, HostMachine
from fakes.engine_files import INFO, PLAN
from fakes.lazy_cuda import fake_logits
from fakes.tensorrt_stand_in import CLASSES as BACKEND_CLASSES
from fakes.tensorrt_stand_in import SIZE, Script, Stage
from numpy.typing import NDArray
from rtk.core.artifacts.engine import write_engine
from rtk.core.errors import BackendError
from rtk.infer.backend import Backend, BackendOptions, Resident
from rtk.infer.open_backend import open_backend
from rtk.infer.trt.cuda_graphs import CudaGraphs, RecordedRuns
from rtk.infer.trt.pipeline import Pipeline
from rtk.infer.trt.pycuda_driver import pycuda_driver

SHAPE, CLASSES, LARGEST = (4, 4, 3), 10, 8
REGULAR = replace(INFO, gpu="Fake GPU 0")
ENGINES = {
    "tensorrt 11": REGULAR,
    "tensorrt-rtx": replace(
        REGULAR, flavor="tensorrt-rtx", version="1.7.1.116", gpu="", compute_capability="", targets=("8.0", "8.9")
    ),
}


def left(fake: FakeDriver) -> dict[str, int]:
    """What is alive in the driver, but for retained contexts."""
    return {name: count for name, count in fake.alive().items() if count and name != "retained contexts"}


def images(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Random images."""
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def new_pipeline(*, graphs: bool = False, device: int = 0) -> Pipeline:
    """A pipeline with an engine on the fake driver."""
    engine = HostEngine(image_shape=SHAPE, classes=CLASSES)
    recorded = RecordedRuns(engine, CudaGraphs()) if graphs else engine
    return Pipeline(
        pycuda_driver(), recorded, image_shape=SHAPE, classes=CLASSES, max_batch=LARGEST, device_index=device
    )


def close(opened: Pipeline | Resident | Backend) -> None:
    """Close; if no context could be made current, nothing was closed, and a second call closes."""
    try:
        opened.close()
    except BackendError:
        opened.close()
        raise


def single_calls(*, graphs: bool = False) -> None:
    """Open, run three batches, close."""
    pipeline = new_pipeline(graphs=graphs)
    try:
        for count in (LARGEST, 3, LARGEST):
            assert np.array_equal(pipeline.run(images(count)), fake_logits(images(count), CLASSES))
    finally:
        close(pipeline)


def one_stream(*, graphs: bool = False) -> None:
    """Open, stream batches of several sizes, one of them empty, close."""
    batches = [images(count, seed=seed) for seed, count in enumerate((8, 8, 5, 0, 8, 1, 8, 8, 2))]
    pipeline = new_pipeline(graphs=graphs)
    try:
        for batch, logits_NK in zip(batches, pipeline.stream(iter(batches)), strict=True):
            assert np.array_equal(logits_NK, fake_logits(batch, CLASSES))
    finally:
        close(pipeline)


def late_stream(*, graphs: bool = False) -> None:
    """Open a stream, close its pipeline while batches are in flight, and then the stream."""
    pipeline = new_pipeline(graphs=graphs)
    logits = pipeline.stream(images(8, seed=seed) for seed in range(4))
    try:
        next(logits)
    finally:
        close(pipeline)
    logits.close()  # type: ignore[attr-defined]


def resident_images(*, graphs: bool = False) -> None:
    """Open, copy images to the GPU, run on them, free them, close."""
    pipeline = new_pipeline(graphs=graphs)
    try:
        there = pipeline.resident(images(20))
        try:
            assert [0 <= there.run(start, 8) < 1 for start in (0, 12, 0)] == [True, True, True]
        finally:
            close(there)
    finally:
        close(pipeline)


@functools.cache
def _engine_on_stand_in(kind: str) -> Path:
    """Install a stand-in for TensorRT for the life of the process, and return an engine for it."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    machine = HostMachine()
    Stage(pytest.MonkeyPatch()).tensorrt(kind, Script(machine=machine, log=machine.refused))
    path = Path(folder) / "small.engine"
    write_engine(path, PLAN, ENGINES[kind])
    return path


def whole_backend(kind: str, *, graphs: bool = False) -> None:
    """Open an engine with a stand-in for TensorRT; single calls, a stream, resident images; close."""
    backend = open_backend("trt", _engine_on_stand_in(kind), BackendOptions(device="cuda", cuda_graphs=graphs))
    try:
        _use(backend)
    finally:
        close(backend)


def _use(backend: Backend) -> None:
    batches = [np.random.default_rng(n).integers(0, 256, (n, *SIZE.shape), dtype=np.uint8) for n in (16, 5, 16)]
    for batch in batches:
        assert np.array_equal(backend(batch), fake_logits(batch, BACKEND_CLASSES))
    for batch, logits_NK in zip(batches, backend.stream(iter(batches)), strict=True):
        assert np.array_equal(logits_NK, fake_logits(batch, BACKEND_CLASSES))
    there = backend.resident(batches[0])
    try:
        assert 0 <= there.run(0, 8) < 1
    finally:
        close(there)


SCENARIOS: dict[str, Callable[[], None]] = {
    "single calls": single_calls,
    "a stream": one_stream,
    "resident images": resident_images,
    "single calls by graphs": lambda: single_calls(graphs=True),
    "resident images by graphs": lambda: resident_images(graphs=True),
    "a stream by graphs": lambda: one_stream(graphs=True),
    "a stream that ends after its pipeline": late_stream,
    "the backend": lambda: whole_backend("tensorrt 11"),
    "the backend by graphs": lambda: whole_backend("tensorrt 11", graphs=True),
    "the backend for RTX": lambda: whole_backend("tensorrt-rtx"),
}


def outcome(scenario: Callable[[], None]) -> BackendError | None:
    """The error of a scenario; its traceback is kept, as a caller that reports it later does."""
    try:
        scenario()
    except BackendError as error:
        return error
    return None
