"""Networks that rtk did not write, through the whole workflow: train, export, judge, build, serve, classify."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import networks
from fakes.colours import COLOURS, colour_folders
from rtk.bench.report.report import read_report

CommandLine = Callable[..., tuple[str, str]]

TRANSFORMERS = {
    "resnet": ("ResNet", "embedding_size=16", "hidden_sizes=[16,32]", "depths=[1,1]", "layer_type=basic"),
    "mobilenet": ("MobileNetV2", "depth_multiplier=0.25", "min_depth=8", "finegrained_output=true"),
    "convnext": ("ConvNext", "patch_size=2", "num_stages=2", "hidden_sizes=[16,32]", "depths=[1,1]"),
    "vit": (
        "ViT",
        "hidden_size=32",
        "num_hidden_layers=2",
        "num_attention_heads=2",
        "intermediate_size=64",
        "patch_size=8",
    ),
}
NETWORKS = {
    "mobile": ("mynets:mobile", "dropout=0.1"),
    "attentive": ("mynets:Attentive",),
    "flat": ("mynets:Flat",),
    **{name: (f"transformers:{model}ForImageClassification", *args) for name, (model, *args) in TRANSFORMERS.items()},
}
OFTEN = ("mobile",)
"""The networks of the fast suite; the others are slow."""
RARELY = ("mobilenet", "convnext")
"""Of these, the ones whose kinds of layers the others have as well: they are long."""
NO_BASELINES = "--no-baselines"
IMAGES = 250
"""Test images of each class: all of them together show a loss of 0.5 points if few answers change."""


def marks_of(name: str) -> list[pytest.MarkDecorator]:
    """Return what says in which suite the test of a network is."""
    return [*([] if name in OFTEN else [pytest.mark.slow]), *([pytest.mark.long] if name in RARELY else [])]


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images that any network learns."""
    return colour_folders(tmp_path_factory.mktemp("data") / "colours", images=IMAGES)


@pytest.mark.torch
@pytest.mark.usefixtures("without_self_check")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks_of(name)) for name in NETWORKS])
def test_a_network_of_other_code_is_trained_exported_judged_built_and_served(
    name: str, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    arch, *arguments = NETWORKS[name]
    shutil.copy(networks.__file__, tmp_path / "mynets.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    given = [word for argument in arguments for word in ("--net-arg", argument)]
    recipe = ("--recipe", "keras", "--epochs", "3", "--compile", "off", "--no-eval")
    command_line("train", arch, *given, "--dataset", str(colours), *recipe, "--name", name, "--out", "run")
    module = arch.partition(":")[0]
    allowed = ("--allow-code", module)
    for precision in ("fp32", "fp16", "bf16", "int8"):
        options = ("--precision", precision, "--require-parity", "1", "--trt")
        command_line("export", "run/best.pt", *allowed, *options)
    command_line("export", f"run/{name}.onnx", "--triton", "repository")
    pictures = [str(colours / "test" / label) for label in COLOURS]
    printed, _ = command_line("classify", *pictures, "-m", f"run/{name}.onnx", "--backend", "onnx", "--format", "csv")
    answers = list(csv.DictReader(printed.splitlines()))
    right = sum(Path(answer["file"]).parent.name == answer["label"] for answer in answers)
    assert len(answers) == 4 * IMAGES
    assert right >= 0.99 * len(answers)
    quick = ("--backend", "onnx", "--batch", "4", "--seconds", "0.3", *(() if name == "attentive" else (NO_BASELINES,)))
    command_line("bench", "run/best.pt", *allowed, *quick, "--require-parity", "1", "--report", "report")
    report = read_report(tmp_path / "report")
    assert [verdict.passed for verdict in report.verdicts] == [True]
    cells = {cell.label: cell for cell in report.cells if cell.valid}
    assert "onnx" in cells, report.unusable
    if name == "attentive":  # compiling takes long
        assert "torch.compile" in cells or "needs a C++ compiler" in report.unusable["torch.compile"]
    assert report.share(cells["onnx"]), report.unusable  # the work of every such network is counted
