"""int8 graphs for the backends: each gets the flavor that suits it, and one cache serves different processors."""

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.artifacts.graph import load_graph, set_card
from rtk.core.data.datasets import Dataset, Split
from rtk.core.machine import this_machine
from rtk.core.nvidia import driver
from rtk.export import config as export_config
from rtk.infer import backend as backend_module
from rtk.infer.backend import BackendOptions
from rtk.infer.onnx_backend import OnnxBackend
from rtk.workflow import artifacts
from rtk.workflow.open_backends import _int8_flavor

CPU = BackendOptions(device="cpu", threads=1)


def test_each_backend_gets_its_flavor(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus, onnx_flavor in ((0, "cpu"), (1, "tensorrt")):
        monkeypatch.setattr(driver, "gpu_count", lambda gpus=gpus: gpus)
        assert _int8_flavor("onnx", BackendOptions()) == onnx_flavor
        assert _int8_flavor("onnx", CPU) == "cpu"
        assert _int8_flavor("openvino", BackendOptions()) == "openvino"


def test_processors_with_and_without_vnni_do_not_share_a_graph_in_the_cache(
    checkpoint_path: Path, shapes64: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def write(checkpoint: object, path: Path, **options: object) -> None:
        made.append(path)
        path.write_bytes(b"")

    def read(split: str) -> Split:  # each split its own images
        return Split(shapes64.images_NHWC if split == "train" else 255 - shapes64.images_NHWC, shapes64.labels_N)

    monkeypatch.setattr(artifacts, "_export_int8_graph", write)
    monkeypatch.setattr("rtk.export.int8.calibration.check_images", lambda *images, **options: None)
    dataset = Dataset("shapes", load_checkpoint(checkpoint_path).card.classes, read)
    for features in (("avx2",), ("avx_vnni",)):
        machine = replace(this_machine(), system="Linux x86_64", features=features)
        monkeypatch.setattr(artifacts, "this_machine", lambda machine=machine: machine)
        for flavor in export_config.INT8_FLAVORS:
            artifacts.cached_graph(checkpoint_path, precision="int8", int8_flavor=flavor, dataset=dataset)
    assert len(set(made)) == len(made) == 2 * len(export_config.INT8_FLAVORS)


@pytest.mark.parametrize(
    ("bits", "features", "exact"),
    [(8, ("avx2",), True), (7, ("avx2",), False), (8, ("avx512_vnni",), False)],
)
def test_onnx_runtime_uses_kernels_that_do_not_overflow_where_the_processor_needs_them(
    graph_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, features: tuple[str, ...], exact: bool
) -> None:
    graph, card = load_graph(graph_path)
    set_card(graph, replace(card, precision="int8", notes={"export": {"flavor": "cpu", "weight_bits": bits}}))
    path = tmp_path / "a.onnx"
    path.write_bytes(graph.SerializeToString())
    machine = replace(this_machine(), system="Linux x86_64", features=features)
    monkeypatch.setattr(backend_module, "this_machine", lambda: machine)
    settings: list[str] = []
    session = onnxruntime.InferenceSession

    def spied(graph: object, given: onnxruntime.SessionOptions, **options: object) -> object:
        try:
            settings.append(given.get_session_config_entry("session.x64quantprecision"))
        except RuntimeError:  # it was not set
            settings.append("")
        return session(graph, given, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spied)
    OnnxBackend(path, CPU).close()
    assert settings[-1] == ("1" if exact else "")
