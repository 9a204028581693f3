"""The README's tables are those of the files, and filling them in twice changes nothing."""

import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from rtk.bench.config import BenchConfig
from rtk.bench.measure.cell import Cell
from rtk.bench.parity.compare import compare
from rtk.bench.parity.verdict import judge
from rtk.bench.report.report import Report, read_report
from rtk.core.card import ModelCard
from rtk.core.errors import ArtifactError
from rtk.core.machine import this_machine
from rtk.tools import readme_tables as results

ROOT = Path(__file__).parent.parent.parent


def committed(pattern: str) -> list[Path]:
    """Files of that pattern which git has; all that are there where this is no checkout."""
    listing = ["git", "ls-files", "-z", f":(glob){pattern}"]  # or * would stand for folders, too
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    names = list(filter(None, done.stdout.split("\0")))
    return sorted(ROOT / name for name in names) if done.returncode == 0 else sorted(ROOT.glob(pattern))


def report_of(card: ModelCard, *, machine: str, date: str, seconds: float) -> Report:
    """One cell, ten rounds of three calls of 64 images each, and parity on ten images."""
    logits_NK = np.eye(10, dtype=np.float32)
    parity = compare("onnx", logits_NK, logits_NK, np.arange(10))
    return Report(
        model=card,
        machine=dataclasses.replace(this_machine(), processor=machine, gpu=""),
        date=date,
        config=BenchConfig(),
        backends={"onnx": "ONNX Runtime"},
        unusable={},
        cells=[Cell("onnx", 64, rounds=[[seconds] * 3] * 10)],
        dataset="cifar10 (test split, 10 images)",
        parity=[parity],
        verdicts=[judge(parity, precision="fp32")],
    )


def test_the_zoo_table_of_the_readme_is_that_of_the_cards() -> None:
    cards = [
        ModelCard.from_json(path.read_text(encoding="utf-8"), source=path.name) for path in committed("core/zoo/*.json")
    ]
    assert results.block_in(results.README.read_text(encoding="utf-8"), "zoo") == results.zoo_block(cards)


def test_the_measured_tables_of_the_readme_are_those_of_the_reports() -> None:
    block = results.measured_block([read_report(path) for path in committed("bench/results/*.json")])
    assert results.block_in(results.README.read_text(encoding="utf-8"), "measured") == block


def test_a_row_of_the_zoo_has_the_cards_figures(card: ModelCard) -> None:
    (heading, _, row) = results.zoo_block([dataclasses.replace(card, arch="resnet20v1")]).splitlines()
    assert heading.startswith("| model | parameters | input |")
    assert "`resnet8v1-cifar10` | 273,066 | 32 x 32 x 3 | 9 of 64 | 14.06% | `rtk`, 1 epochs, seed 0" in row
    assert results.zoo_block([]) == ""


def test_a_row_of_the_zoo_says_what_was_done_to_the_images(card: ModelCard) -> None:
    assert card.training is not None
    augmentation = {"crop": 0.125, "flip": "alternate", "channel_shift": 9.0, "erasing": 0.0, "fill": "constant"}
    training = dataclasses.replace(card.training, settings={"augmentation": augmentation})
    assert results.augmentation_words(training) == "`crop=0.125` `flip=alternate` `channel-shift=9.0`"
    assert results.augmentation_words(card.training) == ""  # a card from before it was noted


def test_the_newest_report_of_each_machine_and_model_is_shown(card: ModelCard) -> None:
    old = report_of(card, machine="A", date="2026-01-02 03:04 UTC", seconds=0.02)
    new = report_of(card, machine="A", date="2026-02-02 03:04 UTC", seconds=0.01)
    other = report_of(card, machine="B", date="2026-01-05 03:04 UTC", seconds=0.04)
    block = results.measured_block([new, old, other])
    assert block.count("**") == 4
    assert "| 6,400 ±0.0% |" in block  # 64 images in 10 ms
    assert "| 3,200 ±" not in block
    assert "| 1,600 ±0.0% |" in block
    assert "10 of 10" in block
    assert results.measured_block([]) == ""
    second = dataclasses.replace(old, model=dataclasses.replace(card, name="another"))
    assert results.measured_block([new, second, other]).count("**") == 6


def test_a_report_is_read_back_as_it_was(card: ModelCard, tmp_path: Path) -> None:
    report = report_of(card, machine="A", date="2026-01-02 03:04 UTC", seconds=0.02)
    (tmp_path / "report.json").write_text(report.to_json())
    again = read_report(tmp_path)
    assert again == report
    content = json.loads(report.to_json())
    del content["machine"]["processor"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"an incomplete report \(.*processor"):
        read_report(tmp_path)


def test_filling_in_twice_changes_nothing_and_leaves_the_rest() -> None:
    text = "# A\n<!-- a:begin -->\nold\n<!-- a:end -->\nbetween\n<!-- b:begin -->\n<!-- b:end -->\nend\n"
    once = results.filled(text, {"a": r"new \1 figures", "b": ""})
    assert once == results.filled(once, {"a": r"new \1 figures", "b": ""})
    assert results.block_in(once, "a") == r"new \1 figures"
    assert results.block_in(once, "b") == ""
    assert once.startswith("# A\n")
    assert once.endswith("\nend\n")
    assert "\nbetween\n" in once
    assert results.filled(results.filled(text, {"a": "x"}), {"a": ""}) == results.filled(text, {"a": ""})


@pytest.mark.parametrize("text", ["", "<!-- a:begin -->", "<!-- a:end --><!-- a:begin -->"])
def test_missing_markers_are_named(text: str) -> None:
    with pytest.raises(ArtifactError, match="the markers <!-- a:begin --> and <!-- a:end -->"):
        results.filled(text, {"a": "x"})


@pytest.mark.data
@pytest.mark.usefixtures("real_data")
def test_what_a_command_prints_is_shown_under_it() -> None:
    block = results.commands_block([["models", "resnet8v1"], ["classify", "images", "--backend", "onnx"]])
    lines = block.splitlines()
    assert lines[0] == "    $ rtk models resnet8v1"
    assert "    $ rtk classify images --backend onnx" in lines
    assert any(line.startswith("    images/1-cat.png") for line in lines)
    assert all(not line or line.startswith("    ") for line in lines)
