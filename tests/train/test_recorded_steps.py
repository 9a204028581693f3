"""Recorded steps: a training from recordings is the one without them. On a GPU the recordings are CUDA graphs."""

import copy
import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.replayed import ReplayRecorder
from fakes.train_runs import assert_equal, tiny
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.card import ModelCard
from rtk.core.data.datasets import Split
from rtk.core.errors import BackendError
from rtk.train import run
from rtk.train.augment.options import augmentation_with
from rtk.train.device import Arithmetic, Compilation, compile_network
from rtk.train.optim.nan_guard import NotFinite
from rtk.train.recipes import Recipe, find_recipe
from rtk.train.recorded_steps import WARM_UP_STEPS, CudaGraphRecorder, RecordedSteps
from rtk.train.run import train
from rtk.train.run_folder import RunFolder
from rtk.train.trainer import Trainer, new_model
from torch import Tensor

CPU = Arithmetic(torch.device("cpu"), None)
EPOCHS = 4


def new_trainer(card: ModelCard, split: Split, recipe: Recipe, arithmetic: Arithmetic = CPU, **options: Any) -> Trainer:
    return Trainer(new_model(card, 3, arithmetic), recipe, arithmetic, split, seed=3, **options)


def tensors_of(trainer: Trainer) -> Iterator[Tensor]:
    """Every tensor that a step changes."""
    yield from trainer.model.state_dict().values()
    for state in trainer.optimiser.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
    yield trainer.guard.not_finite
    yield trainer.sampler.losses_N


def trained(trainer: Trainer, epochs: int = EPOCHS) -> dict[str, Any]:
    """The state and the history after all epochs."""
    rows = [trainer.run_epoch(lambda images: None) for _ in range(epochs)]
    return {**trainer.state(), "rows": rows}


def assert_same(found: dict[str, Any], expected: dict[str, Any], *, tolerance: float = 1e-3) -> None:
    """Equal but for rounding: a recorded step has its learning rate in fp32."""
    for row, other in zip(found["rows"], expected["rows"], strict=True):
        assert (row["epoch"], row["images"]) == (other["epoch"], other["images"])
        assert row["lr"] == other["lr"]
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=tolerance)
    for name, value in expected["model"].items():
        torch.testing.assert_close(found["model"][name], value, rtol=10 * tolerance, atol=tolerance)


def short_recipe(name: str, *changes: str) -> Recipe:
    recipe = replace(find_recipe(name), epochs=EPOCHS, batch_size=8, lr=0.05, least_steps=0)
    return replace(recipe, augmentation=augmentation_with(recipe.augmentation, changes))


RECIPES = {
    "rtk": short_recipe("rtk"),
    "mixup": short_recipe("rtk", "mixup=0.4"),
    "head first": replace(short_recipe("rtk"), head_first=0.4),
    "adam": short_recipe("keras"),
    "class weights": replace(short_recipe("rtk"), class_weights="balanced"),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_training_from_recordings_equals_one_without(shapes64: Split, card: ModelCard, recipe: Recipe) -> None:
    plain, recorded = new_trainer(card, shapes64, recipe), new_trainer(card, shapes64, recipe)
    recorder = ReplayRecorder(lambda: tensors_of(recorded))
    recorded.record_steps(recorder)
    expected, found = trained(plain), trained(recorded)
    assert recorder.recorded >= len({side for _, side in recipe.resizing}) + 1  # one for each size of images
    assert recorder.runs > 2 * WARM_UP_STEPS
    assert_same(found, expected)


@pytest.mark.parametrize("skip", [False, True])
def test_a_step_that_is_not_finite_changes_nothing(shapes64: Split, card: ModelCard, *, skip: bool) -> None:
    """The recording keeps the number of the guard between its steps."""
    trainer = new_trainer(card, shapes64, short_recipe("paper"), skip_nan=skip)
    trainer.record_steps(ReplayRecorder(lambda: tensors_of(trainer)))
    for number in range(WARM_UP_STEPS + 4):
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        spoiled = number == WARM_UP_STEPS + 1
        trainer.image_weights_N.fill_(torch.nan if spoiled else 1.0)
        run_step(trainer)
        stays = spoiled or (number > WARM_UP_STEPS + 1 and not skip)
        assert bool(trainer.guard.not_finite) == stays
        assert stays == all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_the_learning_rate_of_each_step_reaches_the_recording(shapes64: Split, card: ModelCard) -> None:
    trainer = new_trainer(card, shapes64, short_recipe("paper"))
    trainer.record_steps(ReplayRecorder(lambda: tensors_of(trainer)))
    for _ in range(WARM_UP_STEPS + 1):
        run_step(trainer)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    run_step(trainer, rate=0.0)
    assert all(torch.equal(*pair) for pair in zip(before, trainer.model.parameters(), strict=True))
    run_step(trainer)
    assert not all(torch.equal(*pair) for pair in zip(before, trainer.model.parameters(), strict=True))


def run_step(trainer: Trainer, rate: float = 0.1) -> None:
    """A step on the first eight images."""
    trainer.set_rate(rate)
    trainer._work((32, 32), torch.arange(8), None)


@pytest.mark.parametrize(
    "change",
    [
        "rotation=10",
        "shift=0.1",
        "zoom=0.2",
        "shear=5",
        "brightness=0.3",
        "channel-shift=20",
        "cutout=0.25",
        "flip=random",
    ],
)
@pytest.mark.parametrize("fill", ["reflect", "constant", "nearest"])
def test_every_augmentation_can_be_recorded(shapes64: Split, card: ModelCard, change: str, fill: str) -> None:
    recipe = short_recipe("rtk", change, f"fill={fill}")
    plain, recorded = (new_trainer(card, shapes64, recipe) for _ in range(2))
    recorded.record_steps(ReplayRecorder(lambda: tensors_of(recorded)))
    for trainer in (plain, recorded):
        trainer.run_epoch(lambda images: None)
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(recorded.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_images_of_a_step_that_was_not_finite_are_those_of_that_step(shapes64: Split, card: ModelCard) -> None:
    """Later steps have theirs in the same memory."""
    trainer = new_trainer(card, shapes64, short_recipe("rtk"))
    trainer.record_steps(ReplayRecorder(lambda: tensors_of(trainer)))
    reports, put = trainer._reports, trainer._reports.put
    reports.delay = 2
    reports.put = lambda step, numbers: put(step, numbers.clone())  # type: ignore[method-assign] # as on a GPU
    seen: list[Tensor] = []
    with pytest.raises(NotFinite) as caught:
        for number, _ in enumerate(trainer.steps()):
            seen.append(reports._waiting[-1][0]["images"][0].clone())
            if number == WARM_UP_STEPS + 1:
                trainer.image_weights_N.fill_(torch.nan)
    spoiled = WARM_UP_STEPS + 3
    assert caught.value.evidence["step"] == spoiled
    assert torch.equal(caught.value.evidence["images"], seen[spoiled - 1])
    assert not torch.equal(seen[spoiled - 1], seen[spoiled])


def test_a_state_holds_numbers_and_resumes_with_or_without_recordings(shapes64: Split, card: ModelCard) -> None:
    expected = trained(new_trainer(card, shapes64, RECIPES["adam"]))
    first = new_trainer(card, shapes64, RECIPES["adam"])
    first.record_steps(ReplayRecorder(lambda: tensors_of(first)))
    state = trained(first, epochs=EPOCHS // 2)
    assert all(type(group["lr"]) is float for group in state["optimiser"]["param_groups"])
    assert not any(group["capturable"] for group in state["optimiser"]["param_groups"])
    for record in (False, True):
        second = new_trainer(card, shapes64, RECIPES["adam"])
        if record:
            second.record_steps(ReplayRecorder(lambda: tensors_of(second)))  # noqa: B023
        second.load_state(copy.deepcopy(state))
        rest = trained(second, epochs=EPOCHS // 2)
        assert_same(rest, {**expected, "rows": expected["rows"][EPOCHS // 2 :]})


def test_every_kind_of_step_has_a_recording_of_its_own() -> None:
    recorder = ReplayRecorder(list)

    def work(times: Hashable, values: Tensor | None, other: Tensor | None) -> tuple[Tensor, ...]:
        return (float(str(times)) * (values if other is None else other).sum(),)

    steps = RecordedSteps(work, recorder)
    for _ in range(WARM_UP_STEPS + 2):
        assert [float(*steps(1, torch.ones(size), None)) for size in (2, 3)] == [2.0, 3.0]
        assert float(*steps(1, torch.ones(2), torch.ones(5))) == 5.0
        assert float(*steps(1, torch.ones(2, dtype=torch.int64), None)) == 2.0
        assert float(*steps(7, torch.ones(2), None)) == 14.0
    assert (recorder.recorded, recorder.runs) == (5, 10)


@pytest.mark.parametrize("wait", [Tensor.item, Tensor.nonzero, lambda values: values[values > 0]])
def test_work_that_waits_for_the_device_is_refused_in_one_line(wait: Callable[[Tensor], Any]) -> None:
    steps = RecordedSteps(lambda value, values: (values + wait(values.sum()[None]),), ReplayRecorder(list))
    for _ in range(WARM_UP_STEPS):
        steps(1, torch.ones(2))
    with pytest.raises(BackendError, match=r"^a training step of this network cannot be recorded as a CUDA graph \(.*"):
        steps(1, torch.ones(2))


def test_several_processes_cannot_record_their_steps(card: ModelCard) -> None:
    gpu = Arithmetic(torch.device("cuda"), None)
    with pytest.raises(BackendError, match=r"^--compile cudagraphs: steps of several processes cannot be recorded"):
        compile_network(new_model(card, 0, CPU), gpu, "cudagraphs", alone=False)


class Refusing:
    """A recorder whose device refuses the work."""

    def record(self, work: Any, generators: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with TORCH_USE_CUDA_DSA")


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU that cannot record the steps of a network."""

    def compile_network(network: Any, arithmetic: Any, mode: str, **options: Any) -> Compilation:
        return Compilation(mode, records_steps=mode != "off")

    monkeypatch.setattr(run, "compile_network", compile_network)
    monkeypatch.setattr(run, "CudaGraphRecorder", Refusing)
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


@pytest.mark.usefixtures("refusing")
def test_auto_begins_again_without_recordings(
    class_folders: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, again = (tiny(class_folders, tmp_path / name, compile=name) for name in ("off", "auto"))
    train(plain)
    with caplog.at_level("INFO"):
        train(again)
    said = (
        "steps of this network cannot be recorded (operation not permitted when stream is capturing); beginning again"
    )
    assert said in caplog.text.replace("\n  ", " ")
    assert_equal(*(load_checkpoint(tmp_path / name / "best.pt").weights for name in ("off", "auto")))
    assert read_history(tmp_path / "off") == read_history(tmp_path / "auto")


def read_history(folder: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if not name.endswith("_s")} for row in rows]


@pytest.mark.usefixtures("refusing")
def test_recordings_that_were_asked_for_are_an_error_where_they_fail(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BackendError, match=r"^a training step .* \(operation not permitted .* capturing\); use --compile"
    ):
        train(tiny(class_folders, tmp_path / "run", compile="cudagraphs"))


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_cuda_graphs_train_as_single_kernels_do(shapes64: Split, card: ModelCard, recipe: Recipe) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    gpu = Arithmetic(torch.device("cuda"), None)
    torch.backends.cudnn.deterministic = True
    try:
        plain, recorded = (new_trainer(card, shapes64, recipe, gpu) for _ in range(2))
        recorded.record_steps(CudaGraphRecorder())
        expected, found = trained(plain), trained(recorded)
    finally:
        torch.backends.cudnn.deterministic = False
    assert_same(found, expected, tolerance=1e-2)


@pytest.mark.gpu
def test_a_run_on_a_gpu_records_its_steps(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)
    with caplog.at_level("INFO"):
        train(tiny(class_folders, tmp_path / "run", device="cuda", compile="cudagraphs", epochs=6))
    assert "not compiled, steps recorded as CUDA graphs" in caplog.text.replace("\n  ", " ")
