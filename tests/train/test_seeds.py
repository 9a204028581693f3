"""Several seeds one after another: their folders, mean and spread, and resuming after a stop."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.log import logged
from fakes.train_runs import assert_same_runs, tiny
from rtk.core.card import Score
from rtk.core.errors import UsageError
from rtk.train.config import TrainConfig
from rtk.train.run import Trained, train
from rtk.train.run_folder import RunFolder
from rtk.train.seeds import Summary, train_seeds
from rtk.train.stop_signals import Stopped


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here."""
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


def test_seeds_are_summarised_by_mean_and_sample_standard_deviation() -> None:
    """Accuracies 92, 93 and 97 %: mean 94; squares of 2, 1 and 3 are 14, over two 7; its root 2.6458."""
    scores = tuple(Score("test", correct, 100, 0.5) for correct in (92, 93, 97))
    summary = Summary((0, 1, 2), scores)
    assert summary.mean == pytest.approx(0.94)
    assert summary.deviation == pytest.approx(0.0264575, abs=1e-7)
    assert summary.text == ("94.00% (mean of 3 seeds, standard deviation 2.65 points)\n92.00%, 93.00%, 97.00%")
    assert Summary((0,), scores[:1]).deviation is None


def test_each_seed_equals_a_single_run_with_that_seed(class_folders: Path, tmp_path: Path) -> None:
    config = tiny(class_folders, tmp_path / "run", epochs=1, seed=3)
    path, summary = train_seeds(config, 2)
    assert path == tmp_path / "run" / "seeds.json"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run", "run-s3", "run-s4"]
    alone = train(tiny(class_folders, tmp_path / "alone", epochs=1, seed=4))
    assert_same_runs(tmp_path / "run-s4", alone.run_dir)
    kept = json.loads(path.read_text())
    assert [(row["seed"], row["run"], row["total"]) for row in kept["runs"]] == [
        (3, str(tmp_path / "run-s3"), 12),
        (4, str(tmp_path / "run-s4"), 12),
    ]
    accuracies = [row["correct"] / 12 for row in kept["runs"]]
    assert kept["accuracy_mean"] == pytest.approx(sum(accuracies) / 2)
    assert kept["accuracy_standard_deviation"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    assert (kept["arch"], kept["recipe"]) == ("resnet8v1", "rtk")
    assert summary.seeds == (3, 4)


def test_options_may_change_after_a_start_that_failed(class_folders: Path, tmp_path: Path) -> None:
    config = tiny(class_folders, tmp_path / "run", epochs=1, train_images=999)
    with pytest.raises(UsageError, match="--train-images 999"):
        train_seeds(config, 2)
    assert train_seeds(replace(config, train_images=16), 2)[1].seeds == (0, 1)


def test_a_repeated_call_keeps_finished_seeds_and_resumes_the_others(class_folders: Path, tmp_path: Path) -> None:
    config = tiny(class_folders, tmp_path / "run", epochs=2)
    lines = list[str]()

    def listen(line: str) -> None:
        lines.append(line)
        if sum(text.startswith("epoch   1/") for text in lines) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        logged(listen, train_seeds, config, 3)
    assert len(json.loads((tmp_path / "run" / "seeds.json").read_text())["runs"]) == 1
    before = (tmp_path / "run-s0" / "best.pt").read_bytes()
    lines.clear()
    logged(lines.append, train_seeds, config, 3)
    assert lines[:2] == ["seed 0 (1 of 3)", f"{tmp_path / 'run-s0'}: all 2 epochs are done"]
    assert [line[:11] for line in lines if line.startswith("epoch ")] == ["epoch   2/2", "epoch   1/2", "epoch   2/2"]
    assert (tmp_path / "run-s0" / "best.pt").read_bytes() == before
    assert [row["seed"] for row in json.loads((tmp_path / "run" / "seeds.json").read_text())["runs"]] == [0, 1, 2]
    with pytest.raises(
        UsageError, match=r"run-s0: a run resumes only with its own options, found --lr 0\.5 \(run: 0\.05\)"
    ):
        train_seeds(tiny(class_folders, tmp_path / "run", epochs=2, lr=0.5), 3)


def test_a_single_seed_is_rejected(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--seeds 1: expected 2 or more; for a single seed use --seed$"):
        train_seeds(tiny(class_folders, tmp_path / "run"), 1)


def test_without_a_folder_the_runs_have_their_usual_names(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, _ = train_seeds(tiny(class_folders, None, epochs=1), 2)  # type: ignore[arg-type]
    assert path == Path("runs/resnet8v1-colours/seeds.json")
    names = ["resnet8v1-colours", "resnet8v1-colours-s0", "resnet8v1-colours-s1"]
    assert sorted(entry.name for entry in (tmp_path / "runs").iterdir()) == names


def test_a_chosen_name_gets_the_seeds(class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, Path]] = []

    def note(config: TrainConfig) -> Trained:
        trained.append((config.model_name, config.run_dir))
        raise InterruptedError

    monkeypatch.setattr("rtk.train.seeds.train", note)
    for changes in ({}, {"name": "pets"}, {"name": "pets", "out": tmp_path / "run"}, {"out": tmp_path / "run"}):
        with pytest.raises(InterruptedError):
            train_seeds(tiny(class_folders, **{"out": None, "seed": 4, **changes}), 2)
    assert trained == [
        ("resnet8v1-colours-s4", Path("runs/resnet8v1-colours-s4")),
        ("pets-s4", Path("runs/pets-s4")),
        ("pets-s4", tmp_path / "run-s4"),
        ("resnet8v1-colours-s4", tmp_path / "run-s4"),
    ]
