"""Comparing reports: a planted slowdown is found, noise is not."""

import json
from pathlib import Path

import numpy as np
import pytest
from rtk.bench.compare import change_rows, compare_reports
from rtk.core.errors import ArtifactError


def report(path: Path, *, slowdown: float = 1.0, seed: int = 0, backend: str = "fake") -> Path:
    """A report of one backend at two batch sizes: 20 rounds of 5 calls of about 10 ms with 3 % noise."""
    random = np.random.default_rng(seed)
    cells = [
        {
            "backend": backend,
            "batch": batch,
            "rounds": (0.01 * slowdown * random.normal(1, 0.03, (20, 5))).tolist(),
            "error": "",
        }
        for batch in (1, 64)
    ]
    path.write_text(json.dumps({"schema": "rtk-bench-1", "cells": cells}))
    return path


def test_a_fifth_slower_is_found_in_every_cell(tmp_path: Path) -> None:
    changes = compare_reports(report(tmp_path / "old.json"), report(tmp_path / "new.json", slowdown=1.2, seed=1))
    assert [change.batch for change in changes] == [1, 64]
    for change in changes:
        assert change.ratio == pytest.approx(1 / 1.2, abs=0.02)
        assert change.slower_by_more_than(5)
        assert not change.slower_by_more_than(25)
    assert {row["verdict"] for row in change_rows(changes)} == {"slower"}


def test_the_same_again_is_no_regression(tmp_path: Path) -> None:
    flagged = 0
    for seed in range(1, 21):
        old, new = report(tmp_path / "old.json", seed=100 + seed), report(tmp_path / "new.json", seed=seed)
        flagged += sum(change.slower_by_more_than(2) for change in compare_reports(old, new))
    assert flagged == 0


def test_faster_is_told_and_is_no_regression(tmp_path: Path) -> None:
    changes = compare_reports(report(tmp_path / "old.json"), report(tmp_path / "new.json", slowdown=0.5, seed=1))
    assert {row["verdict"] for row in change_rows(changes)} == {"faster"}
    assert not any(change.slower_by_more_than(0) for change in changes)


def test_files_that_are_no_reports_are_refused(tmp_path: Path) -> None:
    good = report(tmp_path / "good.json")
    (tmp_path / "old.json").write_text('{"schema": "rtk-bench-0", "cells": []}')
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(ArtifactError, match=r"old\.json: schema 'rtk-bench-0', expected 'rtk-bench-1'"):
        compare_reports(tmp_path / "old.json", good)
    with pytest.raises(ArtifactError, match=r"text\.json: not a report of rtk bench"):
        compare_reports(good, tmp_path / "text.json")
    with pytest.raises(ArtifactError, match=r"gone\.json: no such report"):
        compare_reports(good, tmp_path / "gone.json")
    other = report(tmp_path / "other.json", backend="else")
    with pytest.raises(ArtifactError, match="have no cell in common"):
        compare_reports(good, other)
