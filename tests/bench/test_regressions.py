"""Comparing reports: a planted slowdown is reported, noise is not."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.simulated_clock import SimulatedClock
from rtk.bench.config import BenchConfig
from rtk.bench.measure import other_load
from rtk.bench.measure.cell import Cell
from rtk.bench.measure.contenders import Contender, RanFile
from rtk.bench.report.regressions import Change, change_rows, changes_text, compare_reports
from rtk.bench.report.report import Report, read_report
from rtk.bench.roofline.roofline import DeviceRates
from rtk.core.card import Input, ModelCard, Preprocessing
from rtk.core.errors import ArtifactError
from rtk.core.machine import Machine

MACHINE = Machine("Some CPU", 2, ("avx2",), 8.0, "", "", "Linux x86_64", "3.11", {}, "0123456789ab")
RESULTS = Path(__file__).parent.parent.parent / "bench" / "results"


CARD = ModelCard("net", "resnet8v1", "cifar10", ("a", "b"), Input(32, 32, 3), Preprocessing((0.5,), (0.5,)))


def report(
    path: Path,
    *,
    slowdown: float = 1.0,
    seed: int = 0,
    backend: str = "fake",
    noise: float = 0.03,
    machine_slowdown: float = 1.0,
    other_cores: float = 0.0,
    **other: object,
) -> Path:
    """A report of one backend at two batch sizes: 20 rounds of 5 calls of about 10 ms with 3 % noise.

    `machine_slowdown` is that of the cells and of the device's rates.
    """
    random = np.random.default_rng(seed)
    taken_s = 0.01 * slowdown * machine_slowdown
    cells = [
        Cell(
            backend,
            batch,
            rounds=(taken_s * random.normal(1, noise, (20, 5))).tolist(),
            cores=2,
            other_cores=[other_cores] * 20,
        )
        for batch in (1, 64)
    ]
    turns = {"fp32": (1e11 / machine_slowdown * random.normal(1, noise, 20)).tolist()}
    found = Report(
        model=CARD,
        machine=MACHINE,
        date="2026-01-02 03:04 UTC",
        config=BenchConfig(),
        backends={backend: "a fake"},
        unusable={},
        cells=cells,
        dataset="cifar10 (test split, 10,000 images)",
        parity=[],
        devices={backend: "cpu"},
        rates=[DeviceRates.of("cpu", {}, turns | {"copy": [1e10] * 20})],
        files={"reference": RanFile("net.pt", "ab" * 32)},
    )
    path.write_text(replace(found, **other).to_json())
    return path


def changes_of(old: Path, new: Path, *, force: bool = False) -> list[Change]:
    return compare_reports(old, new, force=force).changes


def test_a_slowdown_by_a_fifth_is_found_in_every_cell(tmp_path: Path) -> None:
    changes = changes_of(report(tmp_path / "old.json"), report(tmp_path / "new.json", slowdown=1.2, seed=1))
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
        flagged += sum(change.slower_by_more_than(2) for change in changes_of(old, new))
    assert flagged == 0


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": replace(CARD, name="other")}, r"model: net \(checkpoint abababababab\) and other \(checkpoint"),
        (
            {"files": {"reference": RanFile("net.pt", "cd" * 32)}},
            r"model: net \(checkpoint abababababab\) and net \(ch",
        ),
        ({"dataset": "shapes (test split, 10 images)"}, r"data set: cifar10 \(test split, 10,000 images\) and shapes"),
        ({"machine": replace(MACHINE, processor="Other CPU")}, "machine: Some CPU, 2 cores and Other CPU, 2 cores"),
        ({"machine": replace(MACHINE, cores=4)}, "machine: Some CPU, 2 cores and Some CPU, 4 cores"),
        ({"machine": replace(MACHINE, gpu="H100")}, "machine: Some CPU, 2 cores and H100, Some CPU, 2 cores"),
        ({"machine": replace(MACHINE, features=("avx2", "avx512f"))}, "and Some CPU, 2 cores, with avx512f"),
    ],
)
def test_reports_of_other_models_data_sets_or_machines_are_compared_only_with_force(
    tmp_path: Path, changed: dict[str, object], named: str
) -> None:
    old, new = report(tmp_path / "old.json"), report(tmp_path / "new.json", seed=1, **changed)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=rf"are not of the same .*{named}.*; to compare .*: --force$"):
        compare_reports(old, new)
    compared = compare_reports(old, new, force=True)
    assert len(compared.changes) == 2
    text = " ".join(changes_text(compared).split())
    assert re.search(rf"not the same, so the ratios may mean nothing: .*{named.partition(': ')[2]}", text)


def test_all_that_differs_is_named_at_once(tmp_path: Path) -> None:
    old = report(tmp_path / "old.json")
    new = report(tmp_path / "new.json", model=replace(CARD, name="b"), dataset="c", machine=replace(MACHINE, cores=3))
    with pytest.raises(ArtifactError, match="are not of the same model, data set and machine: net"):
        compare_reports(old, new)


def test_another_version_of_the_libraries_or_of_rtk_is_what_a_comparison_is_for(tmp_path: Path) -> None:
    newer = replace(MACHINE, libraries={"torch": "3.0"}, commit="ba9876543210", python="3.14")
    old, new = report(tmp_path / "old.json"), report(tmp_path / "new.json", seed=1, machine=newer)
    assert not compare_reports(old, new).differences


def test_a_slower_machine_is_no_regression(tmp_path: Path) -> None:
    """A third slower, as is the device's own rate: each interval of the ratio alone excludes 1."""
    old, new = report(tmp_path / "old.json"), report(tmp_path / "new.json", seed=1, machine_slowdown=1.5)
    changes = changes_of(old, new)
    assert all(change.high < 0.8 for change in changes)
    assert {change.verdict for change in changes} == {"within noise"}
    assert not any(change.slower_by_more_than(5) for change in compare_reports(old, new).pooled)
    planted = report(tmp_path / "planted.json", seed=1, machine_slowdown=1.5, slowdown=1.2)
    assert all(change.slower_by_more_than(5) for change in changes_of(old, planted))


def test_a_planted_slowdown_is_found_on_a_noisy_machine_and_equal_runs_agree(tmp_path: Path) -> None:
    """Rounds of equal runs differ by 10 %, as beside a process that uses half a core; 15 pairs of each kind."""
    false_alarms = found = 0
    for seed in range(15):
        old = report(tmp_path / "old.json", seed=seed, noise=0.1)
        same = report(tmp_path / "same.json", seed=1_000 + seed, noise=0.1)
        slower = report(tmp_path / "slower.json", seed=2_000 + seed, noise=0.1, slowdown=1.25)
        false_alarms += any(change.slower_by_more_than(5) for change in changes_of(old, same))
        found += any(change.slower_by_more_than(5) for change in changes_of(old, slower))
    assert false_alarms == 0
    assert found >= 14


def two_backends(path: Path, *, seed: int, slowdown: float = 1.0, noise: float = 0.1) -> Path:
    """A report of two backends at four batch sizes on a machine whose speed changes; `slowdown`: of the first."""
    random = np.random.default_rng(seed)
    speed_R = np.exp(np.cumsum(random.normal(0, 0.05, 20)))
    cells = [
        Cell(
            name,
            batch,
            rounds=[[0.01 * factor * float(off / speed)] for off, speed in zip(off_R, speed_R, strict=True)],
        )
        for name, factor in (("onnx", slowdown), ("openvino", 1.0))
        for batch in (1, 4, 16, 64)
        for off_R in [random.normal(1, noise, 20)]
    ]
    return report(path, cells=cells, devices=dict.fromkeys(("onnx", "openvino"), "cpu"), rates=[])


def test_all_cells_of_a_backend_together_show_what_single_cells_hide(tmp_path: Path) -> None:
    """The machine's speed wanders by a fifth, in 15 pairs of runs. The first backend then loses a fifth of its rate."""
    by_cell = together = false_alarms = 0
    for seed in range(15):
        old, same = (
            two_backends(tmp_path / f"{name}.json", seed=seed + k) for k, name in ((0, "old"), (1_000, "same"))
        )
        slower = two_backends(tmp_path / "slower.json", seed=2_000 + seed, slowdown=1.25)
        equal, found = compare_reports(old, same), compare_reports(old, slower)
        false_alarms += any(one.slower_by_more_than(5) for one in equal.changes + equal.pooled)
        false_alarms += any(one.slower_by_more_than(5) for one in found.pooled if one.new.backend == "openvino")
        by_cell += any(one.slower_by_more_than(5) for one in found.changes)
        together += any(one.slower_by_more_than(5) for one in found.pooled)
    assert false_alarms <= 1
    assert together > by_cell
    assert together >= 5
    pooled = found.pooled[0]
    assert pooled.ratio == pytest.approx(np.exp(np.mean([np.log(one.ratio) for one in found.changes[:4]])), rel=0.1)
    lines = changes_text(found).splitlines()
    assert [line.split()[:2] for line in lines[3:5]] == [["onnx", "all"], ["openvino", "all"]]
    assert max(map(len, lines)) <= 80


def test_the_interval_holds_for_all_cells_together(tmp_path: Path) -> None:
    one, both = report(tmp_path / "a.json"), report(tmp_path / "b.json", seed=1)
    content = json.loads(one.read_text())
    content["cells"] = content["cells"][:1]
    (tmp_path / "single.json").write_text(json.dumps(content))
    (alone,), together = changes_of(tmp_path / "single.json", both), changes_of(one, both)[0]
    assert alone.ratio == together.ratio
    assert together.low < alone.low < alone.high < together.high


def test_a_run_beside_other_processes_is_not_compared_with_a_quiet_one(tmp_path: Path) -> None:
    quiet = report(tmp_path / "quiet.json")
    busy = report(tmp_path / "busy.json", seed=1, slowdown=1.5, other_cores=0.5)
    compared = compare_reports(quiet, busy)
    assert {change.verdict for change in compared.changes} == {"other load"}
    assert not any(change.slower_by_more_than(0) for change in compared.changes)
    assert "other load: other processes took another share of the cores" in changes_text(compared)
    alike = report(tmp_path / "alike.json", other_cores=0.5)
    assert {change.verdict for change in changes_of(alike, busy)} == {"slower"}


def test_faster_is_reported_and_is_no_regression(tmp_path: Path) -> None:
    changes = changes_of(report(tmp_path / "old.json"), report(tmp_path / "new.json", slowdown=0.5, seed=1))
    assert {row["verdict"] for row in change_rows(changes)} == {"faster"}
    assert not any(change.slower_by_more_than(0) for change in changes)


def test_files_that_are_no_reports_are_refused(tmp_path: Path) -> None:
    good = report(tmp_path / "good.json")
    (tmp_path / "old.json").write_text('{"schema": "rtk-bench-1", "cells": []}')
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "eval.json").write_text('{"schema": "rtk-eval-1"}')
    with pytest.raises(ArtifactError, match=r"eval\.json: not a report of rtk bench: its schema is 'rtk-eval-1', exp"):
        compare_reports(tmp_path / "eval.json", good)
    with pytest.raises(
        ArtifactError,
        match=r"old\.json: schema 'rtk-bench-1', expected one of 'rtk-bench-2', .*, 'rtk-bench-7'; measure again: ",
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
    content["rates"] = content["rates"][0]
    content["cells"][0]["caught"] = "not believed: returns before its work is done: it is late"
    old.write_text(json.dumps(content))
    first = read_report(old).cells[0]
    assert first.rejected == "rejected: asynchronous result: it is late"
    assert [(change.new.batch, change.beyond_noise) for change in changes_of(old, new)] == [(64, True)]


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
    compared = compare_reports(path, path)
    assert {row["verdict"] for row in change_rows(compared.changes)} == {"within noise"}
    assert max(map(len, changes_text(compared).splitlines())) <= 80
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
    assert [change.new.batch for change in changes_of(old, new)] == [64]
    content["cells"][1]["rounds"] = content["cells"][1]["rounds"][:1]
    new.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="have no cell in common"):
        compare_reports(old, new)


@pytest.mark.parametrize("seed", range(5))
def test_a_measured_slowdown_by_a_fifth_is_found_and_nothing_between_equal_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The fake sleeps 10 ms, then 12; every sleep takes up to a fifth longer."""
    files = [
        measured(tmp_path / f"{run}.json", delay_s, SimulatedClock(late=0.2, seed=3 * seed + run).use(monkeypatch))
        for run, delay_s in enumerate((0.01, 0.01, 0.012))
    ]
    slower = changes_of(files[0], files[2])
    assert all(change.slower_by_more_than(5) for change in slower), change_rows(slower)
    assert [change.verdict for change in changes_of(files[0], files[1])] == ["within noise"] * 2


def test_a_measured_slowdown_beside_other_processes_is_not_called_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        measured(tmp_path / f"{run}.json", delay_s, SimulatedClock(other_cores=others).use(monkeypatch))
        for run, (delay_s, others) in enumerate(((0.01, 0.0), (0.012, other_load.core_count() / 2)))
    ]
    changes = changes_of(*files)
    if other_load.core_count():
        assert [change.verdict for change in changes] == ["other load"] * 2
        assert not any(change.slower_by_more_than(0) for change in changes)
    else:  # a system that does not report what others take
        assert [change.verdict for change in changes] == ["slower"] * 2


def measured(path: Path, delay_s: float, clock: SimulatedClock) -> Path:
    from rtk.bench.measure.prepare import prepare
    from rtk.bench.measure.timing import measure_interleaved
    from rtk.infer.fake import FakeBackend

    config = BenchConfig((1, 8), seconds=2.0, scopes=("sync",))
    prepared = prepare([Contender(FakeBackend(delay_s=delay_s))], config, files=None)
    cells = measure_interleaved(prepared.cells, prepared.runners, config, on_change=lambda cell: None).cells
    assert clock.now_s >= config.seconds
    return report(path, cells=cells, rates=[])
