"""--tensorboard: what TensorBoard reads from the log of a run, of a resumed one too."""

from pathlib import Path
from typing import Any

import pytest
from fakes.train_runs import assert_same_runs, tiny
from rtk.core.errors import UsageError
from rtk.train import run as loop
from rtk.train import tensorboard_log
from rtk.train.run import resume, train
from rtk.train.run_folder import RunFolder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: the steps and values of each name."""
    log = EventAccumulator(str(run_dir / "tensorboard"))
    log.Reload()
    return {name: [(one.step, one.value) for one in log.Scalars(name)] for name in log.Tags()["scalars"]}


def expected(history: list[dict[str, Any]]) -> dict[str, list[tuple[int, Any]]]:
    """The same from the history, in fp32."""
    columns = {"learning_rate": "lr"}
    for split in ("train", "holdout", "test"):
        columns |= {f"loss/{split}": f"{split}_loss", f"accuracy/{split}": f"{split}_accuracy"}
    found = {
        name: [(row["epoch"], pytest.approx(row[column], rel=1e-6)) for row in history if column in row]
        for name, column in columns.items()
    }
    rates = [(row["epoch"], pytest.approx(row["images"] / row["epoch_s"], rel=1e-6)) for row in history]
    return {**{name: values for name, values in found.items() if values}, "images_per_second": rates}


def test_the_log_has_every_epoch_and_a_resumed_run_continues_it(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(class_folders, tmp_path / "run", holdout=6, eval_every=2, tensorboard=True)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop._Run, "_save", _killed_after(1, loop._Run._save))
        train(config)
    assert [step for step, _ in scalars(config.run_dir)["loss/train"]] == [1, 2]  # the second epoch was not saved
    resumed = resume(config.run_dir)
    assert scalars(config.run_dir) == expected(resumed.history)
    assert [step for step, _ in scalars(config.run_dir)["loss/test"]] == [2, 3]
    without = train(tiny(class_folders, tmp_path / "without", holdout=6, eval_every=2))
    assert_same_runs(without.run_dir, config.run_dir)
    assert not (without.run_dir / "tensorboard").exists()


def _killed_after(count: int, save: Any) -> Any:
    saved: list[int] = []

    def killed(run: Any, card: Any, weights: Any) -> None:
        if len(saved) == count:
            raise KeyboardInterrupt
        saved.append(1)
        save(run, card, weights)

    return killed


def test_a_log_that_begins_in_a_resumed_run_has_the_epochs_before_too(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(class_folders, tmp_path / "run")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop._Run, "_save", _killed_after(2, loop._Run._save))
        train(config)
    resumed = resume(config.run_dir, given={"tensorboard": True})
    assert scalars(config.run_dir) == expected(resumed.history)


def test_without_tensorboard_one_line_says_how_to_install_it_before_anything_is_written(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard_log, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        train(tiny(class_folders, tmp_path / "run", tensorboard=True))
    assert str(caught.value) == "--tensorboard: TensorBoard is not installed; run: pip install tensorboard"
    assert not (tmp_path / "run").exists()
