"""What was measured on a GPU: raw results become records, and the tables of the documentation are theirs."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rtk.core.errors import ArtifactError
from rtk.core.machine import Machine, this_machine
from rtk.tools import gpu_record
from rtk.tools.gpu_record import without_folders
from rtk.tools.gpu_results import RECORDS, GpuRecord, keep, newest
from rtk.tools.gpu_tables import bench_block, gpu_blocks, newest_on_a_gpu, options_block, parity_block, training_block
from rtk.tools.readme_tables import block_in

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = {
    "gpu-bench": "gpus.md",
    "gpu-parity": "gpus.md",
    "gpu-onnxruntime": "gpus.md",
    "gpu-onnxruntime-half": "gpus.md",
    "gpu-training-speed": "training.md",
}
STEP = {
    "arch": "resnet56v1",
    "variant": "cudagraphs",
    "words": "cuda, bf16, not compiled",
    "ready_s": 0.44,
    "ms_a_step": 6.499,
    "images_a_step": 128,
    "gpu_ms": 6.283,
    "kernels": 1437,
}


@pytest.fixture
def machine() -> Machine:
    """A machine with an H100."""
    libraries = {"torch": "2.11.0", "onnxruntime-gpu": "1.31.1"}
    return replace(this_machine(), gpu="NVIDIA H100 80GB HBM3", driver="580.1", libraries=libraries)


def record_of(machine: Machine, found: Any) -> GpuRecord:
    return GpuRecord(machine, "2026-12-01", found)


def rows_of(block: str) -> list[list[str]]:
    """The cells of a table in Markdown, without its heading."""
    lines = [line for line in block.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# Records.


def test_raw_results_of_several_folders_become_one_record_of_each_kind(tmp_path: Path, machine: Machine) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    files: dict[Path, Any] = {
        first / "train_speed.json": [STEP, {**STEP, "variant": "off"}],
        second / "train_speed_deeper.json": [{**STEP, "ms_a_step": 5.0}, {**STEP, "arch": "resnet110v1"}],
        second / "engine.json": {"machine": asdict(machine), "engines": [{"refused": "/tmp/x/a.onnx: see /tmp/y/b"}]},
        second / "ahead-resnet20v1.json": [STEP],
    }
    for path, content in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    paths = keep([first, second], tmp_path / "kept", date="2026-12-01")
    assert [path.name for path in paths] == [
        "nvidia-h100_2026-12-01_engines.json",
        "nvidia-h100_2026-12-01_training-speed.json",
    ]
    steps, engines = (newest(kind, tmp_path / "kept") for kind in ("training-speed", "engines"))
    assert steps is not None
    assert engines is not None
    assert (steps.machine, steps.date) == (machine, "2026-12-01")
    found = [(one["arch"], one["variant"], one["ms_a_step"]) for one in steps.found]
    assert found == [
        ("resnet56v1", "cudagraphs", 5.0),
        ("resnet56v1", "off", 6.499),
        ("resnet110v1", "cudagraphs", 6.499),
    ]
    assert engines.found == {"engines": [{"refused": "a.onnx: see b"}]}


def test_the_newest_record_counts(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "engine.json").write_text(json.dumps({"machine": asdict(machine)}))
    for date, backend in (("2026-12-02", "new"), ("2026-12-01", "old")):
        (tmp_path / "smoke.json").write_text(json.dumps([{"backend": backend}]))
        keep([tmp_path], tmp_path / "kept", date=date)
    record = newest("parity", tmp_path / "kept")
    assert record is not None
    assert record.found == [{"backend": "new"}]
    assert newest("parity", tmp_path / "nowhere") is None


def test_results_of_an_unknown_machine_and_damaged_files_are_refused(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "smoke.json").write_text("[{")
    with pytest.raises(ArtifactError, match=r"no engine\.json or bench/report\.json, which name the machine; add the"):
        keep([tmp_path], tmp_path / "kept", date="2026-12-01")
    (tmp_path / "engine.json").write_text(json.dumps({"machine": asdict(machine)}))
    with pytest.raises(ArtifactError, match=r"smoke\.json: cannot be read: "):
        keep([tmp_path], tmp_path / "kept", date="2026-12-01")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"trt": "/tmp/cache/graphs/fp16-1.onnx: refused"}', '{"trt": "fp16-1.onnx: refused"}'),
        ('"/home/me/site/rtk/core/zoo/a.pt"', '"rtk/core/zoo/a.pt"'),
        ("rtk export /tmp/x/a.onnx (/tmp/b/c)", "rtk export a.onnx (c)"),
        ("118,000 images/s, N/A, https://example.org/a/b", "118,000 images/s, N/A, https://example.org/a/b"),
    ],
)
def test_folders_of_the_machine_are_left_out_of_what_is_kept(text: str, expected: str) -> None:
    assert without_folders(text) == expected


# Tables.


@pytest.mark.parametrize(("name", "page"), PAGES.items())
def test_the_docs_show_the_newest_records(name: str, page: str) -> None:
    block = block_in((DOCS / page).read_text(encoding="utf-8"), name)
    assert block == gpu_blocks(RECORDS)[name]
    assert "| --- |" in block


def test_without_records_there_are_no_tables(tmp_path: Path) -> None:
    assert gpu_blocks(tmp_path) == dict.fromkeys(PAGES, "")


def test_parity_counts_answers_and_says_what_did_not_run(machine: Machine) -> None:
    ran = {"backend": "onnx fp16", "images": 10_000, "agreeing": 9_995, "correct": 9_280, "reference_correct": 9_278}
    found = [{**ran, "largest_difference": 0.040657}, {"backend": "onnx int8", "error": "nodes on the CPU"}]
    block = parity_block(record_of(machine, found))
    assert rows_of(block) == [["onnx fp16", "9,995 of 10,000", "9,280", "0.041"]]
    assert "- onnx int8: nodes on the CPU\n" in block
    assert "PyTorch in fp32 on the CPU has 9,278 right." in block
    assert "driver 580.1, torch 2.11.0, onnxruntime-gpu 1.31.1; 2026-12-01." in " ".join(block.split())


def test_rates_of_a_benchmark_are_those_that_compare_something() -> None:
    report = newest_on_a_gpu(RECORDS.parent)
    assert report is not None
    quiet = [cell for cell in report.cells if cell.spread <= 0.1 and report.devices[cell.label] != "cpu"]
    torch = {cell.batch for cell in quiet if cell.label == "torch"}
    kept = [cell for cell in quiet if cell.batch in torch]
    rows = rows_of(bench_block(report))
    assert 0 < len(rows) < len(report.cells)
    assert [(row[0], row[1], row[3]) for row in rows] == [(c.backend, c.precision, f"{c.batch:,}") for c in kept]
    assert [row[4].split()[0] for row in rows] == [f"{cell.images_per_s:,.0f}" for cell in kept]


def test_the_newest_report_of_a_gpu_is_shown_whatever_was_measured_on_a_cpu_since(
    tmp_path: Path, machine: Machine
) -> None:
    content = json.loads(next(RECORDS.parent.glob("nvidia-h100*.json")).read_text(encoding="utf-8"))
    dates = {"old": ("2026-11-01", machine.gpu), "new": ("2026-12-01", machine.gpu), "cpu": ("2026-12-24", "")}
    for name, (date, gpu) in dates.items():
        changed = {**content, "date": date, "machine": {**content["machine"], "gpu": gpu}}
        (tmp_path / f"{name}.json").write_text(json.dumps(changed))
    found = newest_on_a_gpu(tmp_path)
    assert found is not None
    assert found.date == "2026-12-01"
    (tmp_path / "old.json").unlink()
    (tmp_path / "new.json").unlink()
    assert newest_on_a_gpu(tmp_path) is None


def test_a_report_is_kept_without_pictures_and_folders(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_record, "RESULTS", tmp_path)
    report = tmp_path / "out" / "report.json"
    report.parent.mkdir()
    content = {"machine": asdict(machine), "model": {"name": "a-b"}, "date": "2026-12-01 10:00 UTC"}
    content |= {"pictures": {"7": "iVBORw0KGgo="}, "files": {"onnx": "/tmp/x/a.onnx"}}
    report.write_text(json.dumps(content))
    report.with_suffix(".md").write_text("files: /tmp/x/a.onnx")
    kept = gpu_record.keep_report(report)
    assert kept == tmp_path / "nvidia-h100-80gb-hbm3_a-b_2026-12-01.json"
    found = json.loads(kept.read_text())
    assert (found["pictures"], found["files"]) == ({}, {"onnx": "a.onnx"})
    assert kept.with_suffix(".md").read_text() == "files: a.onnx"


@pytest.mark.parametrize("path", sorted(RECORDS.parent.rglob("*.json")), ids=lambda path: path.stem)
def test_no_kept_result_holds_images_of_a_data_set(path: Path) -> None:
    assert "iVBORw0KGgo" not in path.read_text(encoding="utf-8")  # how a PNG file begins, in base64


def test_an_epoch_of_training_is_391_steps_beside_the_seconds_of_the_keras_example(machine: Machine) -> None:
    unknown = {key: value for key, value in STEP.items() if key not in ("gpu_ms", "kernels")} | {"arch": "resnet8v1"}
    failed = {"arch": "resnet110v1", "variant": "on", "error": f"RuntimeError: {'no ' * 200}"}
    block = training_block(record_of(machine, [STEP, unknown, failed]))
    assert rows_of(block) == [
        ["`resnet56v1`", "cudagraphs", "6.5", "1,437", "6.3", "2.5", "0.4", "90"],  # 391 x 6.499 ms
        ["`resnet8v1`", "cudagraphs", "6.5", "", "", "2.5", "0.4", ""],
    ]
    assert "bf16; an epoch is 391 steps of 128 images" in block
    assert 50 < block.count("no ") < 70  # the note is cut off


@pytest.mark.parametrize(("difference", "shown"), [(120.136833, "120"), (1.3e-05, "1.3e-05")])
def test_options_that_give_wrong_logits_are_named(machine: Machine, difference: float, shown: str) -> None:
    rates = {"call 64": 93_693, "resident 64": 96_656, "call 1024": 174_004}
    found = [{"precision": "fp32", "options": "fused", **rates, "largest_difference": difference}]
    block = options_block(record_of(machine, found))
    assert rows_of(block) == [["fp32", "fused", "93,693", "174,004", "96,656", shown]]  # without an empty column
    assert ("gave wrong logits, with a difference of 120;" in " ".join(block.split())) == (shown == "120")
