"""The report's page shows the measurements and loads nothing from the network."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rtk.bench.config import BenchConfig
from rtk.bench.measure.cell import Cell
from rtk.bench.parity.compare import compare
from rtk.bench.report.html import page_of, pictures_of
from rtk.bench.report.plots import accuracy_points, pareto
from rtk.bench.report.report import Report
from rtk.cli.bench import write_report
from rtk.core.card import ModelCard
from rtk.core.data.datasets import Split
from rtk.core.data.synthetic_shapes import draw_shapes
from rtk.core.machine import this_machine


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
    rows = re.findall(r"<tr><td>(\w+)<td>fp32<td>host to host<td>([\d,]+)<td>([\d,]+)", page)
    assert ("onnx", "64", "6,124") in rows  # 64 / (0.01 x 1.045)
    assert ("torch", "1", "48") in rows


def test_the_page_loads_nothing_from_the_network(report: Report) -> None:
    page = page_of(report)
    links = set(re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')>\s]+)", page))
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links), links
    assert any(link.startswith("data:") for link in links)
    assert "<script" not in page


def test_plots_have_the_text_colour_in_light_and_dark_mode(report: Report) -> None:
    page = page_of(report)
    assert page.count("<svg") == 4
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
    assert "onnx: deer became cat; it is deer (image 4)" in page
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


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_with_all_its_data(report: Report, tmp_path: Path, width: int) -> None:
    """Headless Chromium runs a script that inspects the rendered page and writes the result into its title."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium: apt-get install chromium")
    looked = """
        <script>
        const boxes = [...document.querySelectorAll('[id^=data-]')].map(
            e => [e.id, e.getBBox().width + e.getBBox().height > 0]);
        const images = [...document.images].map(e => e.naturalWidth);
        const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
        document.title = JSON.stringify({boxes: Object.fromEntries(boxes), images, wide});
        </script>"""
    page = page_of(report).replace("</body>", looked + "</body>")
    assert page.count("default-src 'none'") == 1  # the page itself runs no script
    page = page.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    (tmp_path / "page.html").write_text(page)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--force-dark-mode"]
    options += [f"--window-size={width},1600", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [chromium, *options, str(tmp_path / "page.html")], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in done.stderr
    seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))  # type: ignore[index]
    expected = {f"data-{plot}-{name}" for plot in ("throughput", "latency", "accuracy") for name in ("torch", "onnx")}
    expected |= {"data-accuracy-front", "data-parity-torch", "data-parity-onnx"}
    assert set(seen["boxes"]) == expected
    assert all(seen["boxes"].values())
    assert seen["images"] == [32]
    assert not seen["wide"]


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
