"""--patience: when it ends a training, what is kept, and what says so. history.csv, which shows it too."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.log import logged
from fakes.train_runs import tiny
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.card import Score
from rtk.core.errors import UsageError
from rtk.train import run as loop
from rtk.train.config import TrainConfig
from rtk.train.optim.schedule import epochs_since_best
from rtk.train.run import resume, train
from rtk.train.run_folder import RunFolder


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


def with_right_answers(monkeypatch: pytest.MonkeyPatch, *right: int) -> None:
    """Let the epochs have these numbers of right answers on the held-out images."""

    def scores(run: Any, *, is_last: bool) -> dict[str, Score]:
        test = Score("test", 5, 12, 1.5)
        return {"holdout": replace(test, split="holdout", correct=right[run.trainer.epoch - 1], total=6), "test": test}

    monkeypatch.setattr(loop._Run, "_scores", scores)


@pytest.mark.parametrize(
    ("right", "since"),
    [([3], 0), ([3, 4], 0), ([4, 4], 1), ([1, 5, 5, 2], 2), ([5, 4, 3, 5], 3)],  # an equal epoch is no better one
)
def test_epochs_are_counted_since_the_first_of_the_best(right: list[int], since: int) -> None:
    rows = [{"epoch": number, "holdout_correct": count} for number, count in enumerate(right, 1)]
    assert epochs_since_best(rows) == since


def test_a_run_stops_when_the_held_out_images_have_not_improved_and_says_so(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_right_answers(monkeypatch, 2, 4, 4, 3, 6)
    lines = list[str]()
    trained = logged(
        lines.append, train, tiny(class_folders, tmp_path / "run", epochs=9, validation_split=0.25, patience=2)
    )
    assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4]
    assert [row.get("stopped_early") for row in trained.history] == [None, None, None, True]
    assert lines[-1] == "stopped early after epoch 4 of 9; epoch 2 is the best on the held-out images"
    best, last = (load_checkpoint(trained.run_dir / name) for name in ("best.pt", "last.pt"))
    assert best.card == trained.card
    assert best.card.training is not None
    assert best.card.training.epochs == 2
    assert best.card.training.selection == (
        "moving average of the weights of the epoch with the highest accuracy on 6 held-out training images; "
        "stopped early after epoch 4 of 9 (--patience 2)"
    )
    settings = best.card.training.settings
    assert (settings["epochs"], settings["patience"], settings["stopped_early"]) == (9, 2, 4)
    assert last.card.training is not None
    assert last.card.training.selection.endswith("stopped early after epoch 4 of 9 (--patience 2)")

    rows = [json.loads(line) for line in (trained.run_dir / "history.jsonl").read_text().splitlines()]
    assert rows == trained.history
    with (trained.run_dir / "history.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [
        "epoch", "lr", "images", "train_loss", "train_accuracy",
        "holdout_correct", "holdout_total", "holdout_accuracy", "holdout_loss",
        "test_correct", "test_total", "test_accuracy", "test_loss", "epoch_s", "stopped_early",
    ]  # fmt: skip
    assert table == [{name: str(row.get(name, "")) for name in table[0]} for row in rows]

    before, lines = (trained.run_dir / "best.pt").read_bytes(), []
    again = logged(lines.append, resume, trained.run_dir)
    assert lines == [f"{trained.run_dir}: is done: it stopped early, after epoch 4 of 9"]
    assert (again.card, again.history) == (trained.card, trained.history)
    assert (trained.run_dir / "best.pt").read_bytes() == before


def test_a_run_killed_before_its_card_said_that_it_stopped_early_says_so_when_resumed(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_right_answers(monkeypatch, 4, 4)
    config = tiny(class_folders, tmp_path / "run", holdout=6, patience=1)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "_finished", _killed)
        train(config)
    assert "stopped" not in load_checkpoint(tmp_path / "run" / "best.pt").card.training.selection  # type: ignore[union-attr]
    assert "stopped early after epoch 2 of 3" in resume(tmp_path / "run").card.training.selection  # type: ignore[union-attr]


def _killed(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_epochs_that_are_not_evaluated_count_as_epochs_without_a_better_one(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_right_answers(monkeypatch, 0, 4, 0, 5, 0, 5, 0, 5, 0, 6)
    trained = train(tiny(class_folders, tmp_path / "run", epochs=10, holdout=6, patience=3, eval_every=2))
    assert len(trained.history) == 8  # epochs 6 and 8 are no better than epoch 4
    assert "holdout_correct" not in trained.history[4]


def test_a_run_that_ends_with_its_last_epoch_did_not_stop_early(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_right_answers(monkeypatch, 4, 4)
    trained = train(tiny(class_folders, tmp_path / "run", epochs=2, holdout=6, patience=1))
    assert "stopped_early" not in trained.history[-1]
    assert trained.card.training is not None
    assert "stopped" not in trained.card.training.selection


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 3}, "--patience needs held-out images; add --validation-split 0.1"),
        ({"patience": 0, "holdout": 9}, "--patience 0: expected 1 or more epochs"),
        (
            {"patience": 3, "holdout": 9, "select": "last"},
            "--patience keeps the best epoch, but --select last the last one; leave one of them out",
        ),
    ],
)
def test_patience_that_cannot_work_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig("resnet8v1", **options)
    assert str(caught.value) == message


def test_history_csv_leaves_a_number_that_is_not_finite_empty(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "skipped_steps": 2, "train_loss": float("nan")}, {"epoch": 2, "later": 7, "train_loss": 0.5}]
    RunFolder(tmp_path).write_history(rows)
    assert (tmp_path / "history.csv").read_text() == "epoch,train_loss,skipped_steps,later\n1,,2,\n2,0.5,,7\n"
