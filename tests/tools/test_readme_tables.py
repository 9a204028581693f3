"""The tables of README.md and docs/ are those of the files, and filling them in twice changes nothing."""

import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rtk.bench.config import BenchConfig
from rtk.bench.measure.cell import Cell
from rtk.bench.parity.compare import compare
from rtk.bench.parity.verdict import Requirement, judge
from rtk.bench.report.report import Report, read_report
from rtk.core.card import ModelCard
from rtk.core.errors import ArtifactError
from rtk.core.machine import this_machine
from rtk.core.zoo import DEFAULT
from rtk.tools import readme_blocks as blocks
from rtk.tools import readme_tables as results
from rtk.tools.readme_picture import write_picture

ROOT = Path(__file__).parent.parent.parent


def committed(pattern: str) -> list[Path]:
    """Return the files of that pattern that git tracks; outside of a checkout, all that are there."""
    listing = ["git", "ls-files", "-z", f":(glob){pattern}"]  # without glob, * would match folders too
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    names = list(filter(None, done.stdout.split("\0")))
    return sorted(ROOT / name for name in names) if done.returncode == 0 else sorted(ROOT.glob(pattern))


def report_of(card: ModelCard, *, machine: str, date: str, seconds: float) -> Report:
    """Return a report with one cell of ten rounds of three calls of 64 images, and parity on ten images."""
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


def shown(page: str, name: str) -> str:
    """Return a generated block as it stands in a page of the repository."""
    return results.block_in((ROOT / page).read_text(encoding="utf-8"), name)


def test_the_zoo_table_of_the_docs_is_that_of_the_cards() -> None:
    cards = [
        ModelCard.from_json(path.read_text(encoding="utf-8"), source=path.name) for path in committed("core/zoo/*.json")
    ]
    assert shown("docs/training.md", "zoo") == blocks.zoo_block(cards)


def test_the_measured_tables_of_the_docs_are_those_of_the_reports() -> None:
    reports = [read_report(path) for path in committed("bench/results/*.json")]
    assert shown("docs/benchmarks.md", "measured") == blocks.measured_block(reports)


def test_the_headline_table_of_the_readme_is_that_of_the_reports() -> None:
    reports = blocks.newest([read_report(path) for path in committed("bench/results/*.json")])
    assert shown("README.md", "headline") == blocks.headline_block(reports)


def test_the_tour_of_the_readme_shows_the_commands_that_the_program_runs() -> None:
    lines = shown("README.md", "commands").splitlines()
    expected = [f"    $ rtk {' '.join(words)}" for words in results.SHOWN]
    assert [line for line in lines if line.startswith("    $ ")] == expected


def test_the_table_of_folders_names_every_folder_of_the_package() -> None:
    table = shown("docs/architecture.md", "folders")
    assert table == blocks.folders_block(ROOT)
    tracked = [path.parent.relative_to(ROOT).as_posix() for path in committed("**/__init__.py")]
    folders = [folder for folder in tracked if folder != "." and not folder.startswith("tests")]
    assert len(folders) > 20
    assert [line.split("`")[1] for line in table.splitlines()[2:]] == sorted(f"{folder}/" for folder in folders)


def test_a_row_of_the_zoo_has_the_cards_figures(card: ModelCard) -> None:
    (heading, _, row) = blocks.zoo_block([dataclasses.replace(card, arch="resnet20v1")]).splitlines()
    assert heading.startswith("| model | parameters | input |")
    assert "`resnet8v1-cifar10` | 273,066 | 32 x 32 x 3 | 9 of 64 | 14.06% | `rtk`, 1 epochs, seed 0" in row
    assert blocks.zoo_block([]) == ""


def test_a_row_of_the_zoo_names_the_augmentation(card: ModelCard) -> None:
    assert card.training is not None
    augmentation = {"crop": 0.125, "flip": "alternate", "channel_shift": 9.0, "erasing": 0.0, "fill": "constant"}
    training = dataclasses.replace(card.training, settings={"augmentation": augmentation})
    assert blocks.augmentation_text(training) == "`crop=0.125` `flip=alternate` `channel-shift=9.0`"
    assert blocks.augmentation_text(card.training) == ""  # an older card, without augmentation


def test_the_newest_report_of_each_machine_and_model_is_shown(card: ModelCard) -> None:
    old = report_of(card, machine="A", date="2026-01-02 03:04 UTC", seconds=0.02)
    new = report_of(card, machine="A", date="2026-02-02 03:04 UTC", seconds=0.01)
    other = report_of(card, machine="B", date="2026-01-05 03:04 UTC", seconds=0.04)
    block = blocks.measured_block([new, old, other])
    assert block.count("**") == 4
    assert "| 6,400 ±0.0% |" in block  # 64 images in 10 ms
    assert "| 3,200 ±" not in block
    assert "| 1,600 ±0.0% |" in block
    assert "10 of 10" in block
    assert blocks.measured_block([]) == ""
    second = dataclasses.replace(old, model=dataclasses.replace(card, name="another"))
    assert blocks.measured_block([new, second, other]).count("**") == 6


def test_the_headline_has_torch_the_fastest_fp32_backend_and_the_fastest_of_all(card: ModelCard) -> None:
    logits_NK = np.eye(10, dtype=np.float32)
    worse_NK = logits_NK.copy()
    worse_NK[0] = np.roll(worse_NK[0], 1)  # one of ten answers lost
    report = report_of(card, machine="A", date="2026-01-02 03:04 UTC", seconds=0.02)
    cells = [
        Cell(backend, 64, precision, rounds=[[seconds] * 3] * 10)
        for backend, precision, seconds in (
            ("torch", "fp32", 0.04), ("onnx", "fp32", 0.02), ("onnx", "bf16", 0.01), ("onnx", "int8", 0.005),
            ("plain loop", "fp32", 0.001),
        )
    ]  # fmt: skip
    parity = {
        "torch": compare("torch", logits_NK, logits_NK, np.arange(10)),
        "onnx": compare("onnx", logits_NK, logits_NK, np.arange(10)),
        "onnx bf16": compare("onnx bf16", logits_NK, logits_NK, np.arange(10)),
        "onnx int8": compare("onnx int8", logits_NK, worse_NK, np.arange(10)),
    }
    verdicts = [judge(parity["onnx"], precision="fp32", required=Requirement(margin_pp=50))]
    verdicts += [judge(parity["onnx bf16"], precision="bf16", required=Requirement(margin_pp=50))]
    verdicts += [judge(parity["onnx int8"], precision="int8", required=Requirement(margin_pp=50))]
    assert [verdict.passed for verdict in verdicts] == [True, True, False]
    report = dataclasses.replace(report, cells=cells, parity=[*parity.values()], verdicts=verdicts)
    rows = blocks.headline_block([report]).splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["torch fp32", "onnx fp32", "onnx bf16"]  # int8 has no parity
    assert rows[0].endswith("| 100.00% | 10 of 10 |  | 1 |")
    assert rows[2].endswith("| 100.00% | 10 of 10 | none; at most 27.75 points lost | 4.00 ±0.00 at batch 64 |")
    assert blocks.headline_block([]) == ""
    machine = dataclasses.replace(report.machine, gpu="NVIDIA H100 80GB HBM3")
    both = blocks.headline_block([report, dataclasses.replace(report, machine=machine)]).splitlines()
    assert both[0].startswith("| model | machine | backend |")
    assert [row.split(" | ")[1] for row in both[2:]] == ["A"] * 3 + ["NVIDIA H100 80GB HBM3"] * 3


def test_the_picture_is_drawn_from_the_newest_report_of_the_default_model(card: ModelCard, tmp_path: Path) -> None:
    default = dataclasses.replace(card, name=DEFAULT)
    cells = [Cell("onnx", batch, rounds=[[0.01] * 3] * 10) for batch in (1, 64)]
    old, new = (
        dataclasses.replace(report_of(default, machine="A", date=date, seconds=0.02), cells=cells)
        for date in ("2026-01-02 03:04 UTC", "2026-02-02 03:04 UTC")
    )
    one_batch = report_of(default, machine="B", date="2026-03-02 03:04 UTC", seconds=0.02)
    other = dataclasses.replace(report_of(card, machine="A", date="2026-03-02 03:04 UTC", seconds=0.02), cells=cells)
    assert blocks.picture_report([other, new, one_batch, old]) is new
    assert blocks.picture_report([one_batch]) is None
    write_picture(new, tmp_path / "docs" / "a.png")
    with Image.open(tmp_path / "docs" / "a.png") as image:
        assert image.format == "PNG"
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


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


def test_filling_in_twice_changes_nothing_and_keeps_the_rest() -> None:
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


def test_each_page_gets_the_blocks_that_it_has_markers_for(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("<!-- a:begin --><!-- a:end -->\n")
    (tmp_path / "docs" / "one.md").write_text("<!-- a:begin --><!-- a:end -->\n<!-- b:begin --><!-- b:end -->\n")
    (tmp_path / "docs" / "two.md").write_text("two\n")
    found = results.fill_pages(tmp_path, {"a": "A", "b": "B"})
    assert found == {tmp_path / "README.md": ["a"], tmp_path / "docs" / "one.md": ["a", "b"]}
    assert results.block_in((tmp_path / "docs" / "one.md").read_text(), "b") == "B"
    assert (tmp_path / "docs" / "two.md").read_text() == "two\n"
    with pytest.raises(ArtifactError, match="the markers <!-- c:begin --> and <!-- c:end -->"):
        results.fill_pages(tmp_path, {"a": "X", "c": "C"})
    assert results.block_in((tmp_path / "README.md").read_text(), "a") == "A"  # nothing was written


@pytest.mark.data
@pytest.mark.usefixtures("real_data")
def test_the_output_of_a_command_is_shown_below_it() -> None:
    block = results.commands_block([["models", "resnet8v1"], ["classify", "images", "--backend", "onnx"]])
    lines = block.splitlines()
    assert lines[0] == "    $ rtk models resnet8v1"
    assert "    $ rtk classify images --backend onnx" in lines
    assert any(line.startswith("    images/1-cat.png") for line in lines)
    assert all(not line or line.startswith("    ") for line in lines)
