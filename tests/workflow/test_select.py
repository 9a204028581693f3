"""The backend that is chosen on a CPU: openvino only if this graph passed the parity gate with it."""

import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from rtk.bench.measure.cell import Cell
from rtk.bench.parity.verdict import Check, Verdict
from rtk.core.artifacts import parity_cache
from rtk.core.artifacts.parity_cache import forget_parity, parity_is_known, remember_parity
from rtk.core.errors import BackendError, OutputError
from rtk.infer.trt import preflight as trt_preflight
from rtk.workflow import select
from rtk.workflow.benchmark import is_faster, note_openvino
from rtk.workflow.models import find_model
from rtk.workflow.open_backends import BenchModel
from rtk.workflow.select import choose_backend


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**options: object) -> None:
        raise BackendError("trt: no GPU")

    monkeypatch.setattr(trt_preflight, "check_machine", refuse)
    monkeypatch.setattr(select, "gpu_count", lambda: 0)
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))


def test_openvino_is_chosen_once_its_parity_is_known(graph_path: Path) -> None:
    found = find_model(str(graph_path))
    assert choose_backend(found) == "onnx"
    remember_parity(graph_path, "openvino")
    assert choose_backend(found) == "openvino"
    assert choose_backend(found, on_cpu=True) == "openvino"


def test_a_forgotten_parity_is_not_known(graph_path: Path) -> None:
    remember_parity(graph_path, "openvino")
    forget_parity(graph_path, "openvino")
    forget_parity(graph_path, "openvino")
    forget_parity(graph_path, "a-package-that-nobody-has")
    assert not parity_is_known(graph_path, "openvino")


def test_the_faster_of_two_backends_is_decided_at_the_largest_common_batch() -> None:
    cells = [
        Cell(name, batch, rounds=[[seconds]] if seconds else [])
        for name, batch, seconds in [("a", 1, 0.1), ("b", 1, 0.2), ("a", 64, 0.4), ("b", 64, 0.3), ("a", 256, 0.1)]
    ]
    assert is_faster(cells, "a", "b") is False
    assert is_faster(cells, "b", "a") is True
    assert is_faster(cells[:2], "a", "b") is True
    assert is_faster(cells[:1], "a", "b") is None


@pytest.mark.parametrize(
    ("passed", "requirement", "openvino_s", "before", "after"),
    [
        (True, "default", 0.1, False, True),  # parity, and not slower
        (True, "default", 0.3, True, False),  # slower than onnx
        (False, "default", 0.1, True, False),  # no parity
        (True, "5", 0.1, False, False),  # the user's margin proves too little
        (True, "default", None, False, False),  # only onnx was measured
        (True, "default", None, True, True),
    ],
)
def test_bench_notes_openvino_only_after_parity_and_a_comparison_with_onnx(
    graph_path: Path, passed: bool, requirement: str, openvino_s: float | None, before: bool, after: bool
) -> None:
    if before:
        remember_parity(graph_path, "openvino")
    cells = [Cell("onnx", 64, rounds=[[0.2]])]
    if openvino_s is not None:
        cells.append(Cell("openvino", 64, rounds=[[openvino_s]]))
    verdict = Verdict("openvino", "fp32", (Check("accuracy kept", passed, ""),), 0.0, 0.0, 0.05)
    report = SimpleNamespace(cells=cells, verdicts=[verdict])
    note_openvino(report, BenchModel(find_model(str(graph_path))), requirement=requirement)  # type: ignore[arg-type]
    assert parity_is_known(graph_path, "openvino") == after


def test_the_parity_of_another_graph_is_not_known(graph_path: Path, tmp_path: Path) -> None:
    remember_parity(graph_path, "openvino")
    changed = Path(shutil.copy(graph_path, tmp_path / "changed.onnx"))
    changed.write_bytes(changed.read_bytes() + b"\0")
    assert not parity_is_known(changed, "openvino")


def test_the_parity_of_another_version_is_not_known(graph_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_parity(graph_path, "openvino")
    monkeypatch.setattr(metadata, "version", lambda package: "2099.1")
    assert not parity_is_known(graph_path, "openvino")


def test_the_parity_of_a_package_that_is_not_installed_is_not_known(graph_path: Path) -> None:
    assert not parity_is_known(graph_path, "a-package-that-nobody-has")


def test_onnx_is_chosen_on_a_machine_with_a_gpu(graph_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_parity(graph_path, "openvino")
    monkeypatch.setattr(select, "gpu_count", lambda: 1)
    assert choose_backend(find_model(str(graph_path))) == "onnx"
    assert choose_backend(find_model(str(graph_path)), on_cpu=True) == "openvino"


def test_a_parity_that_cannot_be_recorded_costs_one_line(
    graph_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: str) -> None:
        raise OutputError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(parity_cache, "write_whole", full)
    remember_parity(graph_path, "openvino")
    assert not parity_is_known(graph_path, "openvino")
    (line,) = caplog.messages
    assert "No space left on device; " in line
    assert "parity gate is not kept for the next time; set RTK_CACHE_DIR" in line


def test_a_parity_is_recorded_where_the_cache_cannot_be_written(
    graph_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "file"))
    remember_parity(graph_path, "openvino")
    assert parity_is_known(graph_path, "openvino")
    forget_parity(graph_path, "openvino")
    assert not parity_is_known(graph_path, "openvino")
