"""The openvino backend keeps the contract and reports the precision that it really computes in."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rtk.core.artifacts.graph import load_graph, set_card
from rtk.core.errors import ArtifactError, BackendError
from rtk.core.machine import this_machine
from rtk.core.probe import probe_images
from rtk.infer import backend as backend_module
from rtk.infer.backend import Backend, BackendOptions
from rtk.infer.open_backend import open_backend
from rtk.infer.openvino_backend import capabilities, openvino  # as rtk imports it, without its telemetry

CPU = BackendOptions(device="cpu", threads=1)
CAPABLE = capabilities(openvino.Core())


@pytest.fixture(scope="module")
def backend(graph_path: Path) -> Backend:
    return open_backend("openvino", graph_path, CPU)


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_every_image_gets_the_logits_of_the_reference(backend: Backend, checkpoint_path: Path, count: int) -> None:
    images_NHWC = probe_images(count, backend.card.input)
    expected_NK = open_backend("torch", checkpoint_path, CPU)(images_NHWC)
    logits_NK = backend(images_NHWC)
    assert logits_NK.dtype == np.float32
    np.testing.assert_allclose(logits_NK, expected_NK, atol=1e-4)


def test_the_next_batch_does_not_change_earlier_answers(backend: Backend) -> None:
    images_NHWC = probe_images(8, backend.card.input)
    first_NK = backend(images_NHWC[:4])
    kept_NK = first_NK.copy()
    backend(images_NHWC[4:])
    np.testing.assert_array_equal(first_NK, kept_NK)


def test_no_images_give_no_answers_and_images_of_another_type_are_rejected(backend: Backend) -> None:
    assert backend(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, 10)
    with pytest.raises(BackendError, match=r"openvino: images float32 .*expected uint8 \(N, 32, 32, 3\)"):
        backend(np.zeros((2, 32, 32, 3), np.float32))  # type: ignore[arg-type]


def test_an_fp32_graph_is_computed_in_fp32_even_where_bf16_is_faster(backend: Backend) -> None:
    assert backend._model.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert backend.runs_on.endswith("1 thread, fp32")
    assert backend.runs_on.startswith(f"OpenVINO {openvino.__version__.split('-')[0]}, ")
    assert backend.device == "cpu"


def test_a_bf16_hint_is_accepted_only_if_the_processor_supports_it(graph_path: Path) -> None:
    options = BackendOptions(device="cpu", threads=1, hint="bf16")
    if "BF16" in CAPABLE:
        opened = open_backend("openvino", graph_path, options)
        assert opened.runs_on.endswith("bf16 by a hint to its runtime")
        assert opened.precision == "bf16"
    else:
        with pytest.raises(BackendError, match="openvino: bf16: this processor computes only in fp32"):
            open_backend("openvino", graph_path, options)


@pytest.mark.parametrize("limit", ["AVX2", "avx512_core"])
def test_what_the_environment_forbids_the_kernels_is_no_capability(
    in_new_process: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """OpenVINO claims bf16 all the same, and then crashes; its int8 kernels overflow as on a processor without VNNI."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    printed = in_new_process(
        "from rtk.core.machine import this_machine\n"
        "from rtk.infer.openvino_backend import capabilities, openvino, processor_computes_in\n"
        "print(capabilities(openvino.Core()), processor_computes_in('bf16'), *this_machine().features)"
    )
    assert "FP32" in printed
    assert not {"BF16", "FP16", "True", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8"} & set(
        re.findall(r"\w+", printed)
    )


def test_a_hint_without_meaning_is_rejected(graph_path: Path) -> None:
    with pytest.raises(BackendError, match="openvino: a hint of int8 for a graph in fp32: expected fp32, fp16 or bf16"):
        open_backend("openvino", graph_path, BackendOptions(device="cpu", hint="int8"))


def test_an_int8_graph_that_would_overflow_is_rejected(
    graph_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of eight bits overflow in int8 kernels of x86 processors without VNNI, weights of seven do not."""
    graph, card = load_graph(graph_path)
    paths = {bits: tmp_path / f"{bits}.onnx" for bits in (7, 8)}
    for bits, path in paths.items():
        set_card(graph, replace(card, precision="int8", notes={"export": {"flavor": "cpu", "weight_bits": bits}}))
        path.write_bytes(graph.SerializeToString())
    for features in (("avx2", "avx512_vnni"), ("avx2",)):
        machine = replace(this_machine(), system="Linux x86_64", features=features)
        monkeypatch.setattr(backend_module, "this_machine", lambda machine=machine: machine)
        open_backend("openvino", paths[7], CPU)
        if "avx512_vnni" in features:
            open_backend("openvino", paths[8], CPU)
        else:
            with pytest.raises(BackendError, match=r"8\.onnx: its int8 weights have 8 bits, .*--int8-weight-bits 7"):
                open_backend("openvino", paths[8], CPU)


def test_a_gpu_is_rejected(graph_path: Path) -> None:
    with pytest.raises(BackendError, match="openvino: --device cuda:0: it runs on the CPU only"):
        open_backend("openvino", graph_path, BackendOptions(device="cuda:0"))


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_graph_is_one_clear_error(graph_path: Path, tmp_path: Path, keep: float) -> None:
    content = graph_path.read_bytes()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(ArtifactError, match=r"broken\.onnx: "):
        open_backend("openvino", broken, CPU)


def test_the_missing_package_is_named(graph_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "rtk.infer.openvino_backend", raising=False)
    with pytest.raises(BackendError, match="openvino is not installed: pip install openvino"):
        open_backend("openvino", graph_path, CPU)


def test_a_second_close_does_nothing(graph_path: Path) -> None:
    opened = open_backend("openvino", graph_path, CPU)
    opened.close()
    opened.close()
