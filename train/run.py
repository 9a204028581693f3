"""The training loop: `train` runs a config, `resume` goes on where a run stopped."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.artifacts.checkpoint import load_checkpoint, save_checkpoint, save_content
from ..core.card import ModelCard, Score
from ..core.data.datasets import Dataset, open_dataset
from ..core.errors import OutputError, TrainingError
from ..core.files import only_writer
from ..core.models.blocks import recompute_activations
from ..core.models.model import build_model
from ..core.progress import progress_bar
from .config import TrainConfig, with_changes
from .data.splits import splits_of
from .data.statistics import learn_maps
from .device import be_deterministic, choose_arithmetic, compiled
from .distributed.process_group import Processes, joined, take_device
from .distributed.step_sync import Wishes
from .evaluate import evaluate
from .optim.nan_guard import NotFinite
from .provenance import new_card, provenance, selection
from .recipes import Recipe
from .run_folder import Record, RunFolder
from .stop_signals import Stopped, stop_signals
from .trainer import Trainer, new_model, resident
from .weights import freeze_backbone, load_weights

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a training leaves."""

    run_dir: Path
    best: Path
    card: ModelCard
    history: list[dict[str, Any]]


def train(config: TrainConfig) -> Trained:
    """Train from fresh weights into config.run_dir. News is logged, a line for each epoch.

    Raises UsageError when the folder already holds a run, DataError, BackendError, TrainingError, OutputError; Stopped
    where Ctrl-C or SIGTERM ended it, with everything saved.
    """
    dataset = open_dataset(config.dataset, data_dir=config.data_dir)
    folder = RunFolder(config.run_dir)
    with joined() as processes, ExitStack() as stack:
        processes.from_first(lambda: stack.enter_context(only_writer(folder.path)))
        processes.from_first(lambda: folder.begin(config))
        stack.enter_context(_memory_explained(config.resolved_recipe.batch_size))
        return _run(config, dataset, folder, training=None, processes=processes)


def resume(run_dir: Path, *, asked: Mapping[str, Any] | None = None) -> Trained:
    """Go on with a run that was stopped, from where it last saved its state. Raises ArtifactError and as train.

    `asked`: fields of TrainConfig that were given now; UsageError names those that differ from the run's and may not.
    """
    folder = RunFolder(run_dir)
    with joined() as processes, ExitStack() as stack:
        run = processes.from_first(folder.read_config)
        config = with_changes(run_dir, run, asked or {})
        processes.from_first(lambda: stack.enter_context(only_writer(run_dir)))
        training = processes.from_first(folder.read_state)
        if config != run:
            processes.from_first(lambda: folder.write_config(config))
        if training is None or training["epoch"] < training.get("epochs", config.resolved_recipe.epochs):
            dataset = open_dataset(config.dataset, data_dir=config.data_dir)
            stack.enter_context(_memory_explained(config.resolved_recipe.batch_size))
            return _run(config, dataset, folder, training=training, processes=processes)
        if processes.first:
            _log.info(f"{run_dir}: all {training['epoch']} epochs are done")
        return processes.from_first(lambda: _finished(folder, training["history"]))


def _run(
    config: TrainConfig,
    dataset: Dataset,
    folder: RunFolder,
    *,
    training: dict[str, Any] | None,
    processes: Processes,
) -> Trained:
    arithmetic = choose_arithmetic(take_device(config.device), config.precision)
    be_deterministic(arithmetic, everywhere=config.deterministic)
    log = _log.info if processes.first else _nowhere
    record = Record.load(training)
    with processes.one_by_one():
        train_split, holdout, test = splits_of(config, dataset)
    recipe, judge = config.resolved_recipe.for_images(len(train_split)), config.judge
    processes.check((train_split, holdout, test), recipe.batch_size)
    card = new_card(config, dataset, train_split)
    model = new_model(card, config.seed, arithmetic)
    if training is None:  # a training that goes on has them in its state
        learn_maps(model.normalise, card.preprocessing, train_split)
        if config.weights is not None:
            with processes.one_by_one():
                record.start = load_weights(model.network, config.arch, config.weights, data_dir=config.data_dir)
            log(f"weights of {record.start}")
    if config.freeze:
        freeze_backbone(model.network)
    trainer = Trainer(
        model, recipe, arithmetic, train_split, seed=config.seed, skip_nan=config.skip_nan, processes=processes
    )
    trainer.history = record.history
    if config.checkpoint_activations:
        recompute_activations(model.network)
        compilation = "not compiled (activations are checkpointed)"
    else:
        compilation = compiled(model.network, arithmetic, config.compile)
    if training is not None:
        trainer.load_state(training)
    log(
        f"{card.name}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(train_split):,} images, "
        f"epochs {trainer.epoch + 1} to {recipe.epochs}, {arithmetic.device}, {arithmetic.precision}, {compilation}"
        + (f", {processes.count} processes" if processes.count > 1 else "")
    )

    shadow = build_model(card).to(arithmetic.device)  # evaluates the averaged weights while the model trains on
    on_device = {name: resident(split, arithmetic.device) for name, split in (("holdout", holdout), ("test", test))}
    saved_at = time.monotonic()

    def weights() -> dict[str, Tensor]:
        return {name: value.cpu().clone() for name, value in trainer.average.current().items()}

    def save(card: ModelCard) -> None:
        nonlocal saved_at
        state = {**trainer.state(), **record.state(), "epochs": recipe.epochs}
        if processes.first:
            save_checkpoint(folder.last, card, weights(), training=state)
        trainer.heard = replace(trainer.heard, save=False)
        saved_at = time.monotonic()

    def after_step(images: int) -> None:
        advance(images)
        if trainer.heard.save or trainer.heard.stop:
            save(replace(card, score=None, training=provenance(config, trainer, record, held_out=len(holdout))))
        if trainer.heard.stop:
            raise Stopped(processes.largest(wish.number))

    with (
        stop_signals() as wish,
        _explained(folder, recipe, processes),
        progress_bar("training", recipe.epochs * len(train_split), unit="images", shown=processes.first) as advance,
    ):
        trainer.wishes = lambda: Wishes(
            stop=wish.number > 0, save=processes.first and time.monotonic() - saved_at >= 60 * config.save_every
        )
        advance(trainer.epoch * len(train_split) + (trainer.under_way.images_seen if trainer.under_way else 0))
        while trainer.epoch < recipe.epochs:
            record.start_clock()
            row = trainer.run_epoch(after_step)
            is_last = trainer.epoch == recipe.epochs
            scores: dict[str, Score] = {}
            if is_last or trainer.epoch % config.eval_every == 0:
                shadow.load_state_dict(trainer.average.current())
                for name, (images_NHWC, labels_N) in on_device.items():
                    if len(labels_N):
                        scores[name] = evaluate(shadow, images_NHWC, labels_N, split=name, processes=processes)
                        row |= {f"{name}_correct": scores[name].correct, f"{name}_total": scores[name].total}
                        row |= {f"{name}_accuracy": scores[name].accuracy, f"{name}_loss": scores[name].loss}
            record.end_epoch(row)
            training_now = provenance(config, trainer, record, held_out=len(holdout))
            card = replace(card, score=scores.get("test"), training=training_now)
            if scores and (record.best is None or not judge or scores[judge].correct > record.best):
                record.best = scores[judge].correct if judge else -1
                chosen = replace(training_now, selection=selection(recipe, judge, len(holdout)), selected_on=judge)
                if processes.first:
                    save_checkpoint(folder.best, replace(card, training=chosen), weights())
            save(card)
            if processes.first:
                folder.write_history(record.history)
            log(_line(record.history[-1], recipe))
            stopped_by = processes.largest(wish.number)
            if stopped_by:
                raise Stopped(stopped_by)
    return processes.from_first(lambda: _finished(folder, record.history))


def _nowhere(line: str) -> None:
    """What processes other than the first do with their news."""
    del line


def _finished(folder: RunFolder, history: list[dict[str, Any]]) -> Trained:
    """Write what can be made again from the history: a run may have been ended just before."""
    card = load_checkpoint(folder.best).card
    folder.write_history(history)
    folder.write_curves(history, title=card.name)
    return Trained(folder.path, folder.best, card, history)


@contextmanager
def _memory_explained(batch_size: int) -> Iterator[None]:
    """Say what to do about memory that is short, a GPU's or this machine's."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        gpu, host = isinstance(error, torch.OutOfMemoryError), "can't allocate memory" in str(error)
        if not (gpu or host or isinstance(error, MemoryError)):
            raise
        raise TrainingError(
            f"out of {'GPU ' if gpu else ''}memory with a batch of {batch_size}; try a smaller --batch-size, "
            "--checkpoint-activations, or smaller images"
        ) from error


@contextmanager
def _explained(folder: RunFolder, recipe: Recipe, processes: Processes) -> Iterator[None]:
    """Say of what ends a run what is left and how to go on; of a step that was not finite, keep what caused it."""
    try:
        yield
    except NotFinite as error:
        if processes.first:
            save_content(folder.broken, error.evidence)
        raise TrainingError(
            f"{error}; images, labels and weights are kept in {folder.broken} (torch.load); "
            f"try a lower --lr than {recipe.lr:g}, or go on with: rtk train --resume {folder.path} --skip-nan"
        ) from error
    except OutputError as error:
        kept = "what was saved last is whole; " if folder.last.exists() else ""
        raise OutputError(f"{error}; {kept}make room and go on with: rtk train --resume {folder.path}") from error


def _line(row: dict[str, Any], recipe: Recipe) -> str:
    text = f"epoch {row['epoch']:3}/{recipe.epochs}  loss {row['train_loss']:.4f}  train {row['train_accuracy']:7.2%}"
    for name in ("holdout", "test"):
        if f"{name}_accuracy" in row:
            text += f"  {name} {row[f'{name}_accuracy']:7.2%} (loss {row[f'{name}_loss']:.4f})"
    return text + f"  {row['images'] / row['epoch_s']:,.0f} images/s"
