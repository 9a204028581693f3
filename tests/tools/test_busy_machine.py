"""The record of two runs on a busy machine, its text, and the backend that is slowed down on purpose."""

import time
from pathlib import Path

import numpy as np
import pytest
from rtk.core.card import Input
from rtk.infer.fake import FakeBackend
from rtk.tools.busy_machine import RECORDS, SLOWDOWN, Slowed, busy_block
from rtk.tools.readme_tables import block_in

PAGE = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"


def test_the_docs_show_the_newest_record() -> None:
    block = block_in(PAGE.read_text(encoding="utf-8"), "busy-machine")
    assert block == busy_block(RECORDS)
    assert "keeps one core half busy" in " ".join(block.split())
    assert busy_block(Path("nowhere")) == ""


def test_a_slowed_backend_gives_the_same_answers_and_computes_longer() -> None:
    backend = FakeBackend(delay_s=0.02, size=Input(8, 8, 3))
    images_NHWC = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    started_at = time.perf_counter()
    logits_NK = Slowed(backend)(images_NHWC)
    assert time.perf_counter() - started_at >= SLOWDOWN * 0.02
    np.testing.assert_array_equal(logits_NK, backend(images_NHWC))
    assert pytest.approx(0.8) == 1 / SLOWDOWN  # it loses a fifth of its rate
