"""Published accuracies, and the accuracies of rtk's own trainings next to them.

Every finished training is kept as its card, bench/results/training/NAME.json; the models of the zoo count too.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.card import ModelCard, Training
from ..core.zoo import zoo_card, zoo_names

RECORDS = Path(__file__).parent.parent / "bench" / "results" / "training"


@dataclass(frozen=True)
class Row:
    """One network on one data set, with the test accuracies that others published, in per cent."""

    arch: str
    dataset: str
    example: float | None = None
    """The Keras CIFAR-10 example, 200 epochs; on Fashion-MNIST the README of the data set."""
    paper: float | None = None
    """arXiv 1512.03385 and 1603.05027."""
    reimplemented: float | None = None
    """The best known re-implementation; from depth 44 on, probably with bottlenecks and more parameters."""
    erasing: float | None = None
    """With random erasing and 300 epochs, arXiv 1708.04896; from depth 44 on, the same remark."""
    example_epoch_s: int | None = None
    """Seconds of an epoch of the Keras CIFAR-10 example on a GTX 1080 Ti, from the comments in cifar10_resnet.py."""

    @property
    def name(self) -> str:
        """The model's name, ARCH-DATASET."""
        return f"{self.arch}-{self.dataset}"

    @property
    def published(self) -> dict[str, str]:
        """The published accuracies by column, empty where there is none."""
        figures = {
            "Keras example or README": self.example,
            "paper": self.paper,
            "re-implemented": self.reimplemented,
            "random erasing": self.erasing,
        }
        return {column: "" if value is None else f"{value:.2f}" for column, value in figures.items()}


ROWS = (
    Row("resnet20v1", "cifar10", 92.16, 91.25, 92.79, 93.27, example_epoch_s=35),
    Row("resnet32v1", "cifar10", 92.46, 92.49, 93.59, 94.34, example_epoch_s=50),
    Row("resnet44v1", "cifar10", 92.50, 92.83, 94.47, 94.87, example_epoch_s=70),
    Row("resnet56v1", "cifar10", 92.71, 93.03, 94.69, 95.11, example_epoch_s=90),
    Row("resnet110v1", "cifar10", 92.65, 93.39, 94.90, 95.39, example_epoch_s=165),
    Row("resnet164v1", "cifar10", paper=94.07),
    Row("resnet20v2", "cifar10"),
    Row("resnet56v2", "cifar10", 93.01, example_epoch_s=100),
    Row("resnet110v2", "cifar10", 93.15, 93.63, example_epoch_s=180),
    Row("resnet164v2", "cifar10", paper=94.54),
    Row("resnet1001v2", "cifar10", paper=95.08),
    Row("resnet20v1", "fashion-mnist", reimplemented=95.61, erasing=95.98),
    Row("resnet18", "fashion-mnist", 94.9),
)

Groups = Mapping[tuple[str, str], Sequence[ModelCard]]
"""Cards by how they were trained and on which machine."""


def kept_cards(folder: Path = RECORDS) -> list[ModelCard]:
    """Return the cards of the finished trainings and of the zoo."""
    kept = [
        ModelCard.from_json(path.read_text(encoding="utf-8"), source=str(path))
        for path in sorted(folder.glob("*.json"))
    ]
    return kept + [card for name in zoo_names() if (card := zoo_card(name)) not in kept]


def trained_rows(cards: Sequence[ModelCard], rows: Sequence[Row] = ROWS) -> list[dict[str, str]]:
    """Return the table of what was trained: for every row, a line for each recipe, length and machine."""
    return [line for row in rows for line in _lines_of(row, _groups(row, cards))]


def untrained_rows(cards: Sequence[ModelCard], rows: Sequence[Row] = ROWS) -> list[Row]:
    """Return the rows that none of the cards belongs to."""
    return [row for row in rows if not _groups(row, cards)]


def _groups(row: Row, cards: Sequence[ModelCard]) -> Groups:
    groups: dict[tuple[str, str], list[ModelCard]] = {}
    for card in cards:
        if (card.arch, card.dataset) == (row.arch, row.dataset) and card.training and card.score:
            groups.setdefault((_recipe_and_length(card.training), card.training.machine), []).append(card)
    return groups


def _lines_of(row: Row, groups: Groups) -> Iterator[dict[str, str]]:
    for (recipe, machine), group in sorted(groups.items()):
        accuracies = [100 * card.score.accuracy for card in group if card.score]
        epoch_s = [card.training.train_s / card.training.epochs for card in group if card.training]
        spread = f" ±{statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        yield {
            "network": row.arch,
            "data set": row.dataset,
            "rtk": f"{statistics.mean(accuracies):.2f}{spread}",
            "seeds": str(len(group)),
            "recipe, length": recipe,
            "seconds per epoch": f"{statistics.mean(epoch_s):.1f}",
            "machine": machine,
            **row.published,
        }


def _recipe_and_length(training: Training) -> str:
    """Return recipe and length and, where an epoch was selected, the split that selected it."""
    if not training.selected_on:
        return f"`{training.recipe}`, {training.epochs} epochs"
    return f"`{training.recipe}`, the best of {training.settings['epochs']} epochs on the {training.selected_on} split"
