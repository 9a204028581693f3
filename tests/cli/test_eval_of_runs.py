"""rtk train ends with an evaluation in RUN/eval, and rtk eval fits the temperature of a model that held images out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.noisy_folders import noisy_folders
from rtk.bench.evaluation.file import read_evaluation
from rtk.cli import train as command
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.files import sha256_of
from rtk.train.config import TrainConfig

CommandLine = Callable[..., tuple[str, str]]
FILES = {"eval.html", "eval.json", "images.csv"}


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here."""
    monkeypatch.setattr("rtk.train.run_folder.RunFolder.write_curves", lambda *arguments, **options: None)


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    """A command that trains into `run` and holds 24 of 72 images out."""
    folders = str(noisy_folders(tmp_path / "colours", train=72, test=30))
    options = ("--dataset", folders, "--epochs", "2", "--batch-size", "8", "--lr", "0.05", "--holdout", "24")
    return ("train", "resnet8v1", *options, "--compile", "off", "--precision", "fp32", "--out", "run")


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_training_ends_with_an_evaluation_which_agrees_with_its_card(
    command_line: CommandLine, words: tuple[str, ...], tmp_path: Path
) -> None:
    printed, log = command_line(*words)
    assert "evaluation: run/eval" in log
    assert printed.splitlines()[-1] == "run/best.pt"
    best, folder = tmp_path / "run" / "best.pt", tmp_path / "run" / "eval"
    assert {path.name for path in folder.iterdir()} == FILES
    found, card = read_evaluation(folder), load_checkpoint(best).card
    assert card.score is not None
    assert (found.correct, found.images) == (card.score.correct, card.score.total) == (found.correct, 30)
    assert found.loss == pytest.approx(card.score.loss, abs=1e-5)
    assert (found.backend, found.file.sha256, found.data.split) == ("torch", sha256_of(best), "test")
    assert len((folder / "images.csv").read_text().splitlines()) == 31
    assert "in the training" not in log

    (folder / "eval.json").write_text((folder / "eval.json").read_text() + "\n")
    kept = (folder / "eval.json").read_text()
    assert command_line("train", "--resume", "run")[0] == printed  # nothing was trained: the evaluation is kept
    assert (folder / "eval.json").read_text() == kept
    (folder / "images.csv").unlink()
    command_line("train", "--resume", "run")
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "eval.json").read_text() != kept

    shutil.rmtree(folder)
    assert "evaluation" not in command_line("train", "--resume", "run", "--no-eval")[1]
    assert not folder.exists()
    shutil.rmtree(tmp_path / "colours")
    printed, log = command_line("train", "--resume", "run")
    assert printed.splitlines()[-1] == "run/best.pt"
    assert "not evaluated: " in flat(log)
    assert (
        "the data set of resnet8v1-colours-s0 is not there any more; if it has moved, name it: --dataset DIR; the "
        "training is complete; later: rtk eval run/best.pt --report run/eval --per-image run/eval/images.csv"
    ) in flat(log)
    assert not folder.exists()


def test_ctrl_c_during_the_evaluation_loses_nothing_of_the_training(
    command_line: CommandLine, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(request: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rtk.workflow.run_evaluation.evaluated", stop)
        printed, log = command_line(*words, code=130)
    assert printed.splitlines()[-1] == "run/best.pt"
    assert "the evaluation was stopped; the training is complete; later: rtk eval run/best.pt --report" in flat(log)
    assert not (tmp_path / "run" / "eval").exists()
    assert command_line("train", "--resume", "run")[0] == printed
    assert {path.name for path in (tmp_path / "run" / "eval").iterdir()} == FILES


def test_another_score_than_in_the_training_is_said(
    command_line: CommandLine, words: tuple[str, ...], tmp_path: Path
) -> None:
    from dataclasses import replace

    from rtk.core.artifacts.checkpoint import save_checkpoint

    command_line(*words, "--no-eval")
    best = load_checkpoint(tmp_path / "run" / "best.pt")
    assert best.card.score is not None
    other = replace(best.card.score, correct=best.card.score.correct + 1)
    save_checkpoint(tmp_path / "run" / "best.pt", replace(best.card, score=other, checkpoint_sha256=""), best.weights)
    log = flat(command_line("train", "--resume", "run")[1])
    assert f"of 30 right, in the training {other.correct} of 30: other batches are rounded otherwise" in log


def test_only_the_first_of_several_processes_evaluates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    evaluated: list[Path] = []

    def record(best: Path, **options: object) -> Path:
        evaluated.append(best)
        return best.parent

    monkeypatch.setattr("rtk.workflow.run_evaluation.evaluate_run", record)
    for rank in (1, 0):
        monkeypatch.setattr("rtk.train.distributed.process_group.rank", lambda rank=rank: rank)
        command._evaluate([tmp_path / "a.pt", tmp_path / "b.pt"], TrainConfig("resnet8v1"))
        assert evaluated == ([] if rank else [tmp_path / "a.pt", tmp_path / "b.pt"])


@pytest.mark.slow
def test_every_seed_has_an_evaluation(command_line: CommandLine, words: tuple[str, ...], tmp_path: Path) -> None:
    log = command_line(*words, "--seeds", "2")[1]
    for seed in (0, 1):
        assert f"evaluation: run-s{seed}/eval" in log
        assert read_evaluation(tmp_path / f"run-s{seed}" / "eval").images == 30


def test_the_temperature_is_fitted_written_and_used(
    command_line: CommandLine, words: tuple[str, ...], tmp_path: Path
) -> None:
    command_line(*words, "--no-eval")
    before = json.loads(command_line("inspect", "run/best.pt", "--json")[0])
    printed, log = command_line("eval", "run/best.pt", "--backend", "torch", "--fit-temperature", "--report", "report")
    assert "output: run/best.pt" in log
    card = load_checkpoint(tmp_path / "run" / "best.pt").card
    fit, result = card.temperature_fit, read_evaluation(tmp_path / "report")
    assert fit is not None
    assert (fit.dataset, fit.split, fit.images, fit.chose_epoch) == ("colours", "holdout", 24, True)
    assert flat(printed).startswith(
        f"temperature {card.temperature:.4g}, fitted on 24 images of colours, holdout split ("
    )
    assert result.uncalibrated is not None
    assert result.calibration.temperature == card.temperature == result.card.temperature != 1
    assert result.data.images == 30  # the scored split, not the one of the fit
    assert f"with temperature {card.temperature:.4g}. Without it: ECE {100 * result.uncalibrated.ece:.2f}%" in flat(
        printed
    )
    after = json.loads(command_line("inspect", "run/best.pt", "--json")[0])
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"temperature", "temperature_fit"}
    assert f"temperature {card.temperature:.4g}, fitted on 24 images" in flat(command_line("inspect", "run/best.pt")[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--held-out", "x"), "rtk: --held-out goes with --fit-temperature\n"),
        (("--out", "x.pt"), "rtk: --out goes with --fit-temperature\n"),
        (("b.pt", "--fit-temperature"), "rtk: --fit-temperature fits one model; leave out b.pt, or compare without"),
        (("--fit-temperature", "--precision", "int8"), "rtk: --precision int8: a temperature is written into the file"),
        (("--fit-temperature",), "rtk: resnet20v1-cifar10: a file of the zoo, which stays as it is; write a copy that"),
        (
            ("--fit-temperature", "--out", "x.pt"),
            "rtk: resnet20v1-cifar10: its training held nothing out, so no images are left to fit a temperature on; ",
        ),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    command_line: CommandLine, words: tuple[str, ...], message: str
) -> None:
    assert command_line("eval", "resnet20v1-cifar10", *words, code=2)[1].startswith(message)
