"""Training end to end on a tiny data set: repeating, stopping, resuming, and errors in one clear line."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.log import logged
from fakes.train_runs import assert_same_weights, tiny, without_times
from PIL import Image
from rtk.cli import app as cli
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.card import Input, ModelCard, Preprocessing
from rtk.core.data.datasets import Split
from rtk.core.data.open_dataset import open_dataset
from rtk.core.errors import ArtifactError, DataError, OutputError, TrainingError, UnknownNameError, UsageError
from rtk.core.models.model import build_model
from rtk.tools.add_to_zoo import publish
from rtk.train.config import TrainConfig
from rtk.train.device import Arithmetic
from rtk.train.optim import schedule
from rtk.train.recipes import RECIPES, Recipe
from rtk.train.run import resume, train
from rtk.train.run_folder import RunFolder
from rtk.train.trainer import Trainer, new_model

NewConfig = Callable[..., TrainConfig]
CPU = Arithmetic(torch.device("cpu"), None)


@pytest.fixture(autouse=True)
def no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plotting takes longer than training here: only one test does it."""
    if "curves" not in request.node.name:
        monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


@pytest.fixture
def config(class_folders: Path, tmp_path: Path) -> NewConfig:
    """Makes configs of three epochs on 24 images, into a folder of that name."""

    return lambda out, **changes: tiny(class_folders, tmp_path / out, **changes)


# The files of a run.


def test_a_run_writes_checkpoints_config_history_and_curves(config: NewConfig, class_folders: Path) -> None:
    given, lines = config("run"), []
    trained = logged(lines.append, train, given)
    folder = trained.run_dir
    names = sorted(path.name for path in folder.iterdir())
    expected = ["best.pt", "config.json", "curves.png", "data", "history.csv", "history.jsonl", "last.pt"]
    assert names == expected
    assert TrainConfig.from_json((folder / "config.json").read_text(), source="x") == given
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert rows == trained.history
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row["test_total"] == 12 and 0 <= row["test_correct"] <= 12 for row in rows)
    with Image.open(folder / "curves.png") as curves:
        assert curves.format == "PNG"
    assert " ".join(lines[0].split()) == (
        f"{class_folders}: class folders in train and test: 3 classes, 24 train, 12 test images"
    )
    assert lines[1] == "the size of all images, 12 x 12, is kept; another size: --image-size"
    assert lines[2].startswith("resnet8v1-colours-s0: 77,731 parameters, ")
    assert lines[2].endswith("24 images, epochs 1 to 3")
    assert lines[3] == "cpu, fp32, not compiled"
    assert [line[:11] for line in lines[4:]] == ["epoch   1/3", "epoch   2/3", "epoch   3/3"]


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 1.0])
def test_curves_are_plotted_for_any_history(tmp_path: Path, accuracy: float) -> None:
    """A run without a single error has no positive value for a log scale."""
    row = {"epoch": 1, "lr": 0.1, "train_accuracy": accuracy, "train_loss": 1 - accuracy}
    row |= {"test_accuracy": accuracy, "test_loss": 1 - accuracy}
    RunFolder(tmp_path).write_curves([row], title="resnet8v1-colours")
    with Image.open(tmp_path / "curves.png") as curves:
        assert min(curves.size) > 300


def test_curves_are_plotted_for_a_name_in_any_script(tmp_path: Path) -> None:
    history = [{"epoch": 1, "lr": 0.1, "test_accuracy": 0.5, "test_loss": 1.0}]
    RunFolder(tmp_path).write_curves(history, title="resnet8v1-\u52a8\u7269 a$x_$b")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_card_records_the_origin_of_the_weights(config: NewConfig, class_folders: Path) -> None:
    trained = train(config("run", seed=5))
    card = load_checkpoint(trained.best).card
    assert card == trained.card
    assert (card.name, card.arch, card.dataset) == ("resnet8v1-colours-s5", "resnet8v1", "colours")
    assert card.classes == ("blue", "green", "red")
    assert card.input == Input(12, 12, 3)
    pixels = open_dataset(str(class_folders)).split("train").images_NHWC / 255
    assert card.preprocessing.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert card.preprocessing.deviation == pytest.approx(pixels.std(axis=(0, 1, 2)))
    assert card.training is not None
    assert (card.training.recipe, card.training.epochs, card.training.seed) == ("rtk", 3, 5)
    assert card.training.selection == "moving average of the weights after the last epoch; nothing was selected"
    assert card.training.settings["lr"] == 0.05
    assert card.training.settings["precision"] == "fp32"
    assert card.score is not None
    assert (card.score.split, card.score.total) == ("test", 12)
    assert card.score.correct == trained.history[-1]["test_correct"]


def test_the_score_on_the_card_is_that_of_its_weights(config: NewConfig, class_folders: Path) -> None:
    checkpoint = load_checkpoint(train(config("run")).best)
    test = open_dataset(str(class_folders)).split("test")
    with torch.inference_mode():
        logits_NK = checkpoint.model()(torch.from_numpy(test.images_NHWC))
    loss = torch.nn.functional.cross_entropy(logits_NK, torch.from_numpy(test.labels_N))
    assert checkpoint.card.score is not None
    assert checkpoint.card.score.correct == int((logits_NK.argmax(1).numpy() == test.labels_N).sum())
    assert checkpoint.card.score.loss == pytest.approx(float(loss), rel=1e-5)


def test_held_out_images_are_not_trained_on_and_select_the_epoch(config: NewConfig) -> None:
    trained = train(config("run", holdout=6, epochs=4))
    assert all(row["holdout_total"] == 6 and row["images"] <= 18 for row in trained.history)
    card = trained.card
    hits = [row["holdout_correct"] for row in trained.history]
    assert card.training is not None
    assert card.training.epochs == hits.index(max(hits)) + 1  # the first of the best
    assert card.training.selection == (
        "moving average of the weights of the epoch with the highest accuracy on 6 held-out training images"
    )


def test_a_validation_split_is_a_holdout_given_as_a_share(config: NewConfig) -> None:
    share, count = (
        train(config(name, **options))
        for name, options in (("share", {"validation_split": 0.25}), ("count", {"holdout": 6}))
    )
    assert_same_weights(share.best, count.best)
    assert without_times(share.history) == without_times(count.history)
    assert share.card.training == replace(count.card.training, train_s=share.card.training.train_s)


def test_held_out_images_do_not_select_if_the_last_epoch_is_requested(config: NewConfig) -> None:
    trained = train(config("run", holdout=6, select="last"))
    assert trained.history[-1]["holdout_total"] == 6
    assert (trained.card.training.epochs, trained.card.training.selected_on) == (3, "")


def test_the_card_says_if_the_test_split_selected_the_epoch(config: NewConfig) -> None:
    trained = train(config("run", recipe="keras", lr=0.003, epochs=4))
    hits = [row["test_correct"] for row in trained.history]
    best, last = load_checkpoint(trained.best).card, load_checkpoint(trained.run_dir / "last.pt").card
    assert best.score.correct == max(hits)
    assert (best.training.epochs, best.training.selected_on) == (hits.index(max(hits)) + 1, "test")
    assert best.training.selection == (
        "weights of the epoch with the highest accuracy on the test split itself, so its score is too optimistic"
    )
    assert (last.training.epochs, last.training.selected_on, last.score.correct) == (4, "", hits[-1])
    assert last.training.selection == "weights after the last epoch; nothing was selected"


def test_the_zoo_rejects_an_epoch_selected_on_the_test_split(config: NewConfig) -> None:
    best = train(config("run", recipe="keras", epochs=1)).best
    with pytest.raises(UsageError) as caught:
        publish(best)
    assert str(caught.value) == (
        f"{best}: weights of the epoch with the highest accuracy on the test split itself, so its score is too "
        "optimistic; the zoo takes the weights of the last epoch, or those selected on held-out images: train with "
        "--select last, --holdout or --validation-split"
    )


def test_a_learning_rate_that_followed_the_test_split_is_recorded_and_rejected_by_the_zoo(config: NewConfig) -> None:
    plateau = {"recipe": "keras", "epochs": 1, "plateau": True, "select": "last"}
    best = train(config("run", **plateau)).best
    assert load_checkpoint(best).card.training.selection == (
        "weights after the last epoch; the learning rate followed the loss on the test split itself, "
        "so its score is too optimistic"
    )
    with pytest.raises(UsageError, match="the learning rate followed the loss on the test split"):
        publish(best)
    held_out = train(config("held", **plateau, holdout=6)).best
    assert load_checkpoint(held_out).card.training.selection == "weights after the last epoch; nothing was selected"


def test_the_zoo_accepts_only_finished_trainings_and_takes_all_of_their_files(
    config: NewConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    monkeypatch.setattr("rtk.tools.add_to_zoo.zoo_file", lambda name, suffix: zoo / f"{name}{suffix}")
    trained = train(config("run", epochs=1))
    with pytest.raises(UsageError, match=r"last\.pt: not a finished training's best\.pt$"):
        publish(trained.run_dir / "last.pt")
    with monkeypatch.context() as patched, pytest.raises(OutputError):
        patched.setattr("rtk.tools.add_to_zoo.export_graph", _full)
        publish(trained.best)
    assert not any(zoo.iterdir())
    publish(trained.best)
    assert sorted(path.suffix for path in zoo.iterdir()) == [".json", ".onnx", ".pt"]


def _full(*arguments: object) -> None:
    raise OutputError("no space left")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out of GPU memory with a batch of 8; try a smaller"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory with a batch of 8; try"),
        (MemoryError(), "out of memory with a batch of 8; try a smaller --batch-size"),
    ],
)
def test_running_out_of_memory_is_one_line(
    config: NewConfig, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def short(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("rtk.train.run.Trainer", short)
    with pytest.raises(TrainingError, match=f"^{words}"):
        train(config("run", epochs=1))


def test_the_command_prints_the_scores_of_the_best_and_the_last_epoch(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"train resnet8v1 --dataset {class_folders} --recipe keras --epochs 4 --batch-size 8 --compile off"
    monkeypatch.setattr(sys, "argv", ["rtk", *words.split(), "--augment", "cutout=2", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    hits = [row["test_correct"] for row in rows]
    best, last = hits.index(max(hits)), hits[-1]
    first, second, third, path = capsys.readouterr().out.splitlines()
    assert first.startswith(f"test accuracy {max(hits) / 12:.2%} ({max(hits)} of 12), ")
    assert second == f"epoch {best + 1}, selected on the test split"
    assert third == f"last epoch: test accuracy {last / 12:.2%} ({last} of 12)"
    assert path == str(tmp_path / "run" / "best.pt")
    card = load_checkpoint(tmp_path / "run" / "best.pt").card
    assert card.training.settings["augmentation"]["cutout"] == 2


def test_a_training_by_steps_ends_with_the_last_step_and_resumes_without_a_difference(
    config: NewConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(RECIPES["paper"], steps=8, slow_start=None)
    monkeypatch.setitem(RECIPES, "paper", short)
    options: dict[str, Any] = {"recipe": "paper", "epochs": None}
    whole = train(config("whole", **options))
    assert [row["images"] for row in whole.history] == [24, 24, 16]  # three steps of eight images an epoch
    assert [row["lr"] for row in whole.history] == pytest.approx([0.05, 0.005, 0.0005])  # divided after steps 4 and 6
    with pytest.raises(KeyboardInterrupt):
        logged(Stop().after_epoch(2), train, config("stopped", **options))
    assert_same_weights(whole.best, resume(config("stopped").run_dir).best)
    assert len(resume(whole.run_dir).history) == 3


def test_a_resumed_run_continues_the_plateau_rule(config: NewConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "PLATEAU_PATIENCE", 1)
    monkeypatch.setattr(schedule, "PLATEAU_DELTA", 100.0)  # nothing is ever better than the first epoch
    whole = train(config("whole", plateau=True, epochs=4))
    assert [row["lr"] for row in whole.history] == pytest.approx([0.05, 0.05, 0.0158113883, 0.005])
    with pytest.raises(KeyboardInterrupt):
        logged(Stop().after_epoch(2), train, config("stopped", plateau=True, epochs=4))
    stopped = resume(config("stopped").run_dir)
    assert_same_weights(whole.best, stopped.best)
    assert without_times(whole.history) == without_times(stopped.history)


def test_the_last_epoch_is_always_evaluated(config: NewConfig) -> None:
    history = train(config("run", eval_every=2)).history
    assert ["test_loss" in row for row in history] == [False, True, True]


# Repeating and resuming.


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_weights_bit_by_bit(config: NewConfig, precision: str) -> None:
    first, second = (train(config(name, seed=4, precision=precision)) for name in ("a", "b"))
    for name in ("best.pt", "last.pt"):
        assert_same_weights(first.run_dir / name, second.run_dir / name)
    assert without_times(first.history) == without_times(second.history)


def test_another_seed_gives_other_weights(config: NewConfig) -> None:
    first, second = (load_checkpoint(train(config(str(s), seed=s)).best) for s in (1, 2))
    assert not torch.equal(first.weights["network.head.dense.weight"], second.weights["network.head.dense.weight"])


class Stop:
    """Interrupts a training after the log line of an epoch, or in a step."""

    def after_epoch(self, number: int) -> Callable[[str], None]:
        def listen(line: str) -> None:
            if line.startswith(f"epoch {number:3}/"):
                raise KeyboardInterrupt

        return listen

    def in_step(self, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        original, steps = Trainer._step, 0

        def counted(self: Trainer, *arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == number:
                raise KeyboardInterrupt
            return original(self, *arguments)

        monkeypatch.setattr(Trainer, "_step", counted)


EVERY_AUGMENTATION = (
    "crop=1", "flip=random", "shift=0.1", "rotation=15", "zoom=0.2", "shear=10", "channel-shift=20", "brightness=0.3",
    "erasing=0.5", "cutout=4", "mixup=0.4", "fill=reflect",
)  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": "rtk"},
        {"recipe": "keras"},
        {"recipe": "rtk", "holdout": 6},
        {"recipe": "keras", "holdout": 6},
        {"recipe": "quick", "augment": EVERY_AUGMENTATION, "preprocess": "zca"},
    ],
)
def test_a_run_stopped_after_an_epoch_resumes_without_a_difference(config: NewConfig, changes: dict[str, Any]) -> None:
    settings: dict[str, Any] = {**changes, "lr": 0.01}
    whole = train(config("whole", **settings))
    with pytest.raises(KeyboardInterrupt):
        logged(Stop().after_epoch(1), train, config("stopped", **settings))
    stopped = resume(config("stopped").run_dir)
    for name in ("best.pt", "last.pt"):
        assert_same_weights(whole.run_dir / name, stopped.run_dir / name)
    assert without_times(whole.history) == without_times(stopped.history)
    rows = [json.loads(line) for line in (stopped.run_dir / "history.jsonl").read_text().splitlines()]
    assert without_times(rows) == without_times(whole.history)


def test_a_run_interrupted_within_an_epoch_resumes_after_the_previous_one(
    config: NewConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config("whole"))
    with monkeypatch.context() as patch:
        Stop().in_step(5, patch)  # three steps an epoch
        with pytest.raises(KeyboardInterrupt):
            train(config("stopped"))
    stopped = resume(config("stopped").run_dir)
    assert_same_weights(whole.best, stopped.best)
    assert without_times(whole.history) == without_times(stopped.history)


def test_a_run_resumes_with_its_data_in_another_folder(config: NewConfig, tmp_path: Path) -> None:
    started = replace(config("run"), dataset="fashion-mnist", data_dir=tmp_path / "gone")
    random = np.random.default_rng(0)
    for prefix, count in (("train", 16), ("t10k", 4)):
        for kind, array in (
            ("images-idx3", random.integers(0, 256, (count, 28, 28), dtype=np.uint8)),
            ("labels-idx1", (np.arange(count) % 10).astype(np.uint8)),
        ):
            path = tmp_path / "gone" / "fashion-mnist" / f"{prefix}-{kind}-ubyte.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            path.write_bytes(b"\0\0\x08" + bytes([array.ndim]) + sizes + array.tobytes())
    with pytest.raises(KeyboardInterrupt):
        logged(Stop().after_epoch(2), train, started)
    (tmp_path / "gone").rename(tmp_path / "moved")
    assert len(resume(started.run_dir, given={"data_dir": tmp_path / "moved"}).history) == 3
    assert RunFolder(started.run_dir).read_config().data_dir == tmp_path / "moved"


def test_resuming_a_finished_run_logs_that_it_is_done(config: NewConfig) -> None:
    trained, lines = train(config("run", epochs=1)), []
    again = logged(lines.append, resume, trained.run_dir)
    assert lines == [f"{trained.run_dir}: all 1 epochs are done"]
    assert again == trained


# Rejected input.


def test_a_folder_that_holds_a_run_is_not_overwritten(config: NewConfig) -> None:
    trained = train(config("run", epochs=1))
    before = trained.best.read_bytes()
    with pytest.raises(UsageError) as caught:
        train(config("run", epochs=1))
    assert str(caught.value) == (
        f"{trained.run_dir}: holds a run already; resume it with: rtk train --resume {trained.run_dir}, "
        "or pass another --out"
    )
    assert trained.best.read_bytes() == before


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ArtifactError) as caught:
            resume(folder)
        assert str(caught.value) == (
            f"{folder}: holds no run to resume; expected a folder with config.json; "
            f"start a run: rtk train ARCH --out {folder}"
        )


def test_a_deployed_checkpoint_cannot_be_resumed(config: NewConfig) -> None:
    trained = train(config("run", epochs=1))
    shutil.copy(trained.best, trained.run_dir / "last.pt")
    with pytest.raises(ArtifactError, match=r"last\.pt: holds no training state; expected the last\.pt of a run$"):
        resume(trained.run_dir)


def test_a_run_with_a_damaged_config_cannot_be_resumed(config: NewConfig) -> None:
    trained = train(config("run", epochs=1))
    for content in (b"{", b"\xff\xfe", b"[]"):
        (trained.run_dir / "config.json").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"config\.json: not the config of a run"):
            resume(trained.run_dir)


def test_a_run_cannot_be_resumed_on_other_data(config: NewConfig, class_folders: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(class_folders, tmp_path / "colours"))
    with pytest.raises(KeyboardInterrupt):
        logged(Stop().after_epoch(1), train, config("run", dataset=str(copied)))
    (copied / "train" / "red" / "0.png").unlink()
    with pytest.raises(ArtifactError) as caught:
        resume(config("run").run_dir)
    assert str(caught.value) == (
        f"{copied}: the images have changed since the run began (36 images then, 35 now); restore them, or start a new "
        "run with another --out"
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: [shutil.rmtree(root / split / name) for split in ("train", "test") for name in ("red", "green")],
         "colours: the train split: found 1 class: 'blue'; expected two or more"),
        (lambda root: [path.unlink() for path in (root / "train" / "green").iterdir()],
         "train/green: no images; every class needs at least one, or remove the folder"),
    ],
    ids=["one class", "empty class"],
)  # fmt: skip
def test_the_error_for_an_invalid_data_set_names_the_folder(
    config: NewConfig, class_folders: Path, tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    copied = Path(shutil.copytree(class_folders, tmp_path / "colours"))
    spoil(copied)
    with pytest.raises(DataError) as caught:
        train(config("run", dataset=str(copied)))
    assert str(caught.value).endswith(message)
    assert not (config("run").run_dir / "last.pt").exists()


def test_an_unknown_data_set_creates_no_run_folder(config: NewConfig) -> None:
    with pytest.raises(UnknownNameError, match=r"^data set 'imagenet' is unknown"):
        train(config("run", dataset="imagenet"))
    assert not config("run").run_dir.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": 25}, "--train-images 25: colours has only 24 training images"),
        ({"holdout": 13}, "--holdout 13: expected at most half of the 24 training images"),
        ({"validation_split": 0.04}, "--validation-split 0.04: holds out none of the 24 training images"),
    ],
)
def test_more_images_than_the_data_set_has_is_a_usage_error(
    config: NewConfig, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        train(config("run", **changes))


def test_the_error_names_a_file_in_place_of_the_run_folder(config: NewConfig, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(OutputError, match="run: the folder cannot be created: File exists"):
        train(config("run"))


# Learning.


def test_a_small_network_memorises_sixty_four_images(card: ModelCard, shapes64: Split) -> None:
    small = Split(np.ascontiguousarray(shapes64.images_NHWC[:, ::2, ::2]), shapes64.labels_N)
    chosen = replace(card, input=Input(16, 16, 3), preprocessing=Preprocessing(*small.statistics()))
    model = new_model(chosen, 0, CPU)
    recipe = Recipe("memorise", epochs=60, lr=0.1, batch_size=16, nesterov=True, warmup=0.1, norm_momentum=0.1)
    trainer, losses = Trainer(model, recipe, CPU, small, seed=0), []
    while trainer.epoch < recipe.epochs and (not losses or losses[-1] >= 0.01):
        losses.append(trainer.run_epoch(lambda count: None)["train_loss"])
    assert losses[0] > 1.5
    assert losses[-1] < 0.01


def test_a_split_smaller_than_a_batch_is_trained_on(card: ModelCard, shapes64: Split) -> None:
    """Pruning leaves even fewer images than a batch, so the batch is smaller."""
    recipe = replace(RECIPES["rtk"], epochs=8, batch_size=128)
    trainer = Trainer(build_model(card), recipe, CPU, shapes64.head(20), seed=0)
    rows = [trainer.run_epoch(lambda count: None) for _ in range(8)]
    assert rows[0]["images"] == 20
    assert min(row["images"] for row in rows) < 20  # some were left out
    assert rows[7]["images"] == 20
    assert all(np.isfinite(row["train_loss"]) for row in rows)


def test_progress_counts_every_image_of_every_epoch(card: ModelCard, shapes64: Split) -> None:
    recipe = replace(RECIPES["rtk"], epochs=4, batch_size=24)
    trainer, advanced = Trainer(build_model(card), recipe, CPU, shapes64, seed=0), []
    for _ in range(4):
        trainer.run_epoch(advanced.append)
    assert sum(advanced) == 4 * 64
