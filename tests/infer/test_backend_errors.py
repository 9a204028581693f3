"""Whatever a library raises while a backend runs becomes a BackendError of one line; a caller's own errors do not."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rtk.core.errors import ArtifactError, BackendError
from rtk.core.probe import probe_images
from rtk.infer.backend import Backend, BackendOptions, Resident
from rtk.infer.fake import FakeBackend
from rtk.infer.open_backend import open_backend

CPU = BackendOptions(device="cpu")
MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 15.77 GiB"


class Failing:
    """Takes the place of a model, a session or a request: every use raises the error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def fail(self, *values: Any, **options: Any) -> Any:
        raise self.error

    __call__ = run = infer = run_with_iobinding = fail


class OnDevice(FakeBackend):
    """A fake on a GPU that fails in a stream, and with images that are on the device."""

    def __init__(self, failure: Exception) -> None:
        super().__init__(failure=failure, fail_at_call=1)
        self.device = "cuda:0"

    def _stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        return map(self._run, batches)

    def _resident(self, images_NHWC: NDArray[np.uint8]) -> Resident:
        run = self._run

        class OnGpu(Resident):
            def run(self, start: int, count: int) -> None:
                run(images_NHWC[start : start + count])

        return OnGpu()


def failing(name: str, error: Exception, checkpoint: Path, graph: Path) -> Backend:
    """An open backend whose library raises the error."""
    backend: Any = open_backend(name, checkpoint if name == "torch" else graph, CPU)
    attribute = {"torch": "_model", "onnx": "_session", "openvino": "_request"}[name]
    setattr(backend, attribute, Failing(error))
    return backend  # type: ignore[no-any-return]


def library_error(kind: str) -> Exception:
    if kind == "torch":
        return torch.OutOfMemoryError(MEMORY)
    if kind == "onnx":
        from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

        return EPFail("[ONNXRuntimeError] : 11 : EP_FAIL : CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; line=1")
    return RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:224:\nCUDA out of memory")


@pytest.mark.parametrize("name", ["torch", "onnx", "openvino"])
def test_what_a_library_raises_in_a_call_is_one_line_about_the_batch(
    name: str, checkpoint_path: Path, graph_path: Path
) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    backend = failing(name, library_error(name), checkpoint_path, graph_path)
    with pytest.raises(BackendError) as found:
        backend(probe_images(3, backend.card.input))
    text = str(found.value)
    assert text.startswith(f"{name}: a batch of 3: out of GPU memory")
    assert "\n" not in text
    with pytest.raises(BackendError, match=f"^{name}: a batch of 2: out of GPU memory"):
        list(backend.stream([probe_images(2, backend.card.input)]))


def test_what_a_library_raises_on_images_on_the_device_is_one_line() -> None:
    backend = OnDevice(torch.OutOfMemoryError(MEMORY))
    resident = backend.resident(probe_images(4, backend.card.input))
    assert resident is not None
    resident.run(0, 2)
    with pytest.raises(BackendError, match=r"^fake: a batch of 2: out of GPU memory \(2 GiB requested\)"):
        resident.run(2, 2)


def test_what_a_library_raises_while_images_are_copied_to_the_device_is_one_line() -> None:
    class Full(FakeBackend):
        def _resident(self, images_NHWC: NDArray[np.uint8]) -> Resident:
            raise torch.OutOfMemoryError(MEMORY)

    with pytest.raises(BackendError, match="^fake: 4 images on the device: out of GPU memory"):
        Full().resident(probe_images(4, Full().card.input))


def test_what_a_library_raises_in_an_overlapping_stream_is_one_line_after_the_answers_before_it() -> None:
    backend = OnDevice(torch.OutOfMemoryError(MEMORY))
    images_NHWC = probe_images(6, backend.card.input)
    answers = backend.stream([images_NHWC[:3], images_NHWC[3:]])
    assert len(next(answers)) == 3
    with pytest.raises(BackendError, match="^fake: a batch of a stream: out of GPU memory"):
        next(answers)


@pytest.mark.parametrize("overlapping", [False, True])
def test_an_error_of_the_source_of_a_stream_stays_as_it_is(overlapping: bool) -> None:
    backend = OnDevice(RuntimeError()) if overlapping else FakeBackend()
    images_NHWC = probe_images(2, backend.card.input)

    def source() -> Iterator[NDArray[np.uint8]]:
        yield images_NHWC
        raise RuntimeError("the decoder fails")

    with pytest.raises(RuntimeError, match="^the decoder fails$"):
        list(backend.stream(source()))


def test_a_mistake_of_a_program_is_not_taken_for_an_error_of_a_library() -> None:
    with pytest.raises(TypeError, match="a mistake"):
        FakeBackend(fail_at_call=0, failure=TypeError("a mistake"))(probe_images(2, FakeBackend().card.input))


def test_what_a_library_raises_while_a_model_is_opened_is_one_line(
    checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtk.core.models.model import Model

    def full(*values: object, **options: object) -> None:
        raise torch.OutOfMemoryError(MEMORY)

    monkeypatch.setattr(Model, "to", full)
    with pytest.raises(BackendError, match=r"^torch: .*out of GPU memory \(2 GiB requested\)"):
        open_backend("torch", checkpoint_path, CPU)


def test_what_a_library_raises_during_an_export_is_one_line(
    checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtk.core.artifacts.checkpoint import load_checkpoint
    from rtk.workflow.artifacts import export_graph

    monkeypatch.setattr(torch.onnx, "export", Failing(RuntimeError("first line\nsecond line")).fail)
    with pytest.raises(BackendError, match="a.onnx: not written: the export fails: first line second line$"):
        export_graph(load_checkpoint(checkpoint_path), tmp_path / "a.onnx")


def test_weights_that_do_not_fit_are_one_line_of_limited_length(checkpoint_path: Path) -> None:
    from dataclasses import replace

    from rtk.core.artifacts.checkpoint import load_checkpoint

    loaded = replace(load_checkpoint(checkpoint_path), weights={})
    with pytest.raises(ArtifactError) as found:
        loaded.model()
    assert len(str(found.value)) < 500
    assert "Error(s) in loading" not in str(found.value)
