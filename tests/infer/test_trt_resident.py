"""Images that stay on the device: the engine reads them without a copy, and nothing leaks."""

from typing import Any

import numpy as np
import pytest
from fakes.lazy_cuda import LazyCuda, LazyEngine, fake_logits
from numpy.typing import NDArray
from rtk.core.card import Input
from rtk.core.errors import BackendError
from rtk.infer.fake import FakeBackend
from rtk.infer.onnx_backend import OnDevice, OnnxBackend
from rtk.infer.trt.pipeline import Pipeline
from rtk.infer.trt.resident import OnGpu

SHAPE, CLASSES, LARGEST = (4, 4, 3), 5, 6


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def opened(count: int = 20, *, memory_bytes: int = 2**30) -> tuple[OnGpu, LazyCuda, Pipeline]:
    machine = LazyCuda(memory_bytes=memory_bytes)
    engine = LazyEngine(machine, image_shape=SHAPE, classes=CLASSES)
    pipeline = Pipeline(machine, engine, image_shape=SHAPE, classes=CLASSES, max_batch=LARGEST, slots=1)
    return pipeline.resident(images(count)), machine, pipeline


def logits_on(machine: LazyCuda, resident: Any, count: int) -> NDArray[np.float32]:
    content = machine.content(int(resident._blocks[1]), count * CLASSES * 4)
    return content.view(np.float32).reshape(count, CLASSES)


def test_a_run_starts_at_the_given_image_and_is_complete_on_return() -> None:
    resident, machine, _ = opened()
    for start, count in ((0, 6), (6, 6), (13, 5), (19, 1)):
        assert resident.run(start, count) == pytest.approx(1e-3)  # LazyCuda: one millisecond per piece of work
        assert machine.pending() == 0
        assert np.array_equal(logits_on(machine, resident, count), fake_logits(images(20)[start : start + count], 5))


def test_images_are_copied_once_and_freed_on_close() -> None:
    resident, machine, pipeline = opened()
    for _ in range(5):
        resident.run(0, 3)
    assert machine.calls["memcpy_htod_async"] == 1
    assert machine.calls["memcpy_dtoh_async"] == 0
    resident.close()
    resident.close()
    pipeline.close()
    assert set(machine.live().values()) == {0}
    assert machine.stack == []


def test_images_may_be_freed_after_their_pipeline() -> None:
    resident, machine, pipeline = opened()
    pipeline.close()
    with pytest.raises(BackendError, match="closed"):
        resident.run(0, 3)
    resident.close()
    assert machine.live()["device_bytes"] == 0


def test_runs_wait_for_the_batches_in_flight_whose_memory_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    resident, _, pipeline = opened()
    handles: list[int] = []
    enqueue = pipeline._engine.enqueue

    def noted(count: int, *, images_at: int, logits_at: int, stream_handle: int) -> None:
        handles.append(stream_handle)
        enqueue(count, images_at=images_at, logits_at=logits_at, stream_handle=stream_handle)

    monkeypatch.setattr(pipeline._engine, "enqueue", noted)
    batches = [images(LARGEST), images(3)]
    logits = pipeline.stream(batches)
    first_NK = next(logits)
    resident.run(0, 4)
    assert np.array_equal(first_NK, fake_logits(batches[0], CLASSES))
    assert np.array_equal(next(logits), fake_logits(batches[1], CLASSES))
    assert len(handles) == 3
    assert len(set(handles)) == 1


def test_too_little_memory_is_reported_and_leaks_nothing() -> None:
    _, machine, pipeline = opened(0)
    used = machine.live()["device_bytes"]
    machine.memory_bytes = used + 20 * 48 + 10  # for the images, not for the logits
    with pytest.raises(BackendError, match="out of GPU memory: 0 MiB of images"):
        pipeline.resident(images(20))
    assert machine.live()["device_bytes"] == used


def test_onnx_runs_on_images_without_a_copy(graph_path: Any) -> None:
    """On the CPU, which ONNX Runtime treats as a device like any other, so that the binding really runs."""
    from rtk.core.probe import probe_images
    from rtk.infer.backend import BackendOptions

    with OnnxBackend(graph_path, BackendOptions(device="cpu")) as backend:
        images_NHWC = probe_images(12, Input(32, 32, 3))
        resident = OnDevice(backend._session, backend.card, images_NHWC, "cpu", 0)
        for start in (0, 4, 8):
            assert resident.run(start, 4) is None
            expected_NK = backend(images_NHWC[start : start + 4])
            np.testing.assert_allclose(resident._logits[4].numpy(), expected_NK, atol=1e-5)
        assert backend.resident(images_NHWC) is None


def test_a_backend_that_computes_in_host_memory_has_no_resident_images() -> None:
    assert FakeBackend().resident(np.zeros((1, 32, 32, 3), np.uint8)) is None
    assert not FakeBackend().overlaps
