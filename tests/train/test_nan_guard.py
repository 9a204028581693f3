"""Steps that are not finite: their batch is kept, or they are skipped; and the deferred read of GPU numbers."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.train_runs import assert_equal, tiny, without_times
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.errors import TrainingError
from rtk.train.config import TrainConfig
from rtk.train.optim import deferred_read
from rtk.train.optim.deferred_read import DeferredRead
from rtk.train.optim.nan_guard import NanGuard
from rtk.train.run import resume, train
from rtk.train.run_folder import RunFolder
from rtk.train.trainer import Trainer
from torch import Tensor, nn

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here."""
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """A function that makes the loss of certain steps, counted over all epochs, not finite.

    It returns a dict with the images of the step and the model's state before and after it.
    """

    def of(*steps: int, value: float = torch.nan) -> dict[str, Any]:
        original, seen = Trainer._step, dict[str, Any]()
        number = 0

        def step(self: Trainer, images: Tensor, labels: Tensor, weights: Tensor, *rest: Any) -> Any:
            nonlocal number
            number += 1
            if number not in steps:
                return original(self, images, labels, weights, *rest)
            seen["images"], seen["labels"] = images.clone(), labels.clone()
            seen["before"] = state_of(self)
            answer = original(self, images, labels, weights * value, *rest)
            seen["after"] = state_of(self)
            return answer

        monkeypatch.setattr(Trainer, "_step", step)
        return seen

    return of


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Copies of weights, statistics and moments."""
    model = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    moments = trainer.optimiser.state_dict()["state"]
    return {"model": model, "moments": {p: {n: t.clone() for n, t in s.items()} for p, s in moments.items()}}


# Stopping, with the batch that caused it kept.


@pytest.mark.parametrize("recipe", ["rtk", "keras"])
@pytest.mark.parametrize("step", [1, 5])
def test_the_batch_and_the_weights_before_it_are_kept(
    class_folders: Path, tmp_path: Path, spoil: Callable[..., dict[str, Any]], recipe: str, step: int
) -> None:
    seen = spoil(step)
    config = tiny(class_folders, tmp_path / "run", recipe=recipe, seed=9)
    with pytest.raises(TrainingError) as caught:
        train(config)
    path = tmp_path / "run" / "not-finite.pt"
    epoch, of_epoch = (step - 1) // 3 + 1, (step - 1) % 3 + 1  # three steps an epoch
    assert str(caught.value) == (
        f"the loss or its gradient is no longer finite in step {of_epoch} of epoch {epoch}; its images, labels and "
        f"weights are in {path} (torch.load); try a lower --lr than 0.05, "
        f"or resume with: rtk train --resume {tmp_path / 'run'} --skip-nan"
    )
    kept = torch.load(path, weights_only=True)
    assert (kept["seed"], kept["epoch"], kept["step"], len(kept["index"])) == (9, epoch, of_epoch, 8)
    assert torch.equal(kept["images"], seen["images"])
    assert torch.equal(kept["labels"], seen["labels"])
    assert_equal(kept["weights"], seen["before"]["model"])
    assert kept["image_weights"].shape == (8,)


def test_the_mixup_partners_are_kept(class_folders: Path, tmp_path: Path, spoil: Callable[..., dict[str, Any]]) -> None:
    spoil(2)
    with pytest.raises(TrainingError):
        train(tiny(class_folders, tmp_path / "run", augment=("mixup=0.4",)))
    kept = torch.load(tmp_path / "run" / "not-finite.pt", weights_only=True)
    assert sorted(kept["mixed_with"].tolist()) == sorted(kept["labels"].tolist())  # another order of the batch
    assert 0 <= float(kept["mixed_share"]) <= 0.5


def test_a_far_too_high_learning_rate_ends_with_that_error(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no longer finite in step \d of epoch \d; .* lower --lr than 999999,"):
        train(tiny(class_folders, tmp_path / "run", lr=999_999.0, epochs=6))


def test_a_run_that_stopped_with_nan_resumes_without_the_step(
    class_folders: Path, tmp_path: Path, spoil: Callable[..., dict[str, Any]]
) -> None:
    spoil(5)
    recipe = "paper"  # it leaves no image out, so that an epoch has three steps on any processor
    whole = train(tiny(class_folders, tmp_path / "whole", skip_nan=True, recipe=recipe))
    spoil(5)
    with pytest.raises(TrainingError):
        train(tiny(class_folders, tmp_path / "run", recipe=recipe))
    spoil(2)  # the fifth step again: the run resumes after the first epoch
    run = resume(tmp_path / "run", given={"skip_nan": True})
    assert [row.get("skipped_steps") for row in whole.history] == [0, 1, 0]
    assert [row.get("skipped_steps") for row in run.history] == [None, 1, 0]
    assert_equal(*(load_checkpoint(trained.best).weights for trained in (whole, run)))


# Skipping steps.


@pytest.mark.parametrize("recipe", ["paper", "keras"])
@pytest.mark.parametrize("steps", [(1,), (2, 5), (8,)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_skipped_step_changes_nothing_and_is_counted(
    class_folders: Path,
    tmp_path: Path,
    spoil: Callable[..., dict[str, Any]],
    recipe: str,
    steps: tuple[int, ...],
    value: float,
) -> None:
    seen = spoil(*steps, value=value)
    run = train(tiny(class_folders, tmp_path / "run", recipe=recipe, skip_nan=True))
    assert_equal(seen["before"]["model"], seen["after"]["model"])
    if steps != (1,) or recipe == "paper":  # Adam makes its moments in its first step
        assert_equal(seen["before"]["moments"], seen["after"]["moments"])
    per_epoch = [sum(3 * epoch < step <= 3 * epoch + 3 for step in steps) for epoch in range(3)]
    assert [row["skipped_steps"] for row in run.history] == per_epoch
    for row in run.history:
        assert 0 < row["train_loss"] < 20
        assert 0 <= row["train_accuracy"] <= 1
    assert all(value.isfinite().all() for value in load_checkpoint(run.best).weights.values())


def test_an_epoch_without_a_finite_step_ends_the_training(
    class_folders: Path, tmp_path: Path, spoil: Callable[..., dict[str, Any]]
) -> None:
    spoil(4, 5, 6)
    with pytest.raises(
        TrainingError, match=r"^no step of epoch 2 had a finite loss; --skip-nan does not help, try a lower --lr$"
    ):
        train(tiny(class_folders, tmp_path / "run", skip_nan=True))


def test_the_guard_changes_no_finite_step(class_folders: Path, tmp_path: Path) -> None:
    one, other = (train(tiny(class_folders, tmp_path / n, skip_nan=s)) for n, s in (("a", False), ("b", True)))
    for row in other.history:
        assert row.pop("skipped_steps") == 0
    assert without_times(one.history) == without_times(other.history)
    assert_equal(*(load_checkpoint(run.best).weights for run in (one, other)))


# The guard by itself.


class Little(nn.Module):
    """A batch norm, and a weight of which the loss is a multiple."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return (self.norm(x).mean((0, 2, 3)) * self.weight).sum()


@pytest.mark.parametrize("skip", [False, True])
def test_without_skip_no_later_step_changes_anything(skip: bool) -> None:
    model = Little()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5, fused=True)
    guard = NanGuard(model, optimiser, skip=skip, device=CPU)
    weights, means = [], []
    for factor in (1.0, torch.nan, 1.0):
        guard.before_forward()
        optimiser.zero_grad()
        (model(torch.full((2, 2, 3, 3), 4.0)) * 0 + factor * model.weight.sum()).backward()
        guard.before_step(torch.zeros(2))
        optimiser.step()
        guard.after_step()
        weights.append(float(model.weight.detach()[0]))
        means.append(float(model.norm.running_mean[0]))
    assert weights == [0.5, 0.5, 0.0 if skip else 0.5]
    assert means == pytest.approx([0.4, 0.4, 0.76 if skip else 0.4])  # a tenth of the way to 4 each time
    assert int(model.norm.num_batches_tracked) == (2 if skip else 1)


def test_a_gradient_that_is_not_finite_is_detected_despite_a_finite_loss() -> None:
    model = Little()
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
    guard = NanGuard(model, optimiser, skip=True, device=CPU)
    guard.before_forward()
    (model.weight - 1).sqrt().sum().backward()  # the slope of the square root at 0
    guard.before_step(torch.zeros(1))
    optimiser.step()
    assert (model.weight.tolist(), float(guard.not_finite)) == ([1.0, 1.0], 1.0)


# Deferred reading.


def test_numbers_are_read_after_the_delay_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    row: DeferredRead[str] = DeferredRead(CPU)
    row.delay = 2
    read = [row.put(name, torch.tensor([float(number)])) for number, name in enumerate("abcd")]
    assert read == [[], [], [("a", [0.0])], [("b", [1.0])]]
    assert row.read_all() == [("c", [2.0]), ("d", [3.0])]
    assert row.read_all() == []


@pytest.mark.parametrize("step", [2, 7, 9])
def test_the_right_batch_is_kept_when_its_report_is_read_late(
    class_folders: Path,
    tmp_path: Path,
    spoil: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    """As on a GPU: later steps must not have changed the weights."""
    original = DeferredRead.__init__

    def late(self: DeferredRead[Any], device: torch.device) -> None:
        original(self, device)
        self.delay = deferred_read.DELAY_STEPS

    monkeypatch.setattr(DeferredRead, "__init__", late)
    seen = spoil(step)
    with pytest.raises(TrainingError, match=rf"in step {step} of epoch 1;"):
        train(tiny(class_folders, tmp_path / "run", batch_size=2, epochs=2, recipe="paper"))
    kept = torch.load(tmp_path / "run" / "not-finite.pt", weights_only=True)
    assert torch.equal(kept["images"], seen["images"])
    assert_equal(kept["weights"], seen["before"]["model"])


PROTOTYPE = "Synchronization debug mode is a prototype"
"""PyTorch warns so, once a process, that set_sync_debug_mode does not detect all operations that wait."""


@pytest.mark.gpu
@pytest.mark.filterwarnings(f"ignore:{PROTOTYPE}:UserWarning")
def test_no_step_of_an_epoch_waits_for_the_gpu(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    train_without_waiting(tiny(class_folders, tmp_path / "run", device="cuda"), monkeypatch)


@pytest.mark.filterwarnings(f"ignore:{PROTOTYPE}:UserWarning")
def test_the_test_for_waiting_surrounds_every_epoch_and_allows_the_warning(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[str] = []

    def set_mode(mode: str) -> None:
        modes.append(mode)
        warnings.warn(
            f"{PROTOTYPE} feature and does not yet detect all synchronizing operations", UserWarning, stacklevel=2
        )

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    train_without_waiting(tiny(class_folders, tmp_path / "run"), monkeypatch)
    assert modes == ["error", "default"] * 3 + ["default"]


def train_without_waiting(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train three epochs; on a GPU, a step that waits for it is an error."""
    new_epoch, run_epoch = Trainer._new_epoch, Trainer.run_epoch

    def strict_from_here(self: Trainer) -> Any:
        epoch = new_epoch(self)
        torch.cuda.set_sync_debug_mode("error")
        return epoch

    def run_strictly(self: Trainer, after_step: Callable[[int], None]) -> dict[str, Any]:
        for losses_B in self.steps():
            after_step(len(losses_B))
        torch.cuda.set_sync_debug_mode("default")
        return run_epoch(self, after_step)  # no step is left: the sums are read

    monkeypatch.setattr(Trainer, "_new_epoch", strict_from_here)
    monkeypatch.setattr(Trainer, "run_epoch", run_strictly)
    try:
        assert len(train(config).history) == 3
    finally:
        torch.cuda.set_sync_debug_mode("default")
