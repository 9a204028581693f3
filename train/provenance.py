"""What the cards of a run's checkpoints record about its data, model and training."""

from dataclasses import asdict, replace

import torch

from ..core.card import OPTIMISTIC, Input, ModelCard, Preprocessing, Score, Training
from ..core.data.datasets import Dataset, Split
from ..core.machine import this_machine
from .config import TrainConfig
from .data.splits import RunSplits
from .recipes import Recipe
from .run_folder import Record
from .trainer import Trainer


def new_card(config: TrainConfig, dataset: Dataset, split: Split, preprocessing: Preprocessing) -> ModelCard:
    """The card of a model before it is trained on this split."""
    return ModelCard(
        name=config.model_name,
        arch=config.arch,
        dataset=dataset.name,
        classes=dataset.classes,
        input=Input(*split.image_shape),
        preprocessing=preprocessing,
        fit=dataset.fit,
        data=dataset.record,
    )


def provenance(config: TrainConfig, trainer: Trainer, record: Record, splits: RunSplits) -> Training:
    """The card's record of the training so far."""
    arithmetic = trainer.arithmetic
    training = Training(
        recipe=config.recipe,
        epochs=trainer.epoch,
        seed=config.seed,
        train_s=round(record.train_s + record.elapsed_s(), 1),
        selection=selection(trainer.recipe, "", splits),
        machine="; ".join(record.origins["machine"]),
        commit=", ".join(record.origins["commit"]),
        settings={**asdict(trainer.recipe), "precision": arithmetic.precision, "device": str(arithmetic.device)}
        | ({} if config.patience is None else {"patience": config.patience}),
        start=record.start,
        held_out=len(splits.evaluated["holdout"]) if "holdout" in splits.evaluated else 0,
        trained_images=len(splits.train),
        device=str(arithmetic.device),
        threads=torch.get_num_threads(),
        processes=trainer.processes.count,
    )
    return with_early_stop(training, trainer.epoch) if record.stopped_early else training


def measured_here(score: Score, trainer: Trainer) -> Score:
    """The score with the device, the threads and the machine that it was just measured on."""
    device = str(trainer.arithmetic.device)
    return replace(score, device=device, threads=torch.get_num_threads(), machine=this_machine().summary)


def with_early_stop(training: Training, epoch: int) -> Training:
    """The record of a training that `--patience` ended after this epoch."""
    settings = {**training.settings, "stopped_early": epoch}
    stopped = f"stopped early after epoch {epoch} of {settings['epochs']} (--patience {settings['patience']})"
    return replace(training, selection=f"{training.selection}; {stopped}", settings=settings)


def selection(recipe: Recipe, selection_split: str, splits: RunSplits) -> str:
    """A description of which weights are kept; `selection_split`: the split that chose the epoch, or empty."""
    averaged = "moving average of the weights" if recipe.average else "weights"
    scored = splits.scored
    if selection_split == scored:
        return f"{averaged} of the epoch with the highest accuracy on the {scored} split itself, {OPTIMISTIC}"
    if selection_split:
        images = f"{len(splits.evaluated[selection_split])}"
        chosen_on = (
            f"{images} held-out training images" if selection_split == "holdout" else f"{images} validation images"
        )
        return f"{averaged} of the epoch with the highest accuracy on {chosen_on}"
    if recipe.schedule == "plateau" and not splits.held_out:
        followed = f"the learning rate followed the loss on the {scored} split itself, {OPTIMISTIC}"
        return f"{averaged} after the last epoch; {followed}"
    return f"{averaged} after the last epoch; nothing was selected"
