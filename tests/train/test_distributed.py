"""Several processes that train one model: their shares of images, their common state, and how they end."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes.train_runs import assert_equal, assert_same_runs, history, in_child, tiny, together, train_or_resume
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.card import Input, ModelCard, Preprocessing
from rtk.core.data.datasets import Split
from rtk.core.data.open_dataset import open_dataset
from rtk.core.errors import BackendError, RtkError
from rtk.train import evaluate
from rtk.train import run as loop
from rtk.train.device import Arithmetic
from rtk.train.distributed import process_group as processes
from rtk.train.distributed.process_group import ALONE, Processes, device_of_process, join_process_group
from rtk.train.optim import norm_statistics
from rtk.train.optim.nan_guard import RunningStatistics
from rtk.train.recipes import Recipe
from rtk.train.run import train
from rtk.train.run_folder import RunFolder
from rtk.train.stop_signals import Stopped
from rtk.train.trainer import Trainer, new_model, random_generator

CPU = Arithmetic(torch.device("cpu"), None)


# Shares.


@pytest.mark.parametrize(("count", "images"), [(2, 8), (2, 9), (3, 8), (8, 128), (7, 100), (8, 16)])
def test_shares_contain_every_image_once_and_differ_by_one_at_most(count: int, images: int) -> None:
    shares = [list(range(images))[Processes(rank, count).share(images)] for rank in range(count)]
    assert [image for share in shares for image in share] == list(range(images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_each_process_takes_all_images_of_a_small_batch() -> None:
    assert [Processes(rank, 4).share(7) for rank in range(4)] == [slice(0, 7)] * 4
    assert ALONE.share(1) == slice(0, 1)


@pytest.mark.parametrize(("count", "images"), [(2, 8), (3, 8), (2, 9), (4, 7)])
def test_the_average_of_the_weighted_means_is_the_mean_of_all(count: int, images: int) -> None:
    values = torch.arange(float(images)) ** 2
    each = [Processes(rank, count) for rank in range(count)]
    means = [one.weighted(values[one.share(images)].mean(), images) for one in each]
    assert sum(means) / count == pytest.approx(float(values.mean()), rel=1e-5)  # fp32, in another order


# Training steps against a hand-written loop over two copies of the model.


def new_trainer(split: Split, together: Processes) -> Trainer:
    recipe = Recipe("plain", epochs=2, lr=0.1, batch_size=9, schedule="steps")
    size = Input(*split.images_NHWC.shape[1:])
    card = ModelCard("a", "resnet8v1", "a", ("a", "b", "c"), size, Preprocessing(*split.statistics()))
    return Trainer(new_model(card, 0, CPU), recipe, CPU, split, seed=4, processes=together)


def _train_two_epochs(folder: Path, out: Path) -> None:
    with join_process_group() as group:
        trainer = new_trainer(open_dataset(str(folder)).split("train"), group)
        rows = [trainer.run_epoch(lambda images: None) for _ in range(2)]
        torch.save({"rows": rows, **trainer.state()}, out / f"{group.rank}.pt")


def test_two_processes_train_like_a_hand_written_loop_over_two_copies(class_folders: Path, tmp_path: Path) -> None:
    assert together(2, _train_two_epochs, class_folders, tmp_path) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_equal(first, second)  # bit by bit: weights, statistics, moments, average, losses of the sampler, history

    split = open_dataset(str(class_folders)).split("train")
    images, labels = torch.from_numpy(split.images_NHWC), torch.from_numpy(split.labels_N)
    model = new_trainer(split, ALONE).model.train()
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    for epoch in range(2):
        loss_sum, hits = 0.0, 0
        order = torch.randperm(24, generator=random_generator(4, epoch, CPU.device))
        for batch in (order[:9], order[9:18]):
            copies = [deepcopy(model), deepcopy(model)]
            for copy, share in zip(copies, (batch[:4], batch[4:]), strict=True):
                logits = copy(images[share])
                loss = F.cross_entropy(logits, labels[share], reduction="sum")
                (loss / 9).backward()
                loss_sum, hits = loss_sum + float(loss.detach()), hits + int((logits.argmax(1) == labels[share]).sum())
            with torch.no_grad():
                for p, v, one, other in zip(
                    model.parameters(), velocity, *(c.parameters() for c in copies), strict=True
                ):
                    v.mul_(0.9).add_(one.grad + other.grad)
                    p.sub_(0.1 * v)
                for value, one, other in zip(model.buffers(), *(c.buffers() for c in copies), strict=True):
                    value.copy_((one + other) / 2)
        assert first["rows"][epoch]["train_loss"] == pytest.approx(loss_sum / 18, rel=1e-4)
        assert first["rows"][epoch]["train_accuracy"] == hits / 18
    for name, value in model.state_dict().items():
        torch.testing.assert_close(first["model"][name], value, rtol=1e-3, atol=1e-5)


# The same images as in one process, and resuming with another number of processes.


def _train_and_record(config: Any, stop_after: int = 0) -> None:
    """Train or resume, and record the images of this process's share of every step."""
    seen, original = list[Any](), Trainer._step

    def recorded(self: Trainer, images: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        mine = self.processes.share(len(labels))
        seen.append((images[mine].numpy().copy(), labels[mine].numpy().copy()))
        if len(seen) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, images, labels, *rest)

    Trainer._step = recorded  # type: ignore[method-assign]
    RunFolder.write_curves = lambda *arguments, **options: None  # type: ignore[method-assign,assignment]
    with contextlib.suppress(Stopped):
        train_or_resume(config)
    names = {f"{kind}{step}": array for step, pair in enumerate(seen) for kind, array in zip("il", pair, strict=True)}
    np.savez(config.run_dir / f"seen-{processes.rank()}-{'begun' if stop_after else 'ended'}.npz", **names)


def seen_in(run_dir: Path, part: str) -> list[list[bytes]]:
    """For each step, the images that the processes saw, by rank."""
    files = [np.load(path) for path in sorted(run_dir.glob(f"seen-*-{part}.npz"))]
    return [[image.tobytes() for file in files for image in file[f"i{n}"]] for n in range(len(files[0]) // 2)]


@pytest.mark.parametrize("recipe", ["rtk", "keras"])
def test_two_processes_see_the_images_of_one_and_count_each_test_image_once(
    class_folders: Path, tmp_path: Path, recipe: str
) -> None:
    settings: dict[str, Any] = {"recipe": recipe, "lr": 0.01, "epochs": 3}
    alone = tiny(class_folders, tmp_path / "alone", **settings)
    both = tiny(class_folders, tmp_path / "both", **settings)
    in_child(_train_and_record, alone).join()
    assert together(2, _train_and_record, both) == [0, 0]
    one, two = seen_in(alone.run_dir, "ended"), seen_in(both.run_dir, "ended")
    assert one[:3] == two[:3]  # later epochs of recipe rtk leave out images by their losses, which round differently
    assert recipe == "rtk" or one == two
    assert [row["test_total"] for row in history(both.run_dir)] == [12, 12, 12]
    checkpoint = load_checkpoint(both.run_dir / "best.pt")
    test = open_dataset(str(class_folders)).split("test")
    with torch.inference_mode():
        logits_NK = checkpoint.model()(torch.from_numpy(test.images_NHWC))
    assert history(both.run_dir)[-1]["test_correct"] == int((logits_NK.argmax(1).numpy() == test.labels_N).sum())


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 2)])
def test_a_run_resumes_with_another_number_of_processes(
    class_folders: Path, tmp_path: Path, before: int, after: int
) -> None:
    def run(config: Any, count: int, *rest: int) -> None:
        if count > 1:
            assert together(count, _train_and_record, config, *rest) == [0] * count
        else:
            child = in_child(_train_and_record, config, *rest)
            child.join()
            assert child.exitcode == 0

    settings: dict[str, Any] = {"recipe": "keras", "lr": 0.01}
    whole = tiny(class_folders, tmp_path / "whole", **settings)
    stopped = tiny(class_folders, tmp_path / "stopped", **settings)
    run(whole, 1)
    run(stopped, before, 5)  # in the middle of the second epoch
    run(stopped, after)
    every = seen_in(stopped.run_dir, "begun") + seen_in(stopped.run_dir, "ended")
    assert every == seen_in(whole.run_dir, "ended")
    assert [row["epoch"] for row in history(stopped.run_dir)] == [1, 2, 3]
    if before == after:
        both = tiny(class_folders, tmp_path / "both", **settings)
        run(both, 2)
        assert_same_runs(both.run_dir, stopped.run_dir)


def _evaluate(out: Path) -> None:
    evaluate.BATCH = 5
    with join_process_group() as group:
        split, model = _some_split(), _some_model()
        images, labels = torch.from_numpy(split.images_NHWC), torch.from_numpy(split.labels_N)
        score = evaluate.evaluate(model, images, labels, split="test", processes=group)
    (out / f"{processes.rank()}.json").write_text(json.dumps([score.correct, score.total, score.loss]))


def _some_split() -> Split:
    random = np.random.default_rng(0)
    return Split(random.integers(0, 256, (23, 8, 8, 3), dtype=np.uint8), random.integers(0, 3, 23))


def _some_model() -> torch.nn.Module:
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(3, 192, generator=generator)
    model = torch.nn.Linear(192, 3)
    model.weight.data, model.bias.data = weights, torch.zeros(3)

    class Flat(torch.nn.Module):
        def forward(self, images_NHWC: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(model(images_NHWC.flatten(1) / 255))

    return Flat()


@pytest.mark.parametrize("count", [2, 3])
def test_a_score_is_bitwise_the_same_for_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Five batches of 23 images, the last one smaller."""
    assert together(count, _evaluate, tmp_path) == [0] * count
    monkeypatch.setattr(evaluate, "BATCH", 5)
    split = _some_split()
    images, labels = torch.from_numpy(split.images_NHWC), torch.from_numpy(split.labels_N)
    score = evaluate.evaluate(_some_model(), images, labels, split="test")
    with torch.no_grad():
        logits = _some_model()(images)
    assert score.correct == int((logits.argmax(1) == labels).sum())
    assert score.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)  # as above
    for rank in range(count):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [score.correct, 23, score.loss]


def _measured_statistics(group: Processes) -> torch.Tensor:
    """The statistics of all batch norm layers over 23 images, in batches of at most five, as one vector."""
    norm_statistics.MOST_AT_ONCE = norm_statistics.LEAST_AT_ONCE = 5
    pixels = torch.randn(23, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4))
    norm_statistics.measure_statistics(
        model, lambda index, number: pixels[index] + number, images=23, pixels=64, processes=group
    )
    return RunningStatistics(model).read()


def _measure(out: Path) -> None:
    with join_process_group() as group:
        (out / f"{processes.rank()}.json").write_text(json.dumps(_measured_statistics(group).tolist()))


@pytest.mark.slow
def test_processes_measure_the_statistics_that_one_process_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MOST_AT_ONCE", "LEAST_AT_ONCE"):
        monkeypatch.setattr(norm_statistics, name, getattr(norm_statistics, name))  # restored after the test
    assert together(2, _measure, tmp_path) == [0, 0]
    alone = _measured_statistics(ALONE).tolist()
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone


# Rejected input, and errors in one process.


def _record_the_error(config: Any, out: Path) -> None:
    try:
        train(config)
    except RtkError as error:
        (out / f"messages{processes.rank()}").write_text(str(error))


def test_a_batch_smaller_than_two_images_per_process_is_rejected(class_folders: Path, tmp_path: Path) -> None:
    config = tiny(class_folders, tmp_path / "run", batch_size=3)
    together(2, _record_the_error, config, tmp_path)
    expected = "--batch-size 3: expected 4 or more, two images for each of 2 processes"
    assert [(tmp_path / f"messages{rank}").read_text() for rank in (0, 1)] == [expected, expected]


def test_a_folder_with_a_run_is_rejected_in_all_processes(class_folders: Path, tmp_path: Path) -> None:
    config = tiny(class_folders, tmp_path / "run", epochs=1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").touch()
    together(2, _record_the_error, config, tmp_path)
    messages = [(tmp_path / f"messages{rank}").read_text() for rank in (0, 1)]
    assert "holds a run already" in messages[0]
    assert messages[1] == "process 1 of 2: process 0 has failed; see its message"


def test_an_error_in_the_first_process_ends_the_others_with_one_line(class_folders: Path, tmp_path: Path) -> None:
    together(2, _record_the_error, tiny(class_folders, tmp_path / "run", train_images=999), tmp_path)
    messages = [(tmp_path / f"messages{rank}").read_text() for rank in (0, 1)]
    assert messages[0].startswith("--train-images 999: ")
    assert messages[1].startswith("process 1 of 2: another process has ended; see its message (")


def _train_on_other_data(config: Any, out: Path) -> None:
    if processes.rank() == 1:
        original = Split.take
        Split.take = lambda self, index: original(self, index[::-1])  # type: ignore[method-assign]
    _record_the_error(config, out)


def _test_on_other_data(config: Any, out: Path) -> None:
    if processes.rank() == 1:
        original = loop.splits_of

        def shorter(*arguments: Any) -> Any:
            found = original(*arguments)
            test = found.evaluated["test"]
            return dataclasses.replace(found, evaluated={"test": test.head(len(test) - 1)})

        loop.splits_of = shorter  # type: ignore[assignment]
    _record_the_error(config, out)


@pytest.mark.parametrize("action", [_train_on_other_data, _test_on_other_data])
def test_processes_that_read_different_images_are_rejected(class_folders: Path, tmp_path: Path, action: Any) -> None:
    together(2, action, tiny(class_folders, tmp_path / "run"), tmp_path)
    expected = "process 1 has read other data than process 0; expected the same data set"
    assert [(tmp_path / f"messages{rank}").read_text() for rank in (0, 1)] == [expected, expected]


def _fail_in_one(config: Any, out: Path) -> None:
    if processes.rank() == 1:
        original, steps = Trainer._step, list[int]()

        def failing(self: Trainer, *arguments: Any) -> Any:
            steps.append(1)
            if len(steps) == 5:
                raise ZeroDivisionError  # a bug: the error is not an RtkError
            return original(self, *arguments)

        Trainer._step = failing  # type: ignore[method-assign]
    _record_the_error(config, out)


def test_a_bug_in_one_process_ends_the_others_with_one_line(class_folders: Path, tmp_path: Path) -> None:
    codes = together(2, _fail_in_one, tiny(class_folders, tmp_path / "run", recipe="paper"), tmp_path)
    assert codes == [0, 1]  # the first process got an RtkError
    assert (
        (tmp_path / "messages0").read_text().startswith("process 0 of 2: another process has ended; see its message (")
    )
    state = load_checkpoint(tmp_path / "run" / "last.pt").training
    assert state is not None
    assert state["epoch"] == 1


def test_each_process_gets_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert device_of_process("auto") == "auto"  # without torchrun
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert (device_of_process("auto"), device_of_process("cuda"), device_of_process("cpu")) == (
        "cuda:1",
        "cuda:1",
        "cpu",
    )
    assert taken == [1, 1]
    with pytest.raises(BackendError, match=r"^--device cuda:0: torchrun gives each process its own GPU"):
        device_of_process("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(
        BackendError, match=r"finds 2 GPU\(s\); expected one for each process: torchrun --nproc-per-node 2$"
    ):
        device_of_process("auto")


# torchrun itself.


@pytest.mark.slow
def test_torchrun_trains_stops_and_resumes(class_folders: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rtk"]
    words = ["train", "resnet8v1", "--dataset", str(class_folders), "--epochs", "100", "--batch-size", "8"]
    with subprocess.Popen(
        [*torchrun, *words, "--lr", "0.001", "--compile", "off", "--out", str(run_dir)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        messages = list[str]()
        for line in process.stderr:
            messages.append(line)
            if line.startswith("epoch   2/"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode != 0
    assert sum(line.startswith("epoch   1/") for line in messages) == 1  # only the first process logs
    assert f"stopped; resume with: rtk train --resume {run_dir}\n" in messages
    state = load_checkpoint(run_dir / "last.pt").training
    assert state is not None
    assert 2 <= state["epoch"] < 100
    done = subprocess.run([*torchrun, "train", "--resume", str(run_dir)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test accuracy ")
    assert done.stdout.endswith(f"{run_dir / 'best.pt'}\n")
    assert done.stdout.count("test accuracy") == 1
    assert [row["epoch"] for row in history(run_dir)] == list(range(1, 101))
