"""The JSON beside an engine: its content, and the engines that are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.engine_files import INFO, PLAN, PLAN_SHA256
from fakes.tensorrt_stand_in import small_card
from rtk.core.artifacts.engine import (
    engine_problem,
    json_path,
    network_name,
    read_engine_info,
    read_plan,
    write_engine,
)
from rtk.core.errors import ArtifactError


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "small.fp16.engine"
    write_engine(path, PLAN, INFO)
    return path


def test_the_plan_is_written_byte_for_byte_with_its_json_beside_it(engine: Path) -> None:
    assert engine.read_bytes() == PLAN
    assert json_path(engine).name == "small.fp16.engine.json"
    assert sorted(path.name for path in engine.parent.iterdir()) == ["small.fp16.engine", "small.fp16.engine.json"]


def test_the_json_gives_back_what_was_written(engine: Path) -> None:
    assert read_engine_info(engine) == INFO
    assert read_plan(engine, INFO) == PLAN
    assert engine_problem(engine) == ""


def test_the_text_for_people_has_the_important_facts() -> None:
    text = " ".join(INFO.to_text().split())
    for expected in (
        "tensorrt 11.4.0.106",
        "NVIDIA H100",
        "1 to 16",
        "2 fp16",
        "not yet inspected",
        PLAN_SHA256,
        "small",
    ):
        assert expected in text


def test_the_text_for_people_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = INFO.to_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2] == "profile       batches of 1 to 16, fastest at 4"
    assert lines[lines.index("options") + 1] == "  tf32: no"


def test_a_missing_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.engine: no such engine"):
        read_engine_info(tmp_path / "none.engine")


def test_an_engine_without_its_json_is_not_trusted(engine: Path) -> None:
    json_path(engine).unlink()
    with pytest.raises(ArtifactError, match=r"small\.fp16\.engine\.json is missing .* rtk export --trt"):
        read_engine_info(engine)


def test_the_error_for_a_truncated_plan_names_both_lengths(engine: Path) -> None:
    engine.write_bytes(PLAN[:-1])
    with pytest.raises(
        ArtifactError, match=r"truncated: 499 bytes, expected 500; .* rtk export --trt .*small\.fp16\.onnx"
    ):
        read_plan(engine, INFO)


@pytest.mark.parametrize("altered", [b"x" + PLAN[1:], PLAN[:-1] + b"x", PLAN + b"more"])
def test_the_error_for_an_altered_plan_names_both_checksums(engine: Path, altered: bytes) -> None:
    engine.write_bytes(altered)
    with pytest.raises(ArtifactError, match=rf"altered: its sha256 is .*, its JSON says {PLAN_SHA256[:12]}"):
        read_plan(engine, INFO)
    assert engine_problem(engine).startswith("altered")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("plan_bytes", "many"),
        ("plan_sha256", 7),
        ("profile", {"opt_batch": 17, "max_batch": 16}),
        ("profile", {"opt_batch": 1}),
        ("profile", None),
        ("targets", "8.9"),
        ("targets", 5),
        ("card", {"name": "x"}),
        ("precision", {}),
        ("options", []),
        ("build_s", "quick"),
        ("compute_capability", ""),
        ("format", 99),
        ("surprise", 1),
    ],
)
def test_a_changed_json_is_refused_with_one_line(engine: Path, field: str, value: object) -> None:
    fields = json.loads(json_path(engine).read_text())
    json_path(engine).write_text(json.dumps({**fields, field: value}))
    with pytest.raises(ArtifactError, match=r"small\.fp16\.engine\.json: ") as error:
        read_engine_info(engine)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 1}', b"null"])
def test_a_damaged_json_is_refused(engine: Path, text: bytes) -> None:
    json_path(engine).write_bytes(text)
    with pytest.raises(ArtifactError, match=r"small\.fp16\.engine\.json: "):
        read_engine_info(engine)
    assert engine_problem(engine)


def test_the_short_card_always_fits_into_the_network_name() -> None:
    card = small_card()
    whole = json.loads(network_name(card, "a" * 64))
    assert whole["classes"] == list(card.classes)
    assert whole["graph_sha256"] == "a" * 64
    crowded = replace(card, name="日" * 3000, classes=tuple(f"klasse äöü {k}" for k in range(1000)))
    short = network_name(crowded, "a" * 64)
    assert len(short.encode()) < 4095
    assert json.loads(short)["classes"] == 1000
