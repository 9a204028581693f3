"""The report's page holds what was measured, and asks nothing of the network."""

import re
from html.parser import HTMLParser

import pytest
from rtk.bench.config import BenchConfig
from rtk.bench.measure import Cell
from rtk.bench.page import page_of
from rtk.bench.parity import compare
from rtk.bench.report import Report
from rtk.core.card import ModelCard
from rtk.core.machine import this_machine

VOID = {"meta", "link", "br", "img", "input", "hr"}


@pytest.fixture
def report(card: ModelCard) -> Report:
    """Two backends at two batch sizes; the second is twice as fast, and a third could not run."""
    import numpy as np

    logits_NK = np.eye(10, dtype=np.float32)
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
        parity=[compare(name, logits_NK, logits_NK, np.arange(10)) for name in ("torch", "onnx")],
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
    rows = re.findall(r"<tr><td>(\w+)<td>([\d,]+)<td>([\d,]+)", page)
    assert ("onnx", "64", "6,124") in rows  # 64 / (0.01 x 1.045)
    assert ("torch", "1", "48") in rows


def test_the_page_asks_nothing_of_the_network(report: Report) -> None:
    page = page_of(report)
    links = set(re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')>\s]+)", page))
    assert all(link.startswith("#") for link in links), links
    assert "<script" not in page


def test_plots_take_the_colour_of_the_text_in_light_and_dark(report: Report) -> None:
    page = page_of(report)
    assert page.count("<svg") == 2
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
    import dataclasses

    assert "Nothing was measured" in page_of(dataclasses.replace(report, cells=[]))
