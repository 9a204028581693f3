"""Every backend keeps the contract."""

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.card import Input
from rtk.core.errors import ArtifactError, BackendError, UnknownNameError
from rtk.core.probe import probe_images
from rtk.infer.backend import Backend, BackendOptions
from rtk.infer.fake import FakeBackend
from rtk.infer.open_backend import open_backend

CPU = BackendOptions(device="cpu")


@pytest.fixture(params=["fake", "torch", "onnx"])
def backend(request: pytest.FixtureRequest, checkpoint_path: Path, graph_path: Path) -> Backend:
    """Each backend that runs on every machine."""
    match request.param:
        case "fake":
            return FakeBackend()
        case "torch":
            return open_backend("torch", checkpoint_path, CPU)
        case _:
            return open_backend("onnx", graph_path, CPU)


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_an_image_gets_the_same_logits_in_a_batch_and_alone(backend: Backend, count: int) -> None:
    images_NHWC = probe_images(count, backend.card.input)
    together_NK = backend(images_NHWC)
    assert together_NK.shape == (count, 10)
    assert together_NK.dtype == np.float32
    alone_NK = np.concatenate([backend(images_NHWC[i : i + 1]) for i in range(count)])
    np.testing.assert_allclose(together_NK, alone_NK, atol=1e-4)


def test_an_empty_batch_gives_no_logits(backend: Backend) -> None:
    assert backend(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, 10)


def test_a_view_with_strides_gives_the_logits_of_its_copy(backend: Backend) -> None:
    images_NHWC = probe_images(8, backend.card.input)
    np.testing.assert_array_equal(backend(images_NHWC[::-2]), backend(images_NHWC[::-2].copy()))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((2, 28, 28, 3), np.uint8),
    ],
)
def test_images_of_another_type_or_shape_are_rejected_with_the_expected_ones(
    backend: Backend, images: NDArray[np.generic]
) -> None:
    with pytest.raises(BackendError, match=r"expected uint8 \(N, 32, 32, 3\)"):
        backend(images)  # type: ignore[arg-type]


def test_a_stream_gives_every_batch_in_order(backend: Backend) -> None:
    images_NHWC = probe_images(50, backend.card.input)
    sizes = [1, 20, 3, 20, 6]
    batches = np.split(images_NHWC, np.cumsum(sizes)[:-1])
    streamed = list(backend.stream(batches))
    assert [len(logits) for logits in streamed] == sizes
    np.testing.assert_allclose(np.concatenate(streamed), backend(images_NHWC), atol=1e-4)


def test_a_second_close_does_nothing(backend: Backend) -> None:
    backend.close()
    backend.close()


def test_device_buffers_give_the_logits_of_a_plain_run_for_all_batch_sizes_in_any_order(graph_path: Path) -> None:
    """The onnx backend uses them on a GPU; ONNX Runtime can also allocate them in the CPU's memory."""
    from rtk.infer.onnx_backend import DeviceBuffers, open_session

    backend = open_backend("onnx", graph_path, CPU)
    buffers = DeviceBuffers(open_session(graph_path, CPU), backend.card, "cpu", 0)
    kept = []
    for round_, count in enumerate([3, 1, 3, *range(1, 2 * DeviceBuffers.KEPT), 3]):
        images_NHWC = probe_images(count, backend.card.input, seed=round_)
        logits_NK = buffers.run(images_NHWC)
        kept.append((logits_NK, backend(images_NHWC)))
    for logits_NK, expected_NK in kept:  # the caller owns the answers of earlier calls
        np.testing.assert_allclose(logits_NK, expected_NK, atol=1e-5)


def test_onnx_gives_the_logits_of_its_checkpoint(checkpoint_path: Path, graph_path: Path) -> None:
    reference, candidate = open_backend("torch", checkpoint_path, CPU), open_backend("onnx", graph_path, CPU)
    images_NHWC = probe_images(100, reference.card.input, seed=5)
    np.testing.assert_allclose(candidate(images_NHWC), reference(images_NHWC), atol=1e-4)


def test_the_fake_classifies_by_the_sum_of_the_bytes() -> None:
    images_NHWC = np.zeros((2, 4, 4, 1), np.uint8)
    images_NHWC[1, 0, 0, 0] = 13
    logits_NK = FakeBackend(size=Input(4, 4, 1))(images_NHWC)
    assert logits_NK.argmax(axis=1).tolist() == [0, 3]


def test_the_fake_fails_only_at_the_chosen_call() -> None:
    backend, images_NHWC = FakeBackend(fail_at_call=1), probe_images(2, Input(32, 32, 3))
    backend(images_NHWC)
    with pytest.raises(BackendError, match="failed on purpose at call 1"):
        backend(images_NHWC)
    assert len(backend(images_NHWC)) == 2


def test_a_batch_over_the_maximum_is_rejected() -> None:
    with pytest.raises(BackendError, match="fake: a batch of 5, expected at most 4"):
        FakeBackend(max_batch=4)(probe_images(5, Input(32, 32, 3)))


def test_an_unknown_backend_lists_the_known_ones(graph_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="backend 'onxx' is unknown; did you mean onnx"):
        open_backend("onxx", graph_path)


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_a_missing_gpu_is_an_error_without_a_fallback(name: str, checkpoint_path: Path, graph_path: Path) -> None:
    from rtk.core.nvidia.driver import gpu_count

    device = f"cuda:{gpu_count()}"
    with pytest.raises(BackendError, match=f"{name}: --device {device}: "):
        open_backend(name, checkpoint_path if name == "torch" else graph_path, BackendOptions(device=device))


def test_a_graph_of_another_program_is_rejected(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(
        graph, producer_name="elsewhere", opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ArtifactError, match="an ONNX file of elsewhere, without a card from rtk; to make it a"):
        open_backend("onnx", tmp_path / "foreign.onnx", CPU)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_graph_is_one_clear_error(graph_path: Path, tmp_path: Path, keep: float) -> None:
    content = graph_path.read_bytes()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(ArtifactError, match="broken.onnx: "):
        open_backend("onnx", broken, CPU)


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing.onnx: no such graph"):
        open_backend("onnx", tmp_path / "nothing.onnx", CPU)


def test_serving_a_graph_imports_neither_torch_nor_onnx(graph_path: Path, in_new_process: Callable[[str], str]) -> None:
    loaded = in_new_process(
        "import sys; from pathlib import Path\n"
        "from rtk.infer.backend import BackendOptions\n"
        "from rtk.infer.open_backend import open_backend\n"
        f"open_backend('onnx', Path({str(graph_path)!r}), BackendOptions(device='cpu'))\n"
        "print(sorted({'torch', 'onnx', 'tensorrt', 'pycuda'} & set(sys.modules)))"
    )
    assert loaded.strip() == "[]"


def test_a_graph_without_a_kernel_in_onnx_runtime_is_a_one_line_error(checkpoint_path: Path, tmp_path: Path) -> None:
    """The CPU provider of ONNX Runtime has no bf16 convolution."""
    from rtk.workflow.artifacts import export_graph

    graph = export_graph(load_checkpoint(checkpoint_path), tmp_path / "half.onnx", precision="bf16").path
    with pytest.raises(
        BackendError, match="ONNX Runtime has no Conv for the data types of this graph on this device; use"
    ):
        open_backend("onnx", graph, BackendOptions(device="cpu"))


FAULTS = """
import resource, numpy as np
from rtk.core.process_settings import own_process
own_process()
from pathlib import Path
from rtk.infer.backend import BackendOptions
from rtk.infer.open_backend import open_backend
images = np.zeros((256, 32, 32, 3), np.uint8)
with open_backend("torch", Path({path!r}), BackendOptions(device="cpu", threads=1)) as backend:
    for _ in range(8):
        backend(images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        backend(images)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc: the test is about its allocator")
def test_torch_on_a_cpu_does_not_request_the_same_memory_again(
    checkpoint_path: Path, in_new_process: Callable[[str], str]
) -> None:
    """A tensor of 256 x 16 x 32 x 32 floats has 4,096 pages, and each of the five calls allocates several such tensors.
    With glibc's defaults, the system provides all of these pages again in every call."""
    assert int(in_new_process(FAULTS.format(path=str(checkpoint_path)))) < 5 * 4_096
