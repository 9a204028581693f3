"""The tables of docs/gpus.md and docs/training.md about what was measured on a GPU, from the newest records."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from ..bench.report.report import Report, read_report
from ..bench.report.tables import BASELINE, throughput_table
from ..core.text import markdown_table
from .gpu_results import RECORDS, GpuRecord, newest
from .published import ROWS

WIDTH = 120
TRAIN_IMAGES = 50_000
BATCHES = (64, 1024)
LONGEST_REASON = 200
"""Characters of an error in a note."""
AS_RTK = "as rtk"
"""The row of rtk's own options, which the others are compared with."""


def gpu_blocks(folder: Path = RECORDS) -> dict[str, str]:
    """Every block by its name; empty texts without records."""
    tables = {
        "parity": parity_block,
        "training-speed": training_block,
        "onnxruntime-options": options_block,
        "onnxruntime-half": options_block,
    }
    names = {"onnxruntime-options": "gpu-onnxruntime"}
    records = {kind: newest(kind, folder) for kind in tables}
    report = newest_on_a_gpu(folder.parent)
    blocks = {
        names.get(kind, f"gpu-{kind}"): table(record) if (record := records[kind]) else ""
        for kind, table in tables.items()
    }
    return blocks | {"gpu-bench": bench_block(report) if report else ""}


def newest_on_a_gpu(folder: Path) -> Report | None:
    """The newest of the folder's reports of rtk bench that was made on a GPU; None without any."""
    reports = [read_report(path) for path in folder.glob("*.json")]
    return max((one for one in reports if one.machine.gpu), key=lambda one: one.date, default=None)


def parity_block(record: GpuRecord) -> str:
    """How many answers of each backend are those of PyTorch on the CPU, over a whole test split."""
    ran, failed = _parted(record.found)
    rows = [
        {
            "backend": row["backend"],
            "answers that are PyTorch's": f"{row['agreeing']:,} of {row['images']:,}",
            "right answers": f"{row['correct']:,}",
            "largest difference of a logit": _difference(row),
        }
        for row in ran
    ]
    reference = f"PyTorch in fp32 on the CPU has {ran[0]['reference_correct']:,} right. " if ran else ""
    notes = [f"{row['backend']}: {row['error']}" for row in failed]
    return _block(rows, notes, reference + _measured(record, "torch", "onnxruntime-gpu"))


def training_block(record: GpuRecord) -> str:
    """The time of a training step by network and --compile, and of an epoch beside that of the Keras example."""
    ran, failed = _parted(record.found)
    rows = [
        {
            "network": f"`{row['arch']}`",
            "`--compile`": row["variant"],
            "ms a step": f"{row['ms_a_step']:.1f}",
            "kernels a step": f"{row['kernels']:,}" if "kernels" in row else "",
            "their ms on the GPU": f"{row['gpu_ms']:.1f}" if "gpu_ms" in row else "",
            "s an epoch": f"{1e-3 * row['ms_a_step'] * _steps(row):.1f}",
            "s until 8 steps were done": f"{row['ready_s']:.1f}",
            "Keras example, s an epoch": _keras_s(row["arch"]),
        }
        for row in ran
    ]
    sizes = {(_steps(row), row["images_a_step"]) for row in ran}
    epochs = " and ".join(f"{steps} steps of {images} images" for steps, images in sorted(sizes))
    precisions = " and ".join(sorted({row["words"].split(", ")[1] for row in ran}))
    text = (
        f"{precisions}; an epoch is {epochs}, without evaluation. The Keras example's seconds are those of its own "
        f"comments, on a GTX 1080 Ti. {_measured(record, 'torch')}"
    )
    notes = [f"{row['arch']}, {row['variant']}: {row['error']}" for row in failed]
    return _block(rows, notes, text)


def options_block(record: GpuRecord) -> str:
    """Images a second by option of ONNX Runtime's CUDA provider, and what each changes in the logits."""
    ran, failed = _parted(record.found)
    rows = [
        {
            "precision": row["precision"],
            "options": row["options"],
            **{f"images/s at {batch:,}": _rate(row, f"call {batch}") for batch in BATCHES},
            **{f"{batch:,} on the GPU": _rate(row, f"resident {batch}") for batch in BATCHES},
            "largest difference of a logit": _difference(row),
        }
        for row in ran
    ]
    notes = [f"{row['precision']}, {row['options']}: {row['error']}" for row in failed]
    fused = [row for row in ran if row["precision"] == "fp32" and row["options"] == "fused"]
    wrong = "".join(
        f"`fuse_conv_bias` in fp32 gave wrong logits, with a difference of {_difference(row)}; rtk never uses it. "
        for row in fused
        if row["largest_difference"] > 1
    )
    compared = f"Differences are from the row *{AS_RTK}* of the precision. " if ran else ""
    return _block(rows, notes, compared + wrong + _measured(record, "onnxruntime-gpu"))


def bench_block(report: Report) -> str:
    """The rates of a report that are neither noisy nor disturbed, of backends on the GPU."""
    kept = [
        cell
        for cell in report.cells
        if cell.valid and report.devices[cell.label] != "cpu" and not (cell.noisy or cell.disturbed)
    ]
    rows = throughput_table(kept, baseline=BASELINE, share=report.share, devices=report.devices)
    columns = ("backend", "precision", "scope", "batch", "images/s", "x", "p50 ms", "p99 ms", "of ceiling")
    others = len(report.cells) - sum(bool(row["x"]) for row in rows)
    text = (
        f"x: images/s relative to eager PyTorch (torch); ±: 95 % interval. {others} of {len(report.cells)} "
        "measurements of this run are left out, because they or PyTorch's vary by more than 10 % between rounds. "
        f"{report.machine.summary}; {report.date}."
    )
    compared = [{name: row[name] for name in columns} for row in rows if row["x"]]
    return _block(compared, (), text)


def _parted(found: Iterable[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Rows that were measured, and rows that have an error instead."""
    rows = list(found)
    return [row for row in rows if "error" not in row], [row for row in rows if "error" in row]


def _block(rows: Sequence[Mapping[str, object]], notes: Sequence[str], text: str) -> str:
    short = [note if len(note) <= LONGEST_REASON else f"{note[:LONGEST_REASON].rstrip()} ..." for note in notes]
    names = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    rows = [{name: row[name] for name in names} for row in rows]
    failed = ["\n".join(fill(f"- {note}", WIDTH, subsequent_indent="  ") for note in short)] if short else []
    return "\n\n".join([markdown_table(rows), *(["Failed:", *failed] if failed else []), fill(text, WIDTH)])


def _measured(record: GpuRecord, *libraries: str) -> str:
    machine = record.machine
    versions = ", ".join(f"{name} {machine.libraries[name]}" for name in libraries if name in machine.libraries)
    return f"{machine.summary}; driver {machine.driver}, {versions}; {record.date}."


def _steps(row: Mapping[str, Any]) -> int:
    return math.ceil(TRAIN_IMAGES / row["images_a_step"])


def _rate(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:,}" if name in row else ""


def _difference(row: Mapping[str, Any]) -> str:
    value = float(row["largest_difference"])
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _keras_s(arch: str) -> str:
    """The seconds of an epoch of the Keras example on a GTX 1080 Ti, empty where it names none."""
    found = next((row.example_epoch_s for row in ROWS if (row.arch, row.dataset) == (arch, "cifar10")), None)
    return "" if found is None else str(found)
