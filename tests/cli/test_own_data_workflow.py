"""The whole workflow on own data in every layout: train, export, classify and bench, each from another folder."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.own_data import LAYOUTS

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
OFTEN = ("class folders", "shards")
"""The layouts of the regular slow suite; the others differ from these only in how they are listed."""
ARRAYS = ("idx files", "CIFAR pickles", "CIFAR archive")


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize(
    "layout", [pytest.param(name, marks=[] if name in OFTEN else pytest.mark.long) for name in LAYOUTS]
)
def test_own_data_are_trained_exported_classified_and_measured(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., tuple[str, str]]
) -> None:
    root = LAYOUTS[layout](tmp_path / "here" / "pets")
    scored = "validation" if layout == "validation only" else "test"
    images = 18 if layout == "class folders" else 24
    monkeypatch.chdir(root.parent)
    options = ("--recipe", "quick", "--epochs", "2", "--compile", "off", "--out", str(tmp_path / "run"))
    printed, _ = command_line("train", "resnet8v1", "--dataset", root.name, *options)
    assert printed.startswith(f"{scored} accuracy ")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    checkpoint = str(tmp_path / "run" / "best.pt")
    for precision in PRECISIONS:
        printed, _ = command_line("export", checkpoint, "--trt", "--precision", precision)
        suffix = "" if precision == "fp32" else f".{precision}"
        model = tmp_path / "run" / f"resnet8v1-pets-s0{suffix}"
        assert printed.split() == [f"{model}.onnx", f"{model}.engine"]
    graph = str(tmp_path / "run" / "resnet8v1-pets-s0.onnx")
    sources = [str(root)]
    if layout in ARRAYS or layout == "shards":
        sources = sorted(str(path) for path in root.rglob("*") if path.suffix == ".tar" or "t10k-images" in path.name)
    if sources:
        printed, _ = command_line("classify", *sources, "--model", graph, "--format", "csv", "--backend", "onnx")
        answers = list(csv.DictReader(printed.splitlines()))
        assert len(answers) == (24 if layout in ARRAYS else 96)
        assert not any(answer["error"] for answer in answers)
    once = ("--batch", "8", "--seconds", "0.2", "--no-baselines")
    printed, _ = command_line("bench", graph, "--backend", "onnx", *once)
    assert f"Parity on pets ({scored} split, {images} images)" in " ".join(printed.split())
