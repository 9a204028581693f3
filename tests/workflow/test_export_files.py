"""Exports are named after the model, and replace no file of another model."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.engine_files import INFO, PLAN
from rtk.core.artifacts.engine import Profile, write_engine
from rtk.core.artifacts.graph import load_graph, set_card
from rtk.core.errors import UsageError
from rtk.export.triton import triton_from_artifact
from rtk.workflow import export_model as module
from rtk.workflow.export_files import export_files
from rtk.workflow.export_model import ExportConfig, export_model, write_triton_repository
from rtk.workflow.models import ModelFiles, find_model

OURS, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def graph_of(graph_path: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a graph which says that it comes from the checkpoint with this SHA-256."""

    def write(name: str, sha256: str) -> Path:
        graph, card = load_graph(graph_path)
        set_card(graph, replace(card, name="my net-s1", checkpoint_sha256=sha256))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(graph.SerializeToString())
        return path

    return write


def named(checkpoint: Path, **changes: Any) -> tuple[str, ...]:
    """The names of graph, engine and Triton model of an export."""
    options = {"name": None, "precision": None, "trt": True, "triton": Path("models"), **changes}
    files = export_files(find_model(str(checkpoint)), Path("out"), **options)
    return tuple(str(path) for path in (files.graph, files.engine, files.triton))


@pytest.mark.parametrize(
    ("file", "options", "name"),
    [
        ("best.pt", {}, "resnet8v1-cifar10"),
        ("last.pt", {"precision": "fp16"}, "resnet8v1-cifar10.fp16"),
        ("best.pt", {"name": "pets"}, "pets"),
        ("best.pt", {"name": "best"}, "best"),
        ("mymodel.pt", {}, "mymodel"),
        ("mymodel.pt", {"precision": "int8"}, "mymodel.int8"),
        ("mymodel.pt", {"name": "pets", "precision": "int8"}, "pets.int8"),
    ],
)
def test_files_are_named_after_the_card_of_a_run_the_file_or_as_chosen(
    checkpoint_path: Path, tmp_path: Path, file: str, options: dict[str, Any], name: str
) -> None:
    shutil.copy(checkpoint_path, tmp_path / file)
    assert named(tmp_path / file, **options) == (f"out/{name}.onnx", f"out/{name}.engine", f"models/{name}")


def test_an_engine_has_the_name_of_the_given_graph_and_triton_never_that_of_any_run(
    graph_of: Callable[..., Path],
) -> None:
    best, mine = graph_of("best.onnx", OURS), graph_of("my-net.onnx", OURS)
    assert named(mine) == ("None", "out/my-net.engine", "models/my-net")
    assert named(best) == ("None", "out/best.engine", "models/my_net-s1")
    assert named(best, trt=False) == ("None", "None", "models/my_net-s1")
    assert named(best, name="pets") == ("None", "out/pets.engine", "models/pets")


def test_files_of_the_same_model_are_replaced_and_those_of_another_refused(
    graph_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = find_model(str(graph_of("net.onnx", OURS)))
    out = tmp_path / "out"
    files = export_files(source, out, name="x", precision=None, trt=True, triton=out / "models")
    files.check(source)
    for sha256, refused in ((OURS, False), (OTHER, True)):
        write_engine(_made(out / "x.engine"), PLAN, replace(INFO, card=replace(INFO.card, checkpoint_sha256=sha256)))
        if refused:
            message = (
                rf"^{out}/x\.engine: holds another model, .* of checkpoint bbbbbbbbbbbb\.\.\., not aaaaaaaaaaaa\.\.\.; "
                "choose another name with --name, or replace it with --force$"
            )
            with pytest.raises(UsageError, match=message):
                files.check(source)
        else:
            files.check(source)
    (out / "x.engine").write_bytes(b"of somebody else")
    (out / "x.engine.json").unlink()
    with pytest.raises(UsageError, match=r"x\.engine: exists, and is damaged or not of rtk; choose another name"):
        files.check(source)


def test_a_model_folder_of_triton_is_replaced_only_by_the_same_model(
    graph_of: Callable[..., Path], tmp_path: Path
) -> None:
    ours, other = graph_of("ours/net.onnx", OURS), graph_of("other/net.onnx", OTHER)
    config = ExportConfig((str(ours),), triton=tmp_path / "models")
    folder = write_triton_repository(config, [])
    assert write_triton_repository(config, []) == folder == tmp_path / "models" / "net"
    second = replace(config, models=(str(other),))
    with pytest.raises(UsageError, match=r"models/net: holds another model, of checkpoint aaaaaaaaaaaa\.\.\., not bbb"):
        write_triton_repository(second, [])
    assert write_triton_repository(replace(second, name="net2"), []) == tmp_path / "models" / "net2"
    assert write_triton_repository(replace(second, force=True), []) == folder
    assert OTHER in (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text('name: "net"\n')
    with pytest.raises(UsageError, match=r"models/net: exists, and does not name the checkpoint of its model; choose"):
        write_triton_repository(config, [])


def test_a_triton_folder_of_an_engine_names_the_checkpoint_too(graph_of: Callable[..., Path], tmp_path: Path) -> None:
    write_engine(tmp_path / "x.engine", PLAN, replace(INFO, card=replace(INFO.card, checkpoint_sha256=OURS)))
    triton_from_artifact(tmp_path / "x.engine", tmp_path / "models", profile=Profile(1, 1))
    source = find_model(str(graph_of("x.onnx", OURS)))
    files = export_files(source, tmp_path, name=None, precision=None, trt=False, triton=tmp_path / "models")
    files.check(source)
    assert (files.triton, files.engine) == (tmp_path / "models" / "x", None)


@pytest.mark.parametrize("options", [{}, {"require_parity": "1"}, {"triton": Path("models")}])
def test_another_models_file_is_refused_before_any_work(
    graph_of: Callable[..., Path],
    checkpoint_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    for step in ("_open_gate", "_write_graph", "_build_engine", "make_writable_folder", "make_folder"):
        monkeypatch.setattr(module, step, lambda *arguments, **named: pytest.fail("work was done"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(checkpoint_path, tmp_path / "best.pt")
    there = graph_of("resnet8v1-cifar10.onnx", OTHER).read_bytes()
    with pytest.raises(UsageError, match=r"^resnet8v1-cifar10\.onnx: holds another model, my net-s1 of checkpoint bbb"):
        export_model(ExportConfig(("best.pt",), **options))
    assert (tmp_path / "resnet8v1-cifar10.onnx").read_bytes() == there
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "resnet8v1-cifar10.onnx"]


def test_with_force_or_another_name_both_models_are_exported(
    graph_of: Callable[..., Path], checkpoint_path: Path, tmp_path: Path
) -> None:
    shutil.copy(checkpoint_path, tmp_path / "best.pt")
    path = graph_of("resnet8v1-cifar10.onnx", OTHER)
    config = ExportConfig((str(tmp_path / "best.pt"),))
    assert export_model(replace(config, name="second")) == [tmp_path / "second.onnx"]
    assert load_graph(path)[1].checkpoint_sha256 == OTHER
    assert export_model(replace(config, force=True)) == [path]
    sha256 = find_model(str(tmp_path / "best.pt")).card.checkpoint_sha256
    assert load_graph(path)[1].checkpoint_sha256 == sha256
    export_model(config)  # the same model, without --force
    assert ModelFiles("x", graph=path).card.checkpoint_sha256 == sha256


def test_an_ensemble_does_not_replace_a_checkpoint(checkpoint_path: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint_path, tmp_path / "both.pt")
    config = ExportConfig((str(tmp_path / "both.pt"),) * 2, out=tmp_path, name="both")
    with pytest.raises(UsageError, match=r"both\.pt: holds another model, resnet8v1-cifar10 of checkpoint "):
        export_model(config)
    assert (tmp_path / "both.pt").read_bytes() == checkpoint_path.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a b"}, "--name 'a b': expected letters"),
        ({"name": "a", "force": True, "explain": True, "precision": "int8"}, "^--name, --force: --explain writes no f"),
    ],
)
def test_names_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExportConfig(("best.pt",), **options)


@pytest.mark.parametrize("options", [{"name": "a"}, {"force": True}])
def test_options_for_files_do_not_fit_a_graph_that_is_only_judged(graph_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"--{next(iter(options))}: --require-parity judges this graph and writes no"):
        module.judge_given_graph(ExportConfig((str(graph_path),), require_parity="1", **options))


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
