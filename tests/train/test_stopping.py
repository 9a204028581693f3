"""Stopping a training between steps, by signals, by kill -9 or by a full disk; and resuming it."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.log import logged
from fakes.train_runs import assert_same_runs, history, in_child, tiny, train_or_resume, without_times
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.data.datasets import Split
from rtk.core.errors import OutputError, UsageError
from rtk.core.files import only_writer
from rtk.train import run as loop
from rtk.train.device import Arithmetic
from rtk.train.epoch import Epoch
from rtk.train.recipes import RECIPES
from rtk.train.run import resume, train
from rtk.train.run_folder import RunFolder
from rtk.train.stop_signals import Stopped, stop_signals
from rtk.train.trainer import Trainer, new_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here."""
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


def counted_steps(patch: pytest.MonkeyPatch, signals: Mapping[int, int] | None = None) -> list[int]:
    """A list that grows with each step of any training; in the steps of `signals` the process gets that signal."""
    original, steps = Trainer._step, list[int]()

    def counted(self: Trainer, *arguments: Any) -> Any:
        steps.append(len(steps) + 1)
        if signals and steps[-1] in signals:
            os.kill(os.getpid(), signals[steps[-1]])
        return original(self, *arguments)

    patch.setattr(Trainer, "_step", counted)
    return steps


# Signals: the step is finished, the state in the middle of the epoch is saved.


@pytest.mark.parametrize(
    ("recipe", "sent", "step"), [("rtk", signal.SIGINT, 4), ("keras", signal.SIGTERM, 5), ("paper", signal.SIGTERM, 6)]
)
def test_a_run_resumes_after_the_step_in_which_a_signal_came(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, sent: signal.Signals, step: int
) -> None:
    settings: dict[str, Any] = {"recipe": recipe, "lr": 0.01}
    with monkeypatch.context() as patch:
        steps = counted_steps(patch)
        whole = train(tiny(class_folders, tmp_path / "whole", **settings))
        total = len(steps)
    with monkeypatch.context() as patch:
        steps = counted_steps(patch, {step: sent})
        with pytest.raises(Stopped) as caught:
            train(tiny(class_folders, tmp_path / "stopped", **settings))
        assert caught.value.number == sent
        assert len(steps) == step
        state = load_checkpoint(tmp_path / "stopped" / "last.pt").training
        assert state is not None
        assert (state["epoch"], state["under_way"]["steps_done"]) == (1, step - 3)  # three steps in the first epoch
        stopped = resume(tmp_path / "stopped")
        assert len(steps) == total  # not one step twice
    assert_same_runs(whole.run_dir, stopped.run_dir)
    assert without_times(whole.history) == without_times(stopped.history)


def test_a_signal_between_epochs_stops_before_the_next_epoch(class_folders: Path, tmp_path: Path) -> None:
    def listen(line: str) -> None:
        if line.startswith("epoch   2/"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        logged(listen, train, tiny(class_folders, tmp_path / "run"))
    assert len(history(tmp_path / "run")) == 2
    assert len(resume(tmp_path / "run").history) == 3


def test_handlers_are_restored_and_a_second_ctrl_c_does_not_wait() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_signals() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.number == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # a repeated SIGTERM changes nothing
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_a_training_in_another_thread_does_not_change_signal_handlers(class_folders: Path, tmp_path: Path) -> None:
    done = []
    thread = threading.Thread(target=lambda: done.append(train(tiny(class_folders, tmp_path / "run"))))
    thread.start()
    thread.join()
    assert len(done) == 1


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_logs_how_to_resume_and_exits_with_the_signals_code(
    class_folders: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    words = ["resnet8v1", "--dataset", str(class_folders), "--epochs", "100000", "--compile", "off"]
    with subprocess.Popen(
        [sys.executable, "-m", "rtk", "train", *words, "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        messages = [process.stderr.readline()]
        while not messages[-1].startswith("epoch   2/"):
            messages.append(process.stderr.readline())
            assert messages[-1], messages
        process.send_signal(sent)
        messages += process.stderr.readlines()
    assert process.returncode == code
    assert messages[-1] == f"stopped; resume with: rtk train --resume {tmp_path / 'run'}\n", messages
    assert "Traceback" not in "".join(messages)
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["best.pt", "config.json", "data", "history.csv", "history.jsonl", "last.pt"]
    state = load_checkpoint(tmp_path / "run" / "last.pt").training
    assert state is not None
    assert len(history(tmp_path / "run")) == state["epoch"] == len(state["history"])


# The state that is saved within an epoch.


def test_the_rest_of_an_epoch_is_the_same_from_the_state_after_any_step(shapes64: Split, card: Any) -> None:
    """One trainer runs the whole epoch; another one is loaded from the first one's state after each step."""
    recipe = replace(RECIPES["rtk"], epochs=4, batch_size=8)

    def new() -> Trainer:
        arithmetic = Arithmetic(CPU, None)
        return Trainer(new_model(card, 0, arithmetic), recipe, arithmetic, shapes64.head(40), seed=1)

    first, states = new(), list[dict[str, Any]]()
    first.run_epoch(lambda images: None)  # the next epoch leaves easy images out
    row = first.run_epoch(lambda images: states.append(_copied(first.state())))
    assert 3 < len(states) < 6
    for state in states[:-1]:
        second = new()
        second.load_state(state)
        assert second.run_epoch(lambda images: None) == row
        for name, value in first.model.state_dict().items():
            assert torch.equal(value, second.model.state_dict()[name]), name


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("minutes", "every"),
    [(0.0, [1, 2, 3, 4, 5, 6]), (1.0, [2, 4, 6]), (2.0, [4])],
)
def test_the_state_is_saved_as_often_as_requested(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, every: list[int]
) -> None:
    """The clock advances by half a minute in each of the six steps of an epoch, and only there."""
    now, saved = [0.0], list[int]()
    original, save = Trainer._step, loop.save_checkpoint

    def step(self: Trainer, *arguments: Any) -> Any:
        now[0] += 30
        return original(self, *arguments)

    def recorded(path: Path, *arguments: Any, training: dict[str, Any] | None = None) -> None:
        if training and training["under_way"]:
            saved.append(training["under_way"]["steps_done"])
        save(path, *arguments, training=training)

    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setattr(loop, "save_checkpoint", recorded)
    train(tiny(class_folders, tmp_path / "run", epochs=1, batch_size=4, save_every=minutes))
    assert saved == every


def test_a_checkpoint_from_within_an_epoch_has_no_score(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted_steps(monkeypatch, {2: signal.SIGTERM})
    with pytest.raises(Stopped):
        train(tiny(class_folders, tmp_path / "run"))
    checkpoint = load_checkpoint(tmp_path / "run" / "last.pt")
    checkpoint.model()
    assert checkpoint.card.score is None
    assert checkpoint.card.training is not None
    assert checkpoint.card.training.epochs == 0


def test_on_another_kind_of_device_an_epoch_resumes_with_new_random_numbers() -> None:
    epoch = Epoch.start(torch.arange(6), torch.ones(6), torch.Generator().manual_seed(1), batch_size=2)
    state = {**epoch.state(), "device": "cuda", "generator": torch.zeros(16, dtype=torch.uint8)}
    assert Epoch.load(state, torch.Generator().manual_seed(5)).generator.initial_seed() == 5


# kill -9.


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_ends_like_an_uninterrupted_one(class_folders: Path, tmp_path: Path) -> None:
    """Runs that save after every step are killed at random moments, until there were twenty kills."""
    settings: dict[str, Any] = {"epochs": 4, "holdout": 4, "batch_size": 4, "save_every": 0.0}
    whole, spans_s = tiny(class_folders, tmp_path / "whole0", **settings), list[float]()
    for number in range(2):  # the first time includes starting the server process
        started_at = time.monotonic()
        child = in_child(train_or_resume, tiny(class_folders, tmp_path / f"whole{number}", **settings))
        child.join()
        assert child.exitcode == 0
        spans_s.append(time.monotonic() - started_at)
    assert_same_runs(whole.run_dir, tmp_path / "whole1")
    moments, kills, ended = random.Random(6), 0, 0
    while kills < 20 or not ended:
        config = tiny(class_folders, tmp_path / f"killed{ended}", **settings)
        child = in_child(train_or_resume, config)
        child.join(moments.uniform(0, spans_s[1] / 2) if kills < 20 else None)
        if child.exitcode is None:
            child.kill()
            child.join()
            kills += 1
            continue
        assert child.exitcode == 0
        assert_same_runs(whole.run_dir, config.run_dir)
        names = sorted(path.name for path in config.run_dir.iterdir())
        assert names == sorted(path.name for path in whole.run_dir.iterdir())  # no partial file is left
        ended += 1


def test_a_run_killed_before_it_saved_anything_starts_from_the_beginning(class_folders: Path, tmp_path: Path) -> None:
    whole = train(tiny(class_folders, tmp_path / "whole"))
    shutil.copytree(whole.run_dir, tmp_path / "killed")
    for name in ("last.pt", "best.pt", "history.jsonl"):
        (tmp_path / "killed" / name).unlink()
    resume(tmp_path / "killed")
    assert_same_runs(whole.run_dir, tmp_path / "killed")


def test_a_run_killed_before_its_last_files_writes_them_when_resumed(class_folders: Path, tmp_path: Path) -> None:
    whole = train(tiny(class_folders, tmp_path / "whole"))
    path = whole.run_dir / "history.jsonl"
    before = path.read_text()
    path.write_text("".join(before.splitlines(keepends=True)[:2]))
    resume(whole.run_dir)
    assert path.read_text() == before


def test_a_second_process_cannot_train_in_the_same_folder(class_folders: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with only_writer(run_dir), pytest.raises(OutputError) as caught:
        train(tiny(class_folders, run_dir))
    assert str(caught.value) == f"{run_dir}: another process writes there; wait for it or stop it"
    assert not list(run_dir.iterdir())
    train(tiny(class_folders, run_dir))


# A full disk.


@pytest.mark.parametrize("full_from", [2, 3, 4])
def test_a_full_disk_ends_with_one_error_line_and_an_intact_checkpoint(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_from: int
) -> None:
    """The disk is full from one write on: of best.pt, last.pt or history.jsonl of the second epoch."""
    whole = train(tiny(class_folders, tmp_path / "whole"))
    fsync, messages = os.fsync, list[str]()

    def full(descriptor: int) -> None:
        if sum(message.startswith("epoch") for message in messages) == 1:
            writes.append(1)
            if len(writes) > full_from - 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    writes = list[int]()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OutputError) as caught:
            logged(messages.append, train, tiny(class_folders, tmp_path / "full"))
    assert str(caught.value).endswith(
        ": cannot be written: No space left on device; the last checkpoint is intact; "
        f"free some space and resume with: rtk train --resume {tmp_path / 'full'}"
    )
    state = load_checkpoint(tmp_path / "full" / "last.pt").training
    assert state is not None
    assert state["epoch"] == (2 if full_from == 4 else 1)
    resume(tmp_path / "full")
    assert_same_runs(whole.run_dir, tmp_path / "full")


def _train_with_files_of_at_most(config: Any, size: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    RunFolder.write_files = lambda folder, files: []  # type: ignore[method-assign] # checkpoints are what this is about
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        resume(config.run_dir)
    except OutputError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        (config.run_dir / "messages").write_text(str(error))


@pytest.mark.parametrize("size", [100, 4096, 100_000])
def test_a_checkpoint_cut_off_at_any_size_is_reported_as_a_full_disk(
    class_folders: Path, tmp_path: Path, size: int
) -> None:
    """torch.save itself reports an unexpected position in the file instead."""
    config = tiny(class_folders, tmp_path / "run")
    RunFolder(config.run_dir).path.mkdir()
    RunFolder(config.run_dir).begin(config)
    child = in_child(_train_with_files_of_at_most, config, size)
    child.join()
    messages = (config.run_dir / "messages").read_text()
    assert messages == (
        f"{config.run_dir / 'best.pt'}: cannot be written: File too large; "
        f"free some space and resume with: rtk train --resume {config.run_dir}"
    )
    assert sorted(path.name for path in config.run_dir.iterdir()) == ["config.json", "messages"]


# Options of a resumed run.


def test_changed_options_are_listed_with_both_values(class_folders: Path, tmp_path: Path) -> None:
    run = train(tiny(class_folders, tmp_path / "run", epochs=1))
    with pytest.raises(UsageError) as caught:
        resume(run.run_dir, given={"epochs": 5, "seed": 0, "lr": 0.1, "holdout": 3})
    assert str(caught.value) == (
        f"{run.run_dir}: a run resumes only with its own options, found --epochs 5 (run: 1), --lr 0.1 (run: 0.05), "
        "--holdout 3 (run: 0); leave them out, or start a new run with another --out"
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"arch": "resnet20v1"}, "ARCH resnet20v1 (run: resnet8v1)"),
        ({"recipe": "paper"}, "--recipe paper (run: rtk)"),
        ({"dataset": "cifar10"}, "--dataset cifar10 (run: "),
        ({"train_images": 9}, "--train-images 9 (run: none)"),
        ({"out": Path("elsewhere")}, "--out elsewhere"),
        ({"deterministic": True}, "--deterministic True (run: False)"),
    ],
)
def test_each_option_is_compared(class_folders: Path, tmp_path: Path, given: dict[str, Any], words: str) -> None:
    config = tiny(class_folders, tmp_path / "run")
    RunFolder(config.run_dir).path.mkdir()
    RunFolder(config.run_dir).begin(config)
    with pytest.raises(UsageError) as caught:
        resume(config.run_dir, given=given)
    assert f"found {words}" in str(caught.value)


def test_the_same_options_are_accepted_and_some_may_change(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(class_folders, tmp_path / "run", epochs=None, recipe="quick")
    with monkeypatch.context() as patch:
        counted_steps(patch, {1: signal.SIGTERM})
        with pytest.raises(Stopped):
            train(config)
    monkeypatch.chdir(class_folders.parent)
    given = {"arch": "resnet8v1", "dataset": class_folders.name, "epochs": 5, "out": tmp_path / "run"}
    resume(config.run_dir, given={**given, "skip_nan": True, "save_every": 1.0})
    kept = json.loads((config.run_dir / "config.json").read_text())
    assert (kept["skip_nan"], kept["save_every"], kept["epochs"]) == (True, 1.0, None)
