"""Errors about a model give advice that works when it is followed."""

import hashlib
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.engine_files import INFO, PLAN
from rtk.core.artifacts.engine import EngineInfo, rebuild_command, write_engine
from rtk.core.errors import ArtifactError, BackendError, UsageError
from rtk.core.zoo import zoo_card, zoo_file
from rtk.infer.backend import BackendOptions
from rtk.infer.open_backend import open_backend
from rtk.workflow.artifacts import artifact_for
from rtk.workflow.export_model import ExportConfig, export_model
from rtk.workflow.models import ModelFiles, find_model
from rtk.workflow.select import open_model

ZOO = "resnet20v1-cifar10"


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtk.infer.trt.preflight.gpu_count", lambda: 0)
    monkeypatch.setattr("rtk.infer.trt.preflight.no_gpu_reason", lambda: "no NVIDIA driver")


def engine_of(folder: Path, *, graph: Path | None = None, checkpoint_sha256: str = "c" * 64) -> Path:
    """An engine that was made from the graph, or from the checkpoint with that sha256."""
    card = replace(INFO.card, checkpoint_sha256=checkpoint_sha256)
    info: EngineInfo = replace(INFO, card=card)
    if graph is not None:
        info = replace(info, graph_sha256=hashlib.sha256(graph.read_bytes()).hexdigest())
    write_engine(folder / "a.engine", PLAN, info)
    return folder / "a.engine"


def test_without_a_gpu_the_error_about_an_engine_names_the_graph_that_runs_instead(
    graph_path: Path, tmp_path: Path
) -> None:
    graph = tmp_path / "another name.onnx"
    graph.write_bytes(graph_path.read_bytes())
    (tmp_path / "aaa.onnx").write_bytes(b"another graph")
    engine = engine_of(tmp_path, graph=graph)
    advice = f"; without a GPU name {graph} instead of it"
    with pytest.raises(BackendError) as error:
        open_model(str(engine))
    assert str(error.value) == f"trt: no NVIDIA driver{advice}"
    with open_model(str(graph), backend="onnx") as followed:
        assert followed.name == "onnx"


def test_without_a_gpu_the_error_about_an_engine_of_the_zoo_names_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = zoo_file(ZOO, ".pt")
    engine = engine_of(tmp_path, checkpoint_sha256=zoo_card(ZOO).checkpoint_sha256)
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() == zoo_card(ZOO).checkpoint_sha256
    with pytest.raises(BackendError) as error:
        open_backend("trt", engine, BackendOptions(device="cpu"))
    assert str(error.value).endswith(f"TensorRT runs on NVIDIA GPUs only; name {checkpoint} instead of it")


def test_without_its_source_the_error_about_an_engine_says_what_to_look_for(tmp_path: Path) -> None:
    engine = engine_of(tmp_path)
    with pytest.raises(BackendError, match=r"without a GPU name the graph or checkpoint that it was made from$"):
        open_model(str(engine))


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_backend_that_refuses_an_engine_names_what_it_runs(backend: str, graph_path: Path, tmp_path: Path) -> None:
    engine = engine_of(tmp_path, graph=graph_path)
    with pytest.raises(ArtifactError, match="checkpoints and graphs: name the graph or checkpoint that it was made"):
        artifact_for(backend, find_model(str(engine)))
    (tmp_path / "b.onnx").write_bytes(graph_path.read_bytes())
    with pytest.raises(ArtifactError) as error:
        artifact_for(backend, find_model(str(engine)))
    assert str(error.value).endswith(f"checkpoints and graphs: name {tmp_path / 'b.onnx'} instead of it")


def test_a_command_without_a_reference_option_is_not_told_to_use_it(graph_path: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.onnx"
    lone.write_bytes(graph_path.read_bytes())
    with pytest.raises(ArtifactError) as error:
        artifact_for("torch", ModelFiles("lone", graph=lone))
    assert str(error.value).endswith("put it there, or name it instead of this file")


def test_the_command_that_builds_an_engine_again_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tmp_path / "my models" / "small.fp16.engine"
    assert shlex.split(rebuild_command(engine)) == [
        "rtk", "export", "--trt", str(tmp_path / "my models" / "small.fp16.onnx"),
    ]  # fmt: skip
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))
    assert rebuild_command(tmp_path / "cache" / "opened" / "a.engine").startswith("rtk cache clear")


def test_an_artifact_that_is_judged_by_bench_gets_the_whole_command(tmp_path: Path) -> None:
    engine = tmp_path / "a b.engine"
    write_engine(engine, PLAN, INFO)
    with pytest.raises(UsageError) as error:
        export_model(ExportConfig((str(engine),), triton=tmp_path / "models", require_parity="1"))
    command = shlex.split(str(error.value).split("run: ")[1])
    assert command == ["rtk", "bench", str(engine), "--require-parity", "1"]


def test_a_library_that_is_not_installed_is_named_with_its_package(
    graph_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "rtk.infer.onnx_backend", raising=False)
    with pytest.raises(BackendError, match="^onnx: onnxruntime is not installed: pip install onnxruntime$"):
        open_backend("onnx", graph_path)


def test_a_library_that_cannot_be_loaded_is_one_line_with_the_command(
    graph_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    real = builtins.__import__

    def broken(name: str, *values: object, **options: object) -> object:
        if name == "onnxruntime":
            raise ImportError("libonnxruntime.so.1: cannot open shared object file:\nNo such file or directory")
        return real(name, *values, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", broken)
    monkeypatch.delitem(sys.modules, "rtk.infer.onnx_backend", raising=False)
    with pytest.raises(BackendError) as error:
        open_backend("onnx", graph_path)
    assert str(error.value) == (
        "onnx: onnxruntime cannot be loaded (libonnxruntime.so.1: cannot open shared object file: No such file or "
        "directory); install it again: pip install --force-reinstall onnxruntime"
    )
