"""rtk bench --no-parity: speed on random images, no data set, no reference, and no word that reads as parity."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rtk
from fakes.foreign_graphs import ConvNet, export
from numpy.typing import NDArray
from rtk.bench.baselines.inference import PlainLoop
from rtk.bench.report.answer import answer_table
from rtk.bench.report.html import page_of
from rtk.bench.report.report import NOT_MEASURED, read_report
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.card import Input
from rtk.core.errors import ArtifactError, UnknownNameError, UsageError
from rtk.core.models.names import FAMILIES
from rtk.workflow import speed_model as speed
from rtk.workflow.speed_model import USUAL, names_architecture, speed_model
from torch import nn

Run = Callable[..., tuple[str, str]]
QUICK = ("--batch", "2", "--seconds", "0.2", "--no-baselines", "--device", "cpu")


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set may be opened."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a data set was opened")

    monkeypatch.setattr("rtk.workflow.model_data.open_dataset", refuse)


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.usefixtures("without_self_check")
@pytest.mark.parametrize("kind", ["checkpoint", "graph alone"])
def test_own_models_are_measured_without_a_data_set_or_a_reference(
    command_line: Run, checkpoint_path: Path, graph_path: Path, tmp_path: Path, kind: str
) -> None:
    model = checkpoint_path if kind == "checkpoint" else graph_path
    printed, _ = command_line("bench", str(model), "--no-parity", *QUICK, "--report", "report")
    assert NOT_MEASURED in one_line(printed)
    assert "parity (" not in printed
    report = read_report(tmp_path / "report")
    measured = {cell.label for cell in report.cells if cell.valid}
    assert {"onnx", "openvino"} <= measured
    assert ("torch" in measured) is (kind == "checkpoint")
    assert (report.parity, report.verdicts, report.parity_measured) == ([], [], False)
    if kind == "graph alone":
        assert "is neither beside it nor in the zoo" in report.unusable["torch"]


@pytest.mark.usefixtures("without_self_check")
def test_an_architecture_gets_random_weights_its_usual_images_and_says_so(
    command_line: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "own-cache"))  # the graph of these weights may be in the other
    printed, log = command_line("bench", "resnet8v1", "--backend", "onnx", *QUICK, "--report", "report")
    remark = "random weights: resnet8v1 for 32 x 32 x 3 images and 10 classes; nothing is trained"
    for text in (
        printed,
        log,
        (tmp_path / "report" / "report.md").read_text(),
        page_of(read_report(tmp_path / "report")),
    ):
        assert remark in one_line(text)
    assert NOT_MEASURED in one_line(printed)
    _, again = command_line("bench", "resnet8v1", "--backend", "onnx", *QUICK)
    assert "exporting to ONNX" in log
    assert "exporting to ONNX" not in again  # the same weights, so the same graph of the cache


@pytest.mark.usefixtures("without_self_check")
def test_no_part_of_a_report_reads_as_parity(command_line: Run, tmp_path: Path, checkpoint_path: Path) -> None:
    command_line("bench", str(checkpoint_path), "--no-parity", *QUICK, "--report", "report")
    report = read_report(tmp_path / "report")
    rows = answer_table(report)
    assert {row["verdict"] for row in rows} == {"not compared"}
    assert all("right answers" not in row and "changed" not in row for row in rows)
    page = page_of(report)
    assert page.count(NOT_MEASURED) == 2  # at the top, and where parity would be
    assert "against PyTorch fp32" not in page
    assert "against PyTorch fp32" not in (tmp_path / "report" / "report.md").read_text()
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["parity_measured"] is False
    assert content["dataset"] == "random images, 32 x 32 x 3"


@pytest.mark.usefixtures("without_self_check")
def test_a_report_without_the_new_keys_has_parity_measured(command_line: Run, tmp_path: Path) -> None:
    command_line("bench", "resnet8v1", "--backend", "onnx", *QUICK, "--report", "report")
    path = tmp_path / "report" / "report.json"
    content = json.loads(path.read_text())
    del content["parity_measured"], content["remarks"]
    path.write_text(json.dumps(content))
    assert (read_report(path).parity_measured, read_report(path).remarks) == (True, [])


@pytest.mark.usefixtures("without_self_check")
def test_files_are_timed_with_random_pictures(command_line: Run, tmp_path: Path) -> None:
    words = ["--backend", "onnx", "--scope", "files", *QUICK, "--report", "report"]
    command_line("bench", "resnet8v1", *words)
    assert [cell.scope for cell in read_report(tmp_path / "report").cells if cell.valid] == ["files"]


OTHER_CODE = {"image_size": "16", "backend": "onnx", "batch": 2, "seconds": 0.2, "device": "cpu"}


@pytest.mark.usefixtures("without_self_check")
@pytest.mark.parametrize("arch", ["Mobile", "Attentive(patch=4)", "Flat"])
def test_the_plain_loop_runs_networks_of_other_code(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One returns a dict, one an object, one wants contiguous planes."""
    monkeypatch.setattr("rtk.bench.baselines.inference.BASELINES", (PlainLoop,))
    report = rtk.bench(f"fakes.networks:{arch}", **OTHER_CODE).report
    assert {cell.label for cell in report.cells if cell.valid} == {"torch", "onnx", "plain loop"}


@pytest.mark.usefixtures("without_self_check")
def test_a_baseline_that_fails_on_other_code_is_noted_and_on_our_own_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(PlainLoop):
        def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise KeyError("made for other code")

    monkeypatch.setattr("rtk.bench.baselines.inference.BASELINES", (Failing,))
    report = rtk.bench("fakes.networks:Mobile", **OTHER_CODE).report
    assert report.unusable["plain loop"] == "plain loop: KeyError: 'made for other code'"
    assert {cell.label for cell in report.cells if cell.valid} == {"torch", "onnx"}
    with pytest.raises(KeyError, match="made for other code"):
        rtk.bench("resnet8v1", **OTHER_CODE)


# The models.


@pytest.mark.parametrize(
    ("arch", "size", "classes"),
    [
        ("resnet20v1", (32, 32, 3), 10),
        ("resnet11v2", (32, 32, 3), 10),
        ("resnet18", (224, 224, 3), 1_000),
        ("resnet18d2l", (96, 96, 1), 10),
    ],
)
def test_a_family_has_the_images_and_classes_that_it_is_known_for(
    tmp_path: Path, arch: str, size: tuple[int, int, int], classes: int
) -> None:
    found = speed_model(arch, tmp_path).found
    assert found.card.input == Input(*size)
    assert len(found.card.classes) == classes
    assert found.checkpoint is not None
    load_checkpoint(found.checkpoint).model()  # the weights fit


def test_every_family_has_usual_images() -> None:
    assert set(USUAL) == set(FAMILIES)


def test_an_image_size_is_for_architectures(tmp_path: Path, checkpoint_path: Path) -> None:
    assert speed_model("resnet18", tmp_path, image_size="96x64").found.card.input == Input(96, 64, 3)
    with pytest.raises(UsageError, match=r"--image-size: it takes 32 x 32 x 3 images, which cannot be changed$"):
        speed_model(str(checkpoint_path), tmp_path, image_size="96")


def test_random_weights_do_not_change_the_random_numbers_of_the_process(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    speed_model("resnet8v1", tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_name_is_still_an_unknown_model(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="model 'resnot' is unknown"):
        speed_model("resnot", tmp_path)
    assert not names_architecture("resnot")
    assert not names_architecture("missing.pt")
    with pytest.raises(ArtifactError, match="no such checkpoint"):
        speed_model("missing.pt", tmp_path)


@pytest.mark.usefixtures("without_self_check")
def test_a_graph_of_another_program_is_measured_as_it_is(command_line: Run, tmp_path: Path) -> None:
    export(ConvNet().eval(), tmp_path / "theirs.onnx")
    printed, _ = command_line("bench", "theirs.onnx", "--backend", "onnx", *QUICK, "--report", "report")
    assert NOT_MEASURED in one_line(printed)
    assert "with pixels / 255 in front: 16 x 16 x 3 images, 10 classes" in one_line(printed)
    report = read_report(tmp_path / "report")
    assert [cell.label for cell in report.cells if cell.valid] == ["onnx"]
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["theirs.onnx"]
    _, log = command_line("bench", "theirs.onnx", "--require-parity", "1", code=2)
    assert "--require-parity: a graph of another program has no reference before it is imported" in one_line(log)
    with pytest.raises(UsageError, match="--image-size: it takes images of 16 x 16, which cannot be changed$"):
        speed_model("theirs.onnx", tmp_path, image_size="32")


def test_a_graph_for_images_of_any_size_needs_one(tmp_path: Path) -> None:
    axes = {"dynamic_axes": {"pixel_values": {0: "n", 2: "h", 3: "w"}}}
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    path = export(nn.Sequential(*layers).eval(), tmp_path / "any.onnx", batch=None, **axes)
    with pytest.raises(UsageError, match="takes images of any size; name one: --image-size N or HxW$"):
        speed_model(str(path), tmp_path)
    (tmp_path / "made").mkdir()
    assert speed_model(str(path), tmp_path / "made", image_size="24").found.card.input == Input(24, 24, 3)


# Options.


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("a.pt --no-parity --require-parity default", "a.pt: --require-parity: --no-parity compares no answers; omit"),
        ("a.pt --no-parity --reference b.pt", "a.pt: --reference: --no-parity compares no answers; omit --reference"),
        ("resnet8v1 --require-parity 1", "resnet8v1: --require-parity: an architecture has no weights; omit"),
        ("a.pt --image-size 64", "--image-size: only for an architecture or a graph of another program, whose speed"),
        ("resnet8v1 --image-size x", "--image-size x: expected N or HxW, such as 224 or 96x128"),
        (
            "resnet8v1 --dataset shapes",
            "--dataset: without parity no images are answered; it goes with --precision int8",
        ),
    ],
)
def test_options_that_need_answers_are_refused(words: str, line: str, command_line: Run) -> None:
    _, log = command_line("bench", *words.split(), code=2)
    assert line in one_line(log)


def test_int8_without_images_says_what_it_needs(command_line: Run) -> None:
    words = ["--backend", "onnx", "--precision", "int8"]
    _, log = command_line("bench", "resnet8v1", *words, *QUICK, code=1)
    assert "int8: needs images to calibrate with; name a data set: --dataset NAME|DIR" in one_line(log)


def test_the_weights_do_not_depend_on_when_they_are_made(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    first, second = (speed.speed_model("resnet8v1", folder).found.checkpoint for folder in folders)
    assert first is not None
    assert second is not None
    assert first.read_bytes() == second.read_bytes()
    assert replace(load_checkpoint(first).card, checkpoint_sha256="").notes == {"weights": "random"}
