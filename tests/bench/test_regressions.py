"""Comparing reports: a planted slowdown is reported, noise is not."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rtk.bench.report.regressions import change_rows, changes_text, compare_reports
from rtk.bench.report.report import read_cells, read_report
from rtk.core.errors import ArtifactError

RESULTS = Path(__file__).parent.parent.parent / "bench" / "results"


def report(path: Path, *, slowdown: float = 1.0, seed: int = 0, backend: str = "fake") -> Path:
    """A report of one backend at two batch sizes: 20 rounds of 5 calls of about 10 ms with 3 % noise."""
    random = np.random.default_rng(seed)
    cells = [
        {
            "backend": backend,
            "batch": batch,
            "precision": "fp32",
            "scope": "sync",
            "rounds": (0.01 * slowdown * random.normal(1, 0.03, (20, 5))).tolist(),
            "error": "",
        }
        for batch in (1, 64)
    ]
    path.write_text(json.dumps({"schema": "rtk-bench-5", "cells": cells}))
    return path


def test_a_slowdown_by_a_fifth_is_found_in_every_cell(tmp_path: Path) -> None:
    changes = compare_reports(report(tmp_path / "old.json"), report(tmp_path / "new.json", slowdown=1.2, seed=1))
    assert [change.new.batch for change in changes] == [1, 64]
    for change in changes:
        assert change.ratio == pytest.approx(1 / 1.2, abs=0.02)
        assert change.slower_by_more_than(5)
        assert not change.slower_by_more_than(25)
    assert {row["verdict"] for row in change_rows(changes)} == {"slower"}


def test_noise_is_no_regression(tmp_path: Path) -> None:
    flagged = 0
    for seed in range(1, 21):
        old, new = report(tmp_path / "old.json", seed=100 + seed), report(tmp_path / "new.json", seed=seed)
        flagged += sum(change.slower_by_more_than(2) for change in compare_reports(old, new))
    assert flagged == 0


def test_faster_is_reported_and_is_no_regression(tmp_path: Path) -> None:
    changes = compare_reports(report(tmp_path / "old.json"), report(tmp_path / "new.json", slowdown=0.5, seed=1))
    assert {row["verdict"] for row in change_rows(changes)} == {"faster"}
    assert not any(change.slower_by_more_than(0) for change in changes)


def test_files_that_are_no_reports_are_refused(tmp_path: Path) -> None:
    good = report(tmp_path / "good.json")
    (tmp_path / "old.json").write_text('{"schema": "rtk-bench-1", "cells": []}')
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(
        ArtifactError,
        match=r"old\.json: schema 'rtk-bench-1', expected 'rtk-bench-5' or 'rtk-bench-2' or 'rtk-bench-3' or",
    ):
        compare_reports(tmp_path / "old.json", good)
    with pytest.raises(ArtifactError, match=r"text\.json: not a report of rtk bench"):
        compare_reports(good, tmp_path / "text.json")
    with pytest.raises(ArtifactError, match=r"gone\.json: no such report; write one: rtk bench MODEL --report FOLDER$"):
        compare_reports(good, tmp_path / "gone.json")
    other = report(tmp_path / "other.json", backend="else")
    with pytest.raises(ArtifactError, match="have no cell in common"):
        compare_reports(good, other)


def test_a_report_of_the_earlier_schema_is_compared_with_a_new_one(tmp_path: Path) -> None:
    old, new = report(tmp_path / "old.json"), report(tmp_path / "new.json", slowdown=1.2, seed=1)
    content = json.loads(old.read_text())
    content["schema"] = "rtk-bench-2"
    content["cells"][0]["caught"] = "not believed: returns before its work is done: it is late"
    old.write_text(json.dumps(content))
    first = read_cells(old)[0]
    assert first.rejected == "rejected: asynchronous result: it is late"
    assert [(change.new.batch, change.beyond_noise) for change in compare_reports(old, new)] == [(64, True)]


def test_kept_reports_have_the_earlier_schema_and_a_later_one() -> None:
    schemas = {path.stem[-10:]: json.loads(path.read_text())["schema"] for path in RESULTS.glob("*.json")}
    assert schemas["2026-11-25"] == "rtk-bench-2"
    assert schemas["2026-11-27"] == "rtk-bench-5"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_the_kept_reports_of_every_schema_are_read_and_compared(path: Path, tmp_path: Path) -> None:
    kept = read_report(path)
    assert len(kept.cells) >= 8
    assert not any(cell.rejected for cell in kept.cells)
    onnx = next(one for one in kept.verdicts if one.candidate == "onnx")
    assert re.fullmatch(
        r"onnx \(fp32\): parity \(9,\d{3} of 10,000 right, reference 9,\d{3}; 0 answers changed\)", onnx.summary()
    )
    changes = compare_reports(path, path)
    assert {row["verdict"] for row in change_rows(changes)} == {"within noise"}
    assert max(map(len, changes_text(changes).splitlines())) <= 80
    (tmp_path / "report.json").write_text(kept.to_json())
    assert read_report(tmp_path) == kept


def test_cells_of_another_precision_or_scope_are_not_compared(tmp_path: Path) -> None:
    old, new = report(tmp_path / "old.json"), report(tmp_path / "new.json", seed=1)
    content = json.loads(new.read_text())
    content["cells"][0]["precision"] = "int8"
    content["cells"][1]["scope"] = "stream"
    new.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="have no cell in common"):
        compare_reports(old, new)


def test_a_cell_that_was_rejected_or_has_one_round_is_not_compared(tmp_path: Path) -> None:
    old, new = report(tmp_path / "old.json"), report(tmp_path / "new.json", seed=1)
    content = json.loads(new.read_text())
    content["cells"][0]["rejected"] = "rejected: asynchronous result"
    new.write_text(json.dumps(content))
    assert [change.new.batch for change in compare_reports(old, new)] == [64]
    content["cells"][1]["rounds"] = content["cells"][1]["rounds"][:1]
    new.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="have no cell in common"):
        compare_reports(old, new)


@pytest.mark.slow
def test_a_measured_slowdown_by_a_fifth_is_found_and_nothing_between_equal_runs(tmp_path: Path) -> None:
    """The fake sleeps 10 ms, then 12. Sleeping needs no processor, so other work on the machine matters little.

    On a busy machine the system may still wake the process late during one whole run: three tries.
    """
    for attempt in range(3):
        files = [measured(tmp_path / f"{attempt}-{k}.json", delay_s) for k, delay_s in enumerate((0.01, 0.01, 0.012))]
        same, slower = compare_reports(files[0], files[1]), compare_reports(files[0], files[2])
        found = all(change.slower_by_more_than(5) for change in slower)
        if found and not any(change.slower_by_more_than(5) for change in same):
            return
    pytest.fail(f"{change_rows(same)} and {change_rows(slower)}")


def measured(path: Path, delay_s: float) -> Path:
    from rtk.bench.config import BenchConfig
    from rtk.bench.measure.contenders import Contender
    from rtk.bench.measure.prepare import prepare
    from rtk.bench.measure.timing import measure_interleaved
    from rtk.infer.fake import FakeBackend

    config = BenchConfig((1, 8), seconds=2.0, scopes=("sync",))
    prepared = prepare([Contender(FakeBackend(delay_s=delay_s))], config, files=None)
    cells = measure_interleaved(prepared.cells, prepared.runners, config, on_change=lambda cell: None).cells
    content = {"schema": "rtk-bench-5", "cells": [vars(cell) for cell in cells]}
    path.write_text(json.dumps(content))
    return path
