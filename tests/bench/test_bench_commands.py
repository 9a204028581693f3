"""The commands rtk bench, bench-train and bench-files: their output in 80 columns, and the earlier spellings."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rtk.bench.measure.cell import Cell
from rtk.bench.report.tables import compact_tables
from rtk.bench.roofline.roofline import Share
from rtk.core.text import text_table
from rtk.workflow import models

RESULTS = Path(__file__).parent.parent.parent / "bench" / "results"
Run = Callable[..., tuple[str, str]]


@pytest.fixture
def rtk(monkeypatch: pytest.MonkeyPatch, command_line: Run) -> Run:
    """A function that runs a command line of rtk at 80 columns in tmp_path and returns both streams."""
    monkeypatch.setenv("COLUMNS", "80")
    return command_line


def widest(text: str) -> int:
    """Columns of the widest line, except lines that are nothing but a long path."""
    return max(len(line) for line in text.splitlines() if len(line.split()) > 1 or "/" not in line)


# The output.


@pytest.mark.usefixtures("without_self_check")
def test_bench_prints_one_table_and_one_line_per_verdict_in_80_columns(rtk: Run, shapes_model: Path) -> None:
    words = ["--backend", "torch", "--backend", "onnx", "--batch", "4,64", "--seconds", "0.5", "--no-baselines"]
    printed, _ = rtk("bench", str(shapes_model), *words)
    assert widest(printed) <= 80
    verdict = re.search(r"^onnx \(fp32\): .*", printed, re.MULTILINE)
    assert verdict
    assert re.search(r"^backend +scope +batch +images/s +x +p50 ms +p99 ms$", printed, re.MULTILINE)
    assert re.search(r"^onnx +host +64 ", printed, re.MULTILINE)
    one_line = " ".join(printed.split())
    without_note = re.sub("wrong ceiling: .*? do not use the column", "", one_line)  # a busy machine has it
    assert "ceiling" not in without_note
    assert "two clocks" not in printed
    legend = "x: images/s relative to torch; ±: 95 % interval; --verbose prints all columns, checks and notes"
    assert one_line.endswith(legend)


@pytest.mark.usefixtures("without_self_check")
def test_bench_verbose_prints_every_column_check_and_note_in_80_columns(rtk: Run, shapes_model: Path) -> None:
    words = ["--backend", "onnx", "--batch", "4", "--seconds", "0.5", "--verbose", "--no-baselines"]
    printed, _ = rtk("bench", str(shapes_model), *words)
    assert widest(printed) <= 80
    assert re.search(r"^backend +scope +batch +images/s +p50 ms +p99 ms$", printed, re.MULTILINE)
    assert re.search(r"^backend +scope +batch +mean +p90 ms +spread +rounds$", printed, re.MULTILINE)
    assert re.search(r"^backend +scope +batch +(outliers +)?(other load +)?of ceiling$", printed, re.MULTILINE)
    one_line = " ".join(printed.split())
    for words_of_note in (
        "every image answered once: 2,000 answers to 2,000 images",
        "within fp32 tolerance: relative RMS error ",
        "accuracy kept: ",
        "host (host to host): uint8 images in host memory",
        "the self-check for asynchronous results rejected no backend",
        "ceiling: ",
    ):
        assert words_of_note in one_line
    has_interval = bool(re.search(r"^onnx +host +4 .*±", printed, re.MULTILINE))  # a busy machine may run one round
    assert ("±: 95 % interval, by block bootstrap over interleaved rounds" in one_line) == has_interval
    assert "x: images/s" not in one_line  # torch was not measured, so the table has no column x
    assert " files (files to labels): " not in one_line


def test_bench_train_prints_80_columns(rtk: Run) -> None:
    printed, _ = rtk("bench-train", "resnet8v1", "--dataset", "shapes", "--seconds", "0.5", "--verbose")
    assert widest(printed) <= 80
    assert re.search(r"^backend +batch +images/s +x +p50 ms +p99 ms$", printed, re.MULTILINE)
    assert re.search(r"^backend +batch +mean +p90 ms +spread +rounds$", printed, re.MULTILINE)
    for name in ("plain loop", "bare loop", "rtk"):
        assert re.search(rf"^{name} +128 ", printed, re.MULTILINE)


def test_reports_of_earlier_versions_are_compared_in_80_columns(rtk: Run) -> None:
    path = str(min(RESULTS.glob("amd-epyc*cifar10*.json")))
    printed, _ = rtk("bench", "--compare", path, path)
    assert widest(printed) <= 80
    assert printed.startswith("Images/s, host to host\n\nbackend ")
    assert set(re.findall(r"(faster|slower|within noise)$", printed, re.MULTILINE)) == {"within noise"}


def test_the_widest_table_has_80_columns() -> None:
    long = [
        Cell("torch.compile", 4_096, scope="compute", rounds=[[0.003 * (1 + 0.1 * (k % 4))] * 2 for k in range(10)]),
        Cell("openvino", 4_096, "bf16", "stream", rounds=[[0.004]] * 9 + [[4.0]], cores=2, other_cores=[2.0] * 10),
        Cell("torch", 4_096, rounds=[[0.2 + 0.02 * (k % 2)] for k in range(10)]),
        Cell("onnx", 4_096, error="a message that is much longer than a column of this table can be"),
        Cell("torch", 65_536, rounds=[[41.0 + k % 2] for k in range(10)]),
    ]
    share = Share(1.234, (1.0, 1.3), "arithmetic")
    tables = [
        text_table(table)
        for value in (share, replace(share, value=0.5))
        for table in compact_tables(long, baseline="torch", share=lambda cell, value=value: value, verbose=True)  # type: ignore[misc]
    ]
    assert re.search(r" 1 +100% busy +123.4% ±23.4 wrong", tables[2])
    assert re.search(r" 1 +100% busy +50.0% ±80.0 arithmetic", tables[5])
    assert re.search(r"torch.compile  compute   4,096  1,\d{3},\d{3} ±", tables[0])
    assert max(map(widest, tables)) <= 80


# The earlier spellings.


def test_the_earlier_spelling_of_bench_files_runs_it_and_names_the_new_one(rtk: Run, shapes_model: Path) -> None:
    printed, log = rtk("bench", "--files", str(shapes_model), "--backend", "onnx", "--images", "100")
    assert printed.startswith("100 images to labels, fp32, ONNX Runtime ")
    assert "rtk: `rtk bench --files` is an old spelling; use: rtk bench-files" in log.splitlines()


@pytest.mark.parametrize("form", [["--train", "resnet8v1"], ["--train=resnet8v1"]])
def test_the_earlier_spelling_of_bench_train_runs_it_and_names_the_new_one(rtk: Run, form: list[str]) -> None:
    printed, log = rtk("bench", "--seconds", "0.2", *form, "--dataset", "shapes")
    assert printed.startswith("Training resnet8v1 on shapes, ")
    assert "rtk: `rtk bench --train` is an old spelling; use: rtk bench-train ARCH" in log.splitlines()


def test_the_help_of_bench_hides_the_earlier_spellings(rtk: Run) -> None:
    printed, _ = rtk("bench", "--help")
    assert "--compare" in printed
    for option in ("--train", "--files", "--keras", "--images", "--memory"):
        assert option not in printed


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("bench --images 4", "--images is an option of: rtk bench-files"),
        ("bench --limit 3", "--limit goes with --compare OLD NEW"),
        ("bench --keras", "--keras is an option of: rtk bench-train"),
        ("bench --files --scope sync --batch 3", "--files: leave out --scope, --batch, which would have no effect"),
        ("bench --train resnet8v1 --files", "--train and --files: choose one: rtk bench-train ARCH or rtk bench-files"),
        ("bench --train", "--train: the architecture is missing; run: rtk bench-train ARCH"),
        ("bench --compare a b --report c", "--compare: leave out --report, which would have no effect"),
        (
            "bench-files --precision int8 --precision fp32",
            "--precision fp32: rtk bench-files takes one --precision only",
        ),
    ],
)
def test_options_without_an_effect_are_refused(words: str, line: str, rtk: Run) -> None:
    _, log = rtk(*words.split(), code=2)
    assert log == f"rtk: {line}\n"


@pytest.mark.parametrize(
    "words", ["bench a.pt --train resnet8v1", "bench-train resnet8v1 --backend onnx", "bench-files --scope sync"]
)
def test_what_a_command_does_not_have_is_wrong_usage(words: str, rtk: Run) -> None:
    _, log = rtk(*words.split(), code=2)
    assert "unexpected extra argument" in log or "no such option" in log


# Work that is done once.


@pytest.mark.usefixtures("without_self_check")
def test_the_card_is_read_and_the_checkpoint_hashed_once_for_all_backends(
    rtk: Run, shapes_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards, hashes = [], []
    read_card, sha256_of = models.read_card, models.sha256_of
    monkeypatch.setattr(models, "read_card", lambda found: cards.append(found) or read_card(found))
    monkeypatch.setattr(models, "sha256_of", lambda path: hashes.append(path) or sha256_of(path))
    words = ["--backend", "torch", "--backend", "onnx", "--backend", "openvino", "--batch", "4", "--seconds", "0.2"]
    rtk("bench", str(shapes_model), *words, "--no-baselines")
    assert len(cards) == 1
    assert len([path for path in hashes if path.suffix == ".pt"]) == 1
