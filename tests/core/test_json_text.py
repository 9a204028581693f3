"""What rtk writes as JSON is JSON (RFC 8259), also when a number is not finite, and rtk reads it back."""

import ast
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from fakes.engine_files import INFO
from rtk.bench.config import BenchConfig
from rtk.bench.measure.cell import Cell
from rtk.bench.report.report import Report, read_report
from rtk.bench.roofline.roofline import DeviceRates
from rtk.core.artifacts.engine import EngineInfo
from rtk.core.card import ModelCard, Score
from rtk.core.json_text import json_text, number_from_json
from rtk.core.machine import this_machine
from rtk.infer.classify import Answer, Prediction
from rtk.infer.output.rows import lines
from rtk.train.config import TrainConfig
from rtk.train.run_folder import RunFolder

ROOT = Path(__file__).parent.parent.parent
NOT_FINITE = (math.inf, -math.inf, math.nan)


def strictly_read(text: str) -> Any:
    """Read JSON as readers of other languages do."""

    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_are_null_or_text_everywhere() -> None:
    value = {"a": [*NOT_FINITE, 1.5], "b": ({"c": math.nan},), "d": "NaN", "e": True}
    assert strictly_read(json_text(value)) == {"a": [None, None, None, 1.5], "b": [{"c": None}], "d": "NaN", "e": True}
    assert strictly_read(json_text(value, read_back=True))["a"] == ["Infinity", "-Infinity", "NaN", 1.5]


def test_finite_values_are_written_as_before() -> None:
    value = {"a": [1, 2.5, None, "é"], "b": {"c": False}}
    assert json_text(value, indent=1) == json.dumps(value, indent=1)


@pytest.mark.parametrize("number", NOT_FINITE)
def test_the_names_are_read_back_as_the_numbers(number: float) -> None:
    assert repr(number_from_json(strictly_read(json_text(number, read_back=True)))) == repr(number)
    assert math.isnan(number_from_json(None))


@pytest.mark.parametrize("loss", NOT_FINITE)
def test_a_card_and_an_engine_keep_a_loss_that_is_not_finite(card: ModelCard, loss: float) -> None:
    scored = replace(card, score=Score("test", correct=1, total=10, loss=loss))
    strictly_read(scored.to_json())
    restored = ModelCard.from_json(scored.to_json(), source="x")
    assert restored.score is not None
    assert repr(restored.score.loss) == repr(loss)
    strictly_read(replace(INFO, card=scored).to_json())
    engine = EngineInfo.from_json(replace(INFO, card=scored).to_json(), source="x.engine.json")
    assert engine.card.score is not None
    assert repr(engine.card.score.loss) == repr(loss)


@pytest.mark.parametrize("written", ["null", "NaN", '"NaN"'])
def test_a_card_is_read_with_every_spelling_of_not_a_number(card: ModelCard, written: str) -> None:
    scored = replace(card, score=Score("test", correct=1, total=10, loss=0.125))
    restored = ModelCard.from_json(scored.to_json().replace("0.125", written), source="x")
    assert restored.score is not None
    assert math.isnan(restored.score.loss)


def test_a_report_with_numbers_that_are_not_finite_is_json_and_read_back(card: ModelCard, tmp_path: Path) -> None:
    report = Report(
        model=card,
        machine=this_machine(),
        date="2026-01-02 03:04 UTC",
        config=BenchConfig(),
        backends={},
        unusable={},
        cells=[Cell("torch", 1, rounds=[[0.1, 0.2], [0.1, 0.2]], warm_up_s=math.nan)],
        dataset="cifar10",
        parity=[],
        ready_s={"torch": math.inf},
        rates=[DeviceRates("cpu", {"fp32": math.nan}, math.inf, None, None)],
    )
    strictly_read(report.to_json())
    (tmp_path / "report.json").write_text(report.to_json())
    restored = read_report(tmp_path)
    assert math.isnan(restored.cells[0].warm_up_s)
    assert repr(restored.ready_s) == repr(report.ready_s)
    assert repr([asdict(one) for one in restored.rates]) == repr([asdict(one) for one in report.rates])


def test_the_history_of_a_run_that_diverged_is_json(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_history([{"epoch": 1, "train_loss": math.nan, "test_loss": math.inf}])
    line = (tmp_path / "history.jsonl").read_text()
    assert strictly_read(line) == {"epoch": 1, "train_loss": None, "test_loss": None}


def test_the_config_of_a_run_keeps_an_infinite_number_and_text_that_looks_like_one() -> None:
    config = TrainConfig("resnet8v1", save_every=math.inf, out=Path("Infinity"))
    strictly_read(config.to_json())
    assert TrainConfig.from_json(config.to_json(), source="config.json") == config


def test_a_probability_that_is_not_a_number_is_null_in_json_lines() -> None:
    answer = Answer("a.png", (Prediction("cat", 3, math.nan),))
    (line,) = lines([answer], "jsonl", top_k=1)
    assert strictly_read(line)["probability"] is None


def test_only_one_file_writes_json_for_others() -> None:
    internal = {
        "core/json_text.py",
        "core/artifacts/engine.py",  # the name of a network, in ASCII
        "core/artifacts/engine_cache.py",  # hashed
        "core/artifacts/graph_cache.py",  # hashed
        "infer/ray_cluster.py",  # between rtk's own processes
        "infer/output/resumable.py",  # words and whole numbers
        "infer/output/rows.py",  # one character
        "workflow/backend_trials.py",  # between rtk's own processes
    }
    rooms = ("core", "train", "export", "infer", "bench", "workflow", "cli")
    writers = {
        str(path.relative_to(ROOT))
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps") and ast.unparse(node.value) == "json"
    }
    assert writers == internal
