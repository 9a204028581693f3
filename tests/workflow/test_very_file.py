"""What is judged is the file that was named; where another one is used, a line says so, and the report has both."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rtk.bench.baselines.inference import PlainLoop
from rtk.bench.measure.contenders import RanFile
from rtk.bench.report.report import read_report
from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint
from rtk.core.artifacts.graph import load_graph, set_card
from rtk.core.card import ModelCard
from rtk.core.files import sha256_of
from rtk.core.zoo import zoo_file

Rtk = Callable[..., tuple[str, str]]
BENCH = ("--batch", "1", "--seconds", "0.1", "--device", "cpu", "--no-baselines", "--report", "report")


@pytest.fixture(autouse=True)
def _here(without_self_check: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def graph(command_line: Rtk, shapes_model: Path) -> Path:
    """shapes.onnx beside its checkpoint."""
    command_line("export", "shapes.pt")
    return shapes_model.with_suffix(".onnx")


def with_card(graph: Path, **changes: Any) -> None:
    """Change the card of a graph, and nothing else."""
    loaded, card = load_graph(graph)
    set_card(loaded, replace(card, **changes))
    graph.write_bytes(loaded.SerializeToString())


def rotated(card: ModelCard) -> tuple[str, ...]:
    return (*card.classes[1:], card.classes[0])


def files(folder: Path) -> dict[str, RanFile]:
    return read_report(folder / "report").files


def test_the_files_of_a_benchmark_are_in_its_report(
    command_line: Rtk, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtk.bench.baselines.inference.BASELINES", (PlainLoop,))  # the other one compiles
    words = [word for word in BENCH if word != "--no-baselines"]
    _, err = command_line("bench", "shapes.onnx", "--backend", "onnx", *words)
    assert "used instead" not in err
    reference = RanFile("shapes.pt", sha256_of(tmp_path / "shapes.pt"))
    own = RanFile("shapes.onnx", sha256_of(graph))
    found = files(tmp_path)
    assert found == {"reference": reference, "torch": reference, "plain loop": reference, "onnx": own, "ceiling": own}
    text = (tmp_path / "report" / "report.md").read_text()
    assert (
        f"- files: reference, torch, plain loop: shapes.pt (sha256 {reference.sha256[:12]}); "
        f"onnx, ceiling: shapes.onnx (sha256 {own.sha256[:12]})"
    ) in text


def test_a_graph_in_another_precision_is_not_used_in_silence(command_line: Rtk, graph: Path, tmp_path: Path) -> None:
    _, err = command_line("bench", "shapes.onnx", "--backend", "onnx", "--precision", "fp16", *BENCH)
    used = files(tmp_path)["onnx fp16"]
    line = f"shapes.onnx: is in fp32; in fp16 its checkpoint's graph is used instead: {used}"
    assert line in " ".join(err.split())
    assert str(used) == f"{used.path} (sha256 {used.sha256[:12]})"
    assert used.sha256 == sha256_of(tmp_path / used.path)
    assert Path(used.path).name.startswith("fp16-")
    assert files(tmp_path)["ceiling"] == RanFile("shapes.onnx", sha256_of(graph))


def test_the_torch_backend_says_that_it_does_not_run_the_graph(command_line: Rtk, graph: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    _, err = command_line("classify", "a.png", "--model", "shapes.onnx", "--backend", "torch")
    sha256 = sha256_of(tmp_path / "shapes.pt")
    assert f"shapes.onnx: torch runs its checkpoint instead: shapes.pt (sha256 {sha256[:12]})" in " ".join(err.split())


def test_the_torch_backend_does_not_pass_for_int8(command_line: Rtk, graph: Path) -> None:
    with_card(graph, precision="int8")
    _, err = command_line("bench", "shapes.onnx", "--backend", "torch", "--precision", "int8", *BENCH, code=1)
    assert err == "rtk: torch: it is the reference here, so it runs in fp32 only\n"


def test_a_reference_elsewhere_is_the_checkpoint_that_torch_runs(
    command_line: Rtk, graph: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.move(tmp_path / "shapes.pt", tmp_path / "elsewhere" / "shapes.pt"))
    words = ("bench", "shapes.onnx", "--reference", "elsewhere/shapes.pt", "--backend", "torch", "--backend", "onnx")
    command_line(*words, *BENCH)
    assert files(tmp_path)["torch"] == RanFile("elsewhere/shapes.pt", sha256_of(moved))


def test_another_precision_is_that_of_the_model_and_not_of_the_reference(
    command_line: Rtk, shapes_model: Path, tmp_path: Path
) -> None:
    loaded = load_checkpoint(shapes_model)
    save_checkpoint(
        tmp_path / "other.pt", replace(loaded.card, checkpoint_sha256=""), loaded.weights, training={"x": 1}
    )
    words = ("bench", "shapes.pt", "--reference", "other.pt", "--force", "--backend", "onnx", "--precision", "fp16")
    command_line(*words, *BENCH)
    used = Path(files(tmp_path)["onnx fp16"].path)
    assert load_graph(used)[1].checkpoint_sha256 == sha256_of(shapes_model)
    assert files(tmp_path)["reference"] == RanFile("other.pt", sha256_of(tmp_path / "other.pt"))


def test_the_ceiling_of_a_checkpoint_exports_nothing(command_line: Rtk, shapes_model: Path, tmp_path: Path) -> None:
    out, _ = command_line("bench", "shapes.pt", "--backend", "torch", *BENCH, "--verbose")
    assert not list((tmp_path / "cache").rglob("*.onnx"))
    report = read_report(tmp_path / "report")
    assert report.graph is None
    assert "ceiling" not in report.files
    assert "ceiling: not run: no backend ran a graph" in " ".join(out.split())
    command_line("bench", "shapes.pt", "--backend", "onnx", *BENCH)  # exports it, and counts it
    (cached,) = (tmp_path / "cache" / "graphs").glob("*.onnx")
    assert files(tmp_path)["ceiling"].sha256 == sha256_of(cached)
    command_line("bench", "shapes.pt", "--backend", "torch", *BENCH)  # counts the one in the cache
    assert files(tmp_path)["ceiling"].sha256 == sha256_of(cached)
    assert read_report(tmp_path / "report").graph is not None


def test_a_reference_that_is_not_the_models_checkpoint_is_refused_without_force(
    command_line: Rtk, graph: Path, tmp_path: Path
) -> None:
    loaded = load_checkpoint(tmp_path / "shapes.pt")
    save_checkpoint(
        tmp_path / "other.pt", replace(loaded.card, checkpoint_sha256=""), loaded.weights, training={"x": 1}
    )
    mine, other = (sha256_of(tmp_path / name)[:12] for name in ("shapes.pt", "other.pt"))
    words = ("bench", "shapes.onnx", "--reference", "other.pt")
    named = f"other.pt: --reference: its sha256 is {other}..., the checkpoint of shapes.onnx has {mine}..."
    _, err = command_line(*words, *BENCH, code=1)
    assert err == f"rtk: {named}; name that one, or add --force to compare anyway\n"
    _, err = command_line("bench-files", *words[1:], "--images", "10", code=1)
    assert err == f"rtk: {named}; name that one\n"
    _, err = command_line(*words, "--force", "--backend", "onnx", *BENCH)
    assert f"{named}; they are compared because of --force" in " ".join(err.split())
    _, err = command_line("bench", "shapes.onnx", "--force", *BENCH, code=2)
    assert err == "rtk: --force goes with --reference FILE or --compare OLD NEW\n"


def test_a_reference_with_another_preprocessing_is_refused(command_line: Rtk, graph: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(tmp_path / "shapes.pt")
    preprocessing = replace(loaded.card.preprocessing, deviation=(1.0, 1.0, 1.0))
    card = replace(loaded.card, checkpoint_sha256="", preprocessing=preprocessing)
    save_checkpoint(tmp_path / "other.pt", card, loaded.weights)
    _, err = command_line("bench", "shapes.onnx", "--reference", "other.pt", "--force", *BENCH, code=1)
    assert err == (
        "rtk: other.pt: --reference: it has other preprocessing than shapes.onnx; expected the checkpoint of this\n"
    )


def test_no_engine_is_built_from_a_graph_whose_classes_were_rotated(
    command_line: Rtk, graph: Path, tmp_path: Path
) -> None:
    with_card(graph, classes=rotated(load_graph(graph)[1]))
    engine = ("export", "--trt", "--flavor", "tensorrt-rtx", "--target", "8.9")
    _, err = command_line(*engine, "shapes.onnx", code=1)
    assert err == (
        "rtk: shapes.onnx: its card has other classes than its checkpoint, shapes.pt; export that again: "
        "rtk export shapes.pt\n"
    )
    assert not list(tmp_path.glob("*.engine"))


@pytest.mark.usefixtures("without_self_check")
@pytest.mark.parametrize(
    "words",
    [
        ("export", "shapes.onnx"),
        ("export", "--trt", "--flavor", "tensorrt-rtx", "--target", "8.9", "shapes.onnx"),
        ("bench", "shapes.onnx", "--backend", "onnx", *BENCH),
    ],
    ids=["graph", "engine", "bench"],
)
def test_the_gate_refuses_a_graph_whose_classes_were_rotated(
    command_line: Rtk, graph: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    with_card(graph, classes=rotated(load_graph(graph)[1]))
    _, err = command_line(*words, "--require-parity", "5", code=4)
    assert "no parity with the reference in fp32: the reference's card: its card has other classes" in err
    assert not list(tmp_path.glob("*.engine"))


def test_without_torch_a_graph_of_the_zoo_is_compared_with_the_zoos_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph_path: Path, command_line: Rtk
) -> None:
    monkeypatch.setattr("rtk.workflow.models.find_spec", lambda name: None)
    monkeypatch.setattr("rtk.core.artifacts.checkpoint.load_checkpoint", None)
    lone, mine = tmp_path / "zoo.onnx", tmp_path / "mine.onnx"
    shutil.copy(zoo_file("resnet20v1-cifar10", ".onnx"), lone)
    shutil.copy(graph_path, mine)
    card = load_graph(lone)[1]
    engine = ("export", "--trt", "--flavor", "tensorrt-rtx", "--target", "8.9")
    with_card(lone, classes=rotated(card))
    assert "its card has other classes than its checkpoint" in command_line(*engine, "zoo.onnx", code=1)[1]
    with_card(lone, classes=card.classes)
    command_line(*engine, "zoo.onnx")
    command_line(*engine, "mine.onnx")  # its checkpoint is not here


def test_a_given_graph_is_judged_and_nothing_is_written(command_line: Rtk, graph: Path, tmp_path: Path) -> None:
    content, names = graph.read_bytes(), sorted(path.name for path in tmp_path.iterdir())
    out, _ = command_line("export", "shapes.onnx", "--require-parity", "5")
    assert out.startswith("onnx (fp32): parity (")
    assert len(out.splitlines()) == 1
    _, err = command_line("export", "shapes.onnx", "--require-parity", "0.0001", code=5)  # 2,000 images cannot show it
    assert err.startswith("rtk: onnx")
    assert graph.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    _, err = command_line("export", "shapes.onnx", "--require-parity", "5", "--out", "there", code=2)
    assert err == "rtk: shapes.onnx: --out: --require-parity judges this graph and writes no file; omit --out\n"
    _, err = command_line("export", "shapes.onnx", "shapes.pt", "--require-parity", "5", code=2)
    assert err == "rtk: shapes.pt: an ensemble is made of checkpoints, and shapes.onnx is none\n"
    (tmp_path / "shapes.pt").rename(tmp_path / "gone")
    assert "its checkpoint" in command_line("export", "shapes.onnx", "--require-parity", "5", code=1)[1]


def test_the_accuracy_of_a_checkpoint_is_not_claimed_by_its_graph(command_line: Rtk, graph: Path) -> None:
    def facts(name: str) -> str:
        return " ".join(command_line("inspect", name)[0].split())

    assert "accuracy 14.06% (9 of 64 images of the test split)" in facts("shapes.pt")
    shown = facts("shapes.onnx")
    assert "accuracy of its checkpoint: 14.06% (9 of 64 images of the test split)" in shown
    assert "own accuracy not measured on this file" in shown
    command_line("export", "shapes.pt", "--require-parity", "5")
    note = json.loads(command_line("inspect", "shapes.onnx", "--json")[0])["notes"]["parity"]
    shown = facts("shapes.onnx")
    assert (
        f"own accuracy {note['right'] / 2000:.2%} ({note['right']:,} of 2,000 images of shapes, test split), on ONNX"
        in shown
    )
    with_card(graph, name="renamed")  # what it computes is the same
    assert "own accuracy not measured" not in facts("shapes.onnx")
    loaded, _ = load_graph(graph)
    weights = next(one for one in loaded.graph.initializer if len(one.raw_data) > 1000)
    weights.raw_data = weights.raw_data[4:] + weights.raw_data[:4]
    graph.write_bytes(loaded.SerializeToString())
    assert "own accuracy not measured on this file" in facts("shapes.onnx")


def test_a_half_precision_graph_that_was_judged_as_a_rounded_copy_has_no_accuracy_of_its_own(
    command_line: Rtk, shapes_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtk.workflow.parity_gate._openvino_computes_in", lambda precision: False)
    command_line("export", "shapes.pt", "--precision", "fp16", "--require-parity", "5")
    assert "own accuracy not measured on this file" in " ".join(command_line("inspect", "shapes.fp16.onnx")[0].split())


def test_an_engine_does_not_claim_what_was_measured_on_its_graph(command_line: Rtk, shapes_model: Path) -> None:
    words = ("export", "shapes.pt", "--trt", "--flavor", "tensorrt-rtx", "--target", "8.9")
    command_line(*words, "--require-parity", "5")
    shown = " ".join(command_line("inspect", "shapes.engine")[0].split())
    assert "accuracy of its checkpoint: 14.06%" in shown
    assert "own accuracy not measured on this file" in shown
    notes = json.loads(command_line("inspect", "shapes.engine", "--json")[0])["card"]["notes"]
    assert notes["graph_parity"]["images"] == 2000
    assert "images" not in notes["parity"]
    command_line("export", "shapes.onnx", "--trt", "--flavor", "tensorrt-rtx", "--target", "8.9")
    notes = json.loads(command_line("inspect", "shapes.engine", "--json")[0])["card"]["notes"]
    assert notes["graph_parity"]["images"] == 2000
    assert "parity" not in notes
