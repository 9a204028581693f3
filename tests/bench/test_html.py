"""The report's page shows the measurements and loads nothing from the network."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fakes.browser import look_at
from rtk.bench.config import SCOPES, BenchConfig
from rtk.bench.measure.cell import Cell
from rtk.bench.parity.compare import compare
from rtk.bench.parity.verdict import judge
from rtk.bench.report.answer import BASELINES, answer_table
from rtk.bench.report.html import page_of, pictures_of
from rtk.bench.report.not_run import not_run
from rtk.bench.report.notes import notes_on
from rtk.bench.report.plots import accuracy_points, pareto
from rtk.bench.report.render import report_markdown, report_text
from rtk.bench.report.report import Report
from rtk.bench.report.series import COLOURS, MARKERS, STYLES, split_label
from rtk.bench.report.tables import compact_tables, report_table
from rtk.bench.roofline.roofline import DeviceRates, Operations
from rtk.core.card import ModelCard
from rtk.core.data.datasets import Split
from rtk.core.data.synthetic_shapes import draw_shapes
from rtk.core.machine import this_machine
from rtk.core.tolerances import PRECISIONS
from rtk.infer.backend import BACKENDS
from rtk.workflow.bench_options import write_report


def named(*logits):  # type: ignore[no-untyped-def]
    return zip(("torch", "onnx"), logits, strict=True)


VOID = {"meta", "link", "br", "img", "input", "hr"}


@pytest.fixture
def report(card: ModelCard) -> Report:
    """Two backends at two batch sizes; the second is twice as fast, and a third could not run."""
    import numpy as np

    logits_NK = np.eye(10, dtype=np.float32)
    changed_NK = np.where(np.arange(10)[:, None] == 4, np.roll(logits_NK, -1, axis=1), logits_NK)
    split = Split(*draw_shapes(10, seed=3))
    parity = [compare(name, logits_NK, other_NK, np.arange(10)) for name, other_NK in named(logits_NK, changed_NK)]
    cells = [
        Cell(name, batch, rounds=[[seconds * (1 + k / 100)] * 3 for k in range(10)])
        for batch in (1, 64)
        for name, seconds in (("torch", 0.02), ("onnx", 0.01))
    ]
    return Report(
        model=card,
        machine=this_machine(),
        date="2026-01-02 03:04 UTC",
        config=BenchConfig(),
        backends={"torch": "PyTorch <eager> & more", "onnx": "ONNX Runtime"},
        unusable={"trt": "no NVIDIA driver"},
        cells=cells,
        dataset="cifar10 (test split, 10 images)",
        parity=parity,
        pictures=pictures_of(split, parity),
    )


def test_the_page_shows_every_cell_and_why_a_backend_is_missing(report: Report) -> None:
    page = page_of(report)
    for words in (
        "resnet8v1-cifar10",
        "10 of 10",
        "no NVIDIA driver",
        "host memory",
        "PyTorch &lt;eager&gt; &amp; more",
    ):
        assert words in page
    plain = re.sub(r" class='?\w+'?", "", page)
    rows = re.findall(r"<tr><td>(\w+)<td>fp32<td>host to host<td>([\d,]+)<td>([\d,]+)", plain)
    assert ("onnx", "64", "6,124") in rows  # 64 / (0.01 x 1.045)
    assert ("torch", "1", "48") in rows


def test_the_page_begins_with_the_answer_and_ends_with_what_did_not_run(report: Report) -> None:
    page = page_of(report)
    places = [page.index(words) for words in ("<h1>", "10 of 10", "<svg", "Throughput and latency", "<h2>What ran")]
    assert places == sorted(places)
    assert page.index("no NVIDIA driver") > max(places)
    assert page.count("no NVIDIA driver") == 1


def test_the_terminal_and_markdown_end_with_what_did_not_run(report: Report) -> None:
    assert report_text(report).endswith("What did not run\n  trt: not run: no NVIDIA driver")
    assert report_markdown(report).endswith("What did not run.\n\n- trt: not run: no NVIDIA driver\n")


def test_the_answer_has_verdict_rate_speed_up_and_latency_of_every_backend(report: Report) -> None:
    report = dataclasses.replace(report, verdicts=[judge(report.parity[1], precision="fp32")])
    torch, onnx = answer_table(report)
    assert torch["verdict"] == "reference"
    assert torch["x torch"] == "1.00"
    assert onnx["verdict"] == "NO PARITY"
    assert (onnx["right answers"], onnx["changed"]) == ("9 of 10", "1")
    assert onnx["best images/s"].startswith("6,124 ")
    assert onnx["at"] == "batch 64, host to host"
    assert onnx["x torch"] == "2.00 ±0.00"
    assert onnx["latency, batch 1"] == "10.45 ms"


def test_a_speed_up_to_another_batch_size_names_it_and_has_no_interval(report: Report) -> None:
    slow = Cell("torch", 64, rounds=[[6.4]] * 3)
    cells = [Cell("torch", 8, rounds=[[0.4]] * 3), slow, Cell("onnx", 64, rounds=[[1.6]] * 3)]
    rows = answer_table(dataclasses.replace(report, cells=cells))
    assert [row["x torch"] for row in rows] == ["1.00", "2.00 (torch: batch 8)"]
    on_device = [Cell("torch", 8, rounds=[[0.4]] * 3), Cell("onnx", 8, scope="compute", rounds=[[0.1]] * 3)]
    rows = answer_table(dataclasses.replace(report, cells=on_device))
    assert rows[1]["x torch"] == "4.00 (torch: batch 8, host to host)"
    assert rows[1]["at"] == "batch 8, compute"


def test_a_backend_on_the_cpu_has_no_ratio_to_pytorch_on_a_gpu(report: Report) -> None:
    """onnx int8 fell back to the CPU in a run on an H100, and stood there with x 0.02."""
    cells = [
        Cell("torch", 8, rounds=[[0.4]] * 3),
        Cell("onnx", 8, rounds=[[0.1]] * 3),
        Cell("onnx", 8, "int8", rounds=[[8.0]] * 3),
        Cell("onnx", 16, "int8", rounds=[[8.0]] * 3),
    ]
    devices = {"torch": "cuda:0", "onnx": "cuda:0", "onnx int8": "cpu"}
    mixed = dataclasses.replace(report, cells=cells, devices=devices)
    assert [row.get("x", "") for row in report_table(mixed)] == ["1.00", "4.00 ±0.00", "on CPU", ""]
    (compact,) = compact_tables(cells, baseline="torch", devices=devices)
    assert [row["x"] for row in compact] == ["1.00", "4.00 ±0.00", "on CPU", ""]
    assert [row["x torch"] for row in answer_table(mixed)] == ["1.00", "4.00 ±0.00", "on CPU"]
    line = "on CPU: onnx int8 ran on the CPU and torch on cuda:0, so no ratio is given: it would compare processors"
    assert line in notes_on(mixed)
    on_one_device = dataclasses.replace(mixed, devices=dict.fromkeys(devices, "cpu"))
    assert report_table(on_one_device)[2]["x"] == "0.05 ±0.00"
    assert not any(note.startswith("on CPU") for note in notes_on(on_one_device))


def test_a_long_change_of_the_batch_size_is_one_note(report: Report) -> None:
    cells = [
        Cell("torch", 8, rounds=[[0.4]] * 3, first_call_s=[0.4] * 3),
        Cell("onnx", 8, rounds=[[0.005]] * 3, first_call_s=[0.075, 0.065, 0.5]),
        Cell("onnx", 8, "fp16", rounds=[[0.005]] * 3, first_call_s=[0.155] * 3),
        Cell("onnx", 16, "fp16", rounds=[[0.005]] * 3, first_call_s=[0.1] * 3),
    ]
    notes = [one for one in notes_on(dataclasses.replace(report, cells=cells)) if one.startswith("a change of")]
    assert notes == [
        "a change of the batch size: its first call took longer than the next one: onnx up to 70 ms, onnx fp16 up to "
        "150 ms; in no other figure"
    ]
    assert not [one for one in notes_on(report) if one.startswith("a change of")]


def test_the_answer_says_what_failed_what_was_rejected_and_what_only_serves_for_comparison(report: Report) -> None:
    cells = [
        Cell("torch", 8, rounds=[[0.4]]),
        Cell("onnx", 8, rounds=[[0.1]], rejected="rejected: early"),
        Cell("trt", 8, error="no memory"),
        Cell("plain loop", 8, rounds=[[0.8]]),
        Cell("openvino", 8, rounds=[[0.8]]),
        Cell("openvino", 8, scope="stream", rounds=[[0.8]], rejected="rejected: early"),
    ]
    backends = dict.fromkeys(("torch", "onnx", "trt", "plain loop", "openvino", "rounded fp16"), "a library")
    changed = dataclasses.replace(report, cells=cells, backends=backends, unusable={"trt": "trt: no memory"})
    rows = {row["backend"]: row for row in answer_table(changed)}
    assert {name: row["best images/s"] for name, row in rows.items() if not row["at"]} == {
        "onnx": "rejected",
        "trt": "failed",
        "rounded": "not timed",
    }
    assert rows["trt"]["verdict"] == "failed"
    assert rows["plain loop"]["verdict"] == "baseline"
    assert rows["openvino"]["verdict"] == "not compared; 1 of 2 measurements rejected"


def test_the_baselines_are_those_that_the_benchmark_adds() -> None:
    from rtk.bench.baselines.inference import BASELINES as CLASSES

    assert ("torch", *(one.name for one in CLASSES)) == BASELINES


def test_each_cause_is_given_once_with_all_that_it_stopped(report: Report) -> None:
    hashed = "onnx: ~/graphs/{}-e20e48ebd26228f4c8fc24adbccfaf78.onnx: no Conv in this type; use --backend openvino"
    causes = {
        "trt": "trt: no NVIDIA driver",
        "trt fp16": "trt: no NVIDIA driver",
        "torch bf16": "torch: bf16: it is the reference here",
        "torch int8": "torch: int8: it is the reference here",
        "onnx bf16": hashed.format("bf16"),
        "onnx fp16": hashed.format("fp16").replace("e20e", "aaaa"),
        "tensorflow": "tensorflow: not installed: pip install tensorflow",
    }
    cells = [
        Cell("full", batch, scope=scope, error="full: out of GPU memory")  # type: ignore[arg-type]
        for batch, scope in ((8, "sync"), (64, "stream"))
    ]
    assert not_run(dataclasses.replace(report, unusable=causes, cells=cells)) == {
        "trt, trt fp16": "not run: no NVIDIA driver",
        "torch bf16, torch int8": "not run: it is the reference here",
        "onnx bf16, onnx fp16": "not run: its file: no Conv in this type; use --backend openvino",
        "tensorflow": "not run: not installed: pip install tensorflow",
        "full, host, batch 8; full, stream, batch 64": "failed: out of GPU memory",
    }


def test_a_report_in_which_nothing_changed_has_sentences_instead_of_empty_pictures(report: Report) -> None:
    page = page_of(dataclasses.replace(report, parity=report.parity[:1]))
    assert "answers that changed" not in page
    assert "class=images" not in page
    assert "None: every backend answers every image as PyTorch fp32 does." in page
    assert "All backends have the same accuracy: 100.00%." in page


def test_the_checks_of_a_verdict_stand_on_lines_of_their_own(report: Report) -> None:
    page = page_of(dataclasses.replace(report, verdicts=[judge(report.parity[1], precision="fp32")]))
    assert "<pre>onnx (fp32): NO PARITY\n  " in page
    assert "\\n" not in page


def test_a_backend_has_its_own_colour_and_a_precision_its_own_marker() -> None:
    assert set(COLOURS) >= {*BACKENDS, *BASELINES}
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert list(MARKERS) == list(PRECISIONS)
    assert len(set(MARKERS.values())) == len(MARKERS)
    assert set(STYLES) == set(SCOPES)


def test_a_backend_keeps_its_colour_whatever_else_is_in_the_plot(report: Report) -> None:
    alone = dataclasses.replace(report, cells=report.cells[1::2], parity=[])
    for shown in (report, alone):
        lines = re.findall(r'<g id="data-(?:throughput|latency)-onnx">\s*<path[^>]*stroke: (#\w+)', page_of(shown))
        assert lines == [COLOURS["onnx"]] * 2


def test_the_page_loads_nothing_from_the_network(report: Report) -> None:
    page = page_of(report)
    links = set(re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')>\s]+)", page))
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links), links
    assert any(link.startswith("data:") for link in links)
    assert "<script" not in page


def test_plots_have_the_text_colour_in_light_and_dark_mode(report: Report) -> None:
    page = page_of(report)
    assert len(re.findall(r"<svg[^>]* version=", page)) == 4
    assert "currentColor" in page
    assert "#010203" not in page
    assert "prefers-color-scheme: dark" in page


def test_tags_inside_the_plots_are_balanced(report: Report) -> None:
    class Balance(HTMLParser):
        depth = 0

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.depth += tag not in VOID

        def handle_endtag(self, tag: str) -> None:
            self.depth -= 1

    for drawing in re.findall(r"<svg.*?</svg>", page_of(report), re.DOTALL):
        parser = Balance()
        parser.feed(drawing)
        assert parser.depth == 0


def test_a_report_without_cells_is_a_page_too(report: Report) -> None:
    assert "Nothing was measured" in page_of(dataclasses.replace(report, cells=[]))


def test_the_images_whose_answers_changed_are_in_the_page(report: Report) -> None:
    page = page_of(report)
    assert page.count("<img") == 1
    assert "onnx: deer became cat; it is deer<small>image 4</small>" in page
    assert "None: every backend answers" in page_of(dataclasses.replace(report, parity=report.parity[:1]))


def test_the_pareto_front_holds_the_points_that_no_other_point_dominates() -> None:
    points = {"slow": (10.0, 0.9), "fast": (20.0, 0.8), "beaten": (15.0, 0.75), "best": (20.0, 0.85)}
    assert pareto(points) == ["slow", "best"]


def test_accuracy_is_drawn_over_the_highest_throughput_host_to_host(report: Report) -> None:
    cells = [
        Cell("onnx", 1, rounds=[[0.1]]),
        Cell("onnx", 8, rounds=[[0.2]]),
        Cell("onnx", 8, scope="compute", rounds=[[0.1]]),
    ]
    assert accuracy_points(cells, report.parity[1:]) == {"onnx": (pytest.approx(40), 0.9)}


def made_up(report: Report) -> Report:
    """Fifteen contenders in three scopes and twelve batch sizes, with long names, failures and rejected cells."""
    labels = [f"{backend} {precision}".removesuffix(" fp32") for backend in BACKENDS for precision in MARKERS]
    labels = [*labels, "torch.compile", "plain loop", "a backend <b>with</b> a name of more than forty letters"]
    cells = []
    for k, label in enumerate(labels):
        backend, precision = split_label(label)
        for scope in ("compute", "sync", "stream"):
            for batch in (2**power for power in range(13)):
                seconds = batch / (200 * 1.5**k * batch / (batch + 8))
                cell = Cell(
                    backend,
                    batch,
                    precision,
                    scope,
                    [[seconds * slow] * 3 for slow in (1, 1.3, 1, 1.3, 1, 1.3, 1.3, 6)],
                )  # type: ignore[arg-type]
                if (label, batch) == ("trt fp16", 4096):
                    cell = dataclasses.replace(cell, rounds=[], error="trt fp16: out of GPU memory (2 GiB requested)")
                if label == "onnx bf16":
                    cell.rejected = "rejected: it returns before its work is done"
                cells.append(dataclasses.replace(cell, cores=2, other_cores=[0.84] * 8))
    parity = [dataclasses.replace(report.parity[1], candidate=label) for label in labels]
    verdicts = [judge(one, precision=split_label(one.candidate)[1]) for one in parity]
    unusable = {f"gone {precision}": f"gone: {precision}: not installed" for precision in ("fp16", "int8")}
    backends = {label: f"what runs {label}" for label in labels}
    return dataclasses.replace(
        report,
        cells=cells,
        parity=parity,
        verdicts=verdicts,
        unusable=unusable,
        backends=backends,
        graph=Operations(matrix=10_000, other=10, image_bytes=100, logits_bytes=20, weight_bytes=400, between_bytes=0),
        devices=dict.fromkeys(labels, "cpu"),
        rates=[DeviceRates("cpu", {"fp32": 1e8, "bf16": 4e8, "fp16": 4e8}, 1e9, None, None)],
    )


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_with_all_its_data(report: Report, tmp_path: Path, width: int) -> None:
    page = page_of(report)
    assert page.count("default-src 'none'") == 1
    seen = look_at(page, tmp_path, width=width)
    expected = {f"data-{plot}-{name}" for plot in ("throughput", "latency", "accuracy") for name in ("torch", "onnx")}
    expected |= {"data-accuracy-front", "data-parity-onnx"}
    assert set(seen.series) == expected
    assert all(seen.series.values())
    assert seen.images == [32]
    assert seen.faults == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("many", [False, True])
def test_no_table_is_cut_on_a_desktop_and_only_tables_scroll_on_a_phone(
    report: Report, tmp_path: Path, width: int, many: bool
) -> None:
    seen = look_at(page_of(made_up(report) if many else report), tmp_path, width=width)
    assert seen.width > width - 20
    assert seen.sideways == 0
    assert seen.tables == 3
    assert seen.loose == 0
    assert len(seen.cut) == (0 if width == 1280 else 3)
    assert seen.faults == []


@pytest.mark.parametrize(("home", "shown"), [("/home/ada", "~/a.engine"), ("/", "/home/ada/a.engine")])
def test_no_file_of_a_report_contains_the_path_of_the_home_folder(
    home: str, shown: str, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    report.cells[0].error = "torch: /home/ada/a.engine: out of memory"
    write_report(dataclasses.replace(report, unusable={"trt": "/home/ada/a.engine: no such engine"}), tmp_path)
    for suffix in ("json", "md", "html"):
        text = (tmp_path / f"report.{suffix}").read_text()
        assert f"{shown}: no such engine" in text
        assert ("/home/ada" in text) == (home == "/")
