"""The training loop: `train` runs a config, `resume` goes on where a run stopped."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.card import Input, ModelCard, Score, Training
from ..core.checkpoint import load_checkpoint, save_checkpoint
from ..core.datasets import Dataset, Split, open_dataset
from ..core.errors import ArtifactError, DataError, UsageError
from ..core.machine import this_machine
from ..core.models.blocks import recompute_activations
from ..core.models.model import build_model
from ..core.progress import progress_bar
from .config import TrainConfig
from .device import be_deterministic, choose_arithmetic, compiled
from .evaluate import evaluate
from .recipes import Recipe
from .run_folder import RunFolder
from .statistics import learn_maps, preprocessing_of
from .trainer import Trainer, new_model, resident
from .weights import freeze_backbone, load_weights

Say = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """What a training leaves."""

    run_dir: Path
    best: Path
    card: ModelCard
    history: list[dict[str, Any]]


def train(config: TrainConfig, *, say: Say = print) -> Trained:
    """Train from fresh weights into config.run_dir. `say` gets a line when there is news.

    Raises UsageError when the folder already holds a run, DataError, BackendError, TrainingError, OutputError.
    """
    dataset = open_dataset(config.dataset, data_dir=config.data_dir)
    return _run(config, dataset, RunFolder.create(config), training=None, say=say)


def resume(run_dir: Path, *, data_dir: Path | None = None, say: Say = print) -> Trained:
    """Go on with a run that was stopped, from the end of its last whole epoch. Raises ArtifactError and as train.

    `data_dir`: where the data lie now; None means where they lay when the run started.
    """
    folder = RunFolder(run_dir)
    config = folder.read_config()
    training = load_checkpoint(folder.last).training
    if training is None:
        raise ArtifactError(f"{folder.last}: holds no training state; expected the last.pt of a run")
    if training["epoch"] >= training.get("epochs", config.values.epochs):
        say(f"{run_dir}: all {training['epoch']} epochs are done")
        return Trained(run_dir, folder.best, load_checkpoint(folder.best).card, training["history"])
    dataset = open_dataset(config.dataset, data_dir=data_dir or config.data_dir)
    return _run(config, dataset, folder, training=training, say=say)


def _run(
    config: TrainConfig, dataset: Dataset, folder: RunFolder, *, training: dict[str, Any] | None, say: Say
) -> Trained:
    arithmetic = choose_arithmetic(config.device, config.precision)
    be_deterministic(arithmetic, everywhere=config.deterministic)
    train_split, holdout, test = _splits(config, dataset)
    recipe, judge = config.values.for_images(len(train_split)), config.judge
    card = _new_card(config, dataset, train_split)
    model = new_model(card, config.seed, arithmetic)
    start = training.get("start", "") if training else ""
    if training is None:  # a training that goes on has them in its state
        learn_maps(model.normalise, card.preprocessing, train_split)
        if config.weights is not None:
            start = load_weights(model.network, config.arch, config.weights, data_dir=config.data_dir)
            say(f"weights of {start}")
    if config.freeze:
        freeze_backbone(model.network)
    trainer = Trainer(model, recipe, arithmetic, train_split, seed=config.seed)
    if config.checkpoint_activations:
        recompute_activations(model.network)
        compilation = "not compiled (activations are checkpointed)"
    else:
        compilation = compiled(model.network, arithmetic, config.compile)
    if training is not None:
        trainer.load_state(training)
    say(
        f"{card.name}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(train_split):,} images, "
        f"epochs {trainer.epoch + 1} to {recipe.epochs}, {arithmetic.device}, {arithmetic.precision}, {compilation}"
    )

    shadow = build_model(card).to(arithmetic.device)  # evaluates the averaged weights while the model trains on
    on_device = {name: resident(split, arithmetic.device) for name, split in (("holdout", holdout), ("test", test))}
    history: list[dict[str, Any]] = training["history"] if training else []
    trainer.history = history
    best = training["best"] if training else None
    origins = training["origins"] if training else {"machine": [], "commit": []}
    for name, value in (("machine", this_machine().summary), ("commit", this_machine().commit)):
        origins[name] = list(dict.fromkeys([*origins[name], value]))
    elapsed_s = training["train_s"] if training else 0.0

    with progress_bar("training", recipe.epochs * len(train_split), unit="images") as advance:
        advance(trainer.epoch * len(train_split))
        while trainer.epoch < recipe.epochs:
            started_at = time.perf_counter()
            row = trainer.run_epoch(advance)
            is_last = trainer.epoch == recipe.epochs
            scores: dict[str, Score] = {}
            if is_last or trainer.epoch % config.eval_every == 0:
                shadow.load_state_dict(trainer.average.current())
                for name, (images_NHWC, labels_N) in on_device.items():
                    if len(labels_N):
                        scores[name] = evaluate(shadow, images_NHWC, labels_N, split=name)
                        row |= {f"{name}_correct": scores[name].correct, f"{name}_total": scores[name].total}
                        row |= {f"{name}_accuracy": scores[name].accuracy, f"{name}_loss": scores[name].loss}
            epoch_s = time.perf_counter() - started_at
            elapsed_s += epoch_s
            history.append({**row, "epoch_s": round(epoch_s, 3)})
            weights = {name: value.cpu().clone() for name, value in trainer.average.current().items()}
            provenance = _provenance(config, trainer, elapsed_s, origins, start)
            card = replace(card, score=scores.get("test"), training=provenance)
            if scores and (best is None or not judge or scores[judge].correct > best):
                best = scores[judge].correct if judge else -1
                chosen = replace(provenance, selection=_selection(recipe, judge, len(holdout)), selected_on=judge)
                save_checkpoint(folder.best, replace(card, training=chosen), weights)
            state = {"history": history, "best": best, "train_s": elapsed_s, "origins": origins, "start": start}
            state["epochs"] = recipe.epochs
            save_checkpoint(folder.last, card, weights, training={**trainer.state(), **state})
            folder.write_history(history)
            say(_line(history[-1], recipe))
    folder.write_curves(history, title=card.name)
    return Trained(folder.path, folder.best, load_checkpoint(folder.best).card, history)


def _splits(config: TrainConfig, dataset: Dataset) -> tuple[Split, Split, Split]:
    """Training images, held-out images (perhaps none), test images."""
    train_split = dataset.split("train")
    order = np.random.default_rng((config.seed, 0)).permutation(len(train_split))
    if config.train_images is not None:
        if config.train_images > len(train_split):
            raise UsageError(f"--train-images {config.train_images}: {dataset.name} has {len(train_split):,}")
        order = order[: config.train_images]
    held_out = config.held_out(len(order))
    if config.holds_out and not 0 < held_out <= len(order) // 2:
        raise UsageError(
            f"--holdout {config.holdout}: more than half of the {len(order):,} training images"
            if config.holdout
            else f"--validation-split {config.validation_split:g}: not one of the {len(order):,} training images"
        )
    held, kept = order[:held_out], np.sort(order[held_out:])
    test = dataset.split("test")
    if test.images_NHWC.shape[1:] != train_split.images_NHWC.shape[1:]:
        raise DataError(
            f"{dataset.name}: training images are {train_split.images_NHWC.shape[1:]}, "
            f"test images {test.images_NHWC.shape[1:]}"
        )
    return train_split.take(kept), train_split.take(held), test


def _new_card(config: TrainConfig, dataset: Dataset, split: Split) -> ModelCard:
    return ModelCard(
        name=f"{config.arch}-{dataset.name}",
        arch=config.arch,
        dataset=dataset.name,
        classes=dataset.classes,
        input=Input(*split.images_NHWC.shape[1:]),
        preprocessing=preprocessing_of(config.values, split),
    )


def _provenance(
    config: TrainConfig, trainer: Trainer, train_s: float, origins: dict[str, list[str]], start: str
) -> Training:
    """Where the weights after the last epoch that was trained come from."""
    arithmetic = trainer.arithmetic
    return Training(
        recipe=config.recipe,
        epochs=trainer.epoch,
        seed=config.seed,
        train_s=round(train_s, 1),
        selection=_selection(trainer.recipe, "", 0),
        machine="; ".join(origins["machine"]),
        commit=", ".join(origins["commit"]),
        settings={**asdict(trainer.recipe), "precision": arithmetic.precision, "device": str(arithmetic.device)},
        start=start,
    )


def _selection(recipe: Recipe, judge: str, held_out: int) -> str:
    averaged = "moving average of the weights" if recipe.average else "weights"
    match judge:
        case "holdout":
            return (
                f"{averaged} of the epoch with most right answers on {held_out} images held out of the training split"
            )
        case "test":
            return f"{averaged} of the epoch with most right answers on the test split itself, which flatters its score"
    return f"{averaged} after the last epoch; nothing was selected"


def _line(row: dict[str, Any], recipe: Recipe) -> str:
    text = f"epoch {row['epoch']:3}/{recipe.epochs}  loss {row['train_loss']:.4f}  train {row['train_accuracy']:7.2%}"
    for name in ("holdout", "test"):
        if f"{name}_accuracy" in row:
            text += f"  {name} {row[f'{name}_accuracy']:7.2%} (loss {row[f'{name}_loss']:.4f})"
    return text + f"  {row['images'] / row['epoch_s']:,.0f} images/s"
