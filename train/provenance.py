"""What the cards of a run's checkpoints record about its data, model and training."""

from dataclasses import asdict

from ..core.card import OPTIMISTIC, Input, ModelCard, Preprocessing, Training
from ..core.data.datasets import Dataset, Split
from .config import TrainConfig
from .recipes import Recipe
from .run_folder import Record
from .trainer import Trainer


def new_card(config: TrainConfig, dataset: Dataset, split: Split, preprocessing: Preprocessing) -> ModelCard:
    """The card of a model before it is trained on this split."""
    return ModelCard(
        name=f"{config.arch}-{dataset.name}",
        arch=config.arch,
        dataset=dataset.name,
        classes=dataset.classes,
        input=Input(*split.images_NHWC.shape[1:]),
        preprocessing=preprocessing,
    )


def provenance(config: TrainConfig, trainer: Trainer, record: Record, *, held_out: int) -> Training:
    """The card's record of the training so far; `held_out`: the number of held-out images."""
    arithmetic = trainer.arithmetic
    return Training(
        recipe=config.recipe,
        epochs=trainer.epoch,
        seed=config.seed,
        train_s=round(record.train_s + record.elapsed_s(), 1),
        selection=selection(trainer.recipe, "", held_out),
        machine="; ".join(record.origins["machine"]),
        commit=", ".join(record.origins["commit"]),
        settings={**asdict(trainer.recipe), "precision": arithmetic.precision, "device": str(arithmetic.device)},
        start=record.start,
    )


def selection(recipe: Recipe, selection_split: str, held_out: int) -> str:
    """A description of which weights are kept; `selection_split`: the split that chose the epoch, or empty."""
    averaged = "moving average of the weights" if recipe.average else "weights"
    match selection_split:
        case "holdout":
            return f"{averaged} of the epoch with the highest accuracy on {held_out} held-out training images"
        case "test":
            return f"{averaged} of the epoch with the highest accuracy on the test split itself, {OPTIMISTIC}"
    if recipe.schedule == "plateau" and not held_out:
        followed = f"the learning rate followed the loss on the test split itself, {OPTIMISTIC}"
        return f"{averaged} after the last epoch; {followed}"
    return f"{averaged} after the last epoch; nothing was selected"
