"""What inspect, models, doctor and cache ls print fits a terminal of 80 columns."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.engine_files import INFO, KEY, PLAN
from rtk.cli import app
from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint
from rtk.core.artifacts.engine import write_engine
from rtk.core.artifacts.engine_cache import cache_engine, key_of
from rtk.core.models.names import known_architectures
from rtk.core.paths import cache_dir
from rtk.workflow import backend_trials
from rtk.workflow.backend_trials import Trial

Printed = Callable[..., str]
NOTES = {
    "training": "rtk train resnet8v1 --epochs 160 --augment erasing=0.5,mixup=0.2 --optimiser sgd --lr 0.1 --seed 3",
    "ensemble": [{"name": "resnet8v1-cifar10", "checkpoint_sha256": "a" * 64}] * 2,
    "parity": {"reason": "a reason of many words, " * 8, "interval_pp": [-0.25, 0.125], "libraries": {"numpy": "2"}},
}


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """A function that runs a command in a terminal of 80 columns and returns its standard output."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["rtk", *words])
        with pytest.raises(SystemExit) as ended:
            app.main()
        assert not ended.value.code
        return capsys.readouterr().out

    return run


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_inspect_prints_a_checkpoint_within_80_columns(checkpoint_path: Path, tmp_path: Path, printed: Printed) -> None:
    loaded = load_checkpoint(checkpoint_path)
    save_checkpoint(tmp_path / "a.pt", replace(loaded.card, notes=NOTES, checkpoint_sha256=""), loaded.weights)
    text = printed("inspect", str(tmp_path / "a.pt"))
    assert widest(text) <= 80
    assert "\n  1:\n    name: resnet8v1-cifar10\n" in text
    assert "\n  interval_pp: -0.25, 0.125\n  libraries:\n    numpy: 2\n" in text
    assert json.loads(printed("inspect", str(tmp_path / "a.pt"), "--json"))["notes"] == NOTES


def test_inspect_prints_a_graph_within_80_columns(graph_path: Path, printed: Printed) -> None:
    text = printed("inspect", str(graph_path))
    assert widest(text) <= 80
    assert "\n  largest_logit_difference: " in text


def test_inspect_prints_an_engine_within_80_columns(tmp_path: Path, printed: Printed) -> None:
    long = replace(INFO, targets=tuple(f"{major}.{minor}" for major in range(7, 13) for minor in range(7)))
    write_engine(tmp_path / "a.engine", PLAN, replace(long, gpu="", compute_capability=""))
    text = printed("inspect", str(tmp_path / "a.engine"))
    assert widest(text) <= 80
    assert "\noptions\n  tf32: no\n" in text


def test_models_lists_architectures_and_the_zoo_within_80_columns(printed: Printed) -> None:
    assert widest(printed("models")) <= 80


@pytest.mark.parametrize("arch", [name for name in known_architectures() if name.endswith(("1001v2", "152", "56"))])
def test_models_lists_layers_within_80_columns(arch: str, printed: Printed) -> None:
    assert widest(printed("models", arch, "--image-size", "224")) <= 80


def test_doctor_wraps_long_reasons_within_80_columns(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(backend: str, device: str) -> Trial:
        return Trial(
            backend, device, backend == "onnx", f"{backend}: a reason of many words, and what to do about it; " * 4
        )

    monkeypatch.setattr(backend_trials, "run_trial_in_subprocess", tried)
    text = printed("doctor")
    assert widest(text) <= 80
    assert "\nonnx cpu      works: a reason of many words" in text
    assert "\ntorch cpu     does not work: a reason of many words" in text


def test_cache_ls_prints_one_block_for_each_file_within_80_columns(
    printed: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path))
    engine = cache_engine(KEY, "small", PLAN, INFO)
    other = replace(INFO, graph_sha256="b" * 64)
    damaged = cache_engine(key_of(other), "small", PLAN, other)
    damaged.write_bytes(PLAN[:-1])
    graph = cache_dir() / "graphs" / "small.onnx"
    graph.parent.mkdir(parents=True)
    graph.write_bytes(b"1234")
    text = printed("cache", "ls")
    assert widest("\n".join(line for line in text.splitlines() if not line.startswith("path"))) <= 80
    blocks = text.rstrip().split("\n\n")
    assert len(blocks) == 3
    assert any(f"path          {engine}" in block and "problem" not in block for block in blocks)
    assert any("problem       truncated: 499 bytes, expected 500" in block for block in blocks)
    assert blocks[-1].splitlines() == ["graph         small", "bytes         4", f"path          {graph}"]
