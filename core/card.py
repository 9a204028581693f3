"""ModelCard: what a model is. It travels with every artifact as JSON, in the file or beside it.

Nothing here needs torch: a backend that runs a graph reads its card from the graph.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Self

from .errors import ArtifactError

FORMAT = 1
"""The version of the card's JSON; a newer one is refused with a clear message."""


@dataclass(frozen=True)
class Input:
    """The images that the model takes: uint8, height x width x channels."""

    height: int
    width: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, self.channels


@dataclass(frozen=True)
class Preprocessing:
    """What the model itself does to the uint8 pixels: divide by 255, subtract `mean`, divide by `deviation`."""

    mean: tuple[float, ...]
    """Per channel, in units of pixel / 255. With `per_pixel` the average of the map that the weights hold."""
    deviation: tuple[float, ...]
    """Per channel, in units of pixel / 255."""
    per_pixel: bool = False
    """True when one mean per pixel is subtracted instead of one per channel."""


@dataclass(frozen=True)
class Score:
    """How the model did on labelled images: hits are counts, so that nothing is rounded."""

    split: str
    correct: int
    total: int
    loss: float
    """Mean cross-entropy in nats."""

    @property
    def accuracy(self) -> float:
        """Share of correct answers, 0 to 1."""
        return self.correct / self.total


@dataclass(frozen=True)
class Training:
    """Where the weights come from."""

    recipe: str
    epochs: int
    seed: int
    train_s: float
    """Seconds of training, evaluation in between included."""
    selection: str
    """Which weights were kept, and what chose them."""
    machine: str
    commit: str
    settings: dict[str, Any] = field(default_factory=dict)
    """The recipe's values as used."""
    start: str = ""
    """The weights that the training began with; empty where they were drawn at random."""


@dataclass(frozen=True)
class ModelCard:
    """Everything that one must know to use a model and to judge it."""

    name: str
    arch: str
    dataset: str
    classes: tuple[str, ...]
    input: Input
    preprocessing: Preprocessing
    precision: str = "fp32"
    """Of this artifact's arithmetic."""
    score: Score | None = None
    training: Training | None = None
    checkpoint_sha256: str = ""
    """Of the checkpoint that this artifact comes from; empty inside the checkpoint itself."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What making this artifact found out, by topic: checks passed, library versions."""

    def to_json(self, *, indent: int | None = None) -> str:
        """The card as JSON text."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=indent, ensure_ascii=False)

    def to_text(self) -> str:
        """The card as lines for people."""
        size = self.input
        lines = {
            "model": self.name,
            "architecture": self.arch,
            "precision": self.precision,
            "input": f"uint8 [N, {size.height}, {size.width}, {size.channels}]",
            "preprocessing": f"in the model: / 255, minus {_numbers(self.preprocessing.mean)}"
            f"{' on average, pixel by pixel' if self.preprocessing.per_pixel else ''}, "
            f"/ {_numbers(self.preprocessing.deviation)}",
            "classes": ", ".join(self.classes),
            "data set": self.dataset,
        }
        if self.score:
            score = self.score
            lines["accuracy"] = (
                f"{score.accuracy:.2%} ({score.correct:,} of {score.total:,} images of the {score.split} split), "
                f"loss {score.loss:.4f}"
            )
        if self.training:
            training = self.training
            lines["recipe"] = f"{training.recipe}, {training.epochs} epochs, seed {training.seed}"
            if training.start:
                lines["started from"] = training.start
            lines["weights"] = training.selection
            lines["trained"] = f"{training.train_s / 60:,.1f} minutes on {training.machine}, commit {training.commit}"
        if self.checkpoint_sha256:
            lines["checkpoint"] = f"sha256 {self.checkpoint_sha256}"
        lines |= {topic: json.dumps(note, ensure_ascii=False) for topic, note in self.notes.items()}
        return "\n".join(f"{name:14}{text}" for name, text in lines.items())

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Self:
        """Read a card. `source` names the file in errors. Raises ArtifactError when it is not a card of rtk's."""
        try:
            fields = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ArtifactError(f"{source}: its card is not JSON ({error})") from error
        if not isinstance(fields, dict) or "format" not in fields:
            raise ArtifactError(f"{source}: its card is not one of rtk's")
        if fields.pop("format") != FORMAT:
            raise ArtifactError(f"{source}: its card has another format than {FORMAT}; use the rtk that wrote it")
        try:
            card = cls(
                **{
                    **fields,
                    "classes": tuple(fields["classes"]),
                    "input": Input(**fields["input"]),
                    "preprocessing": Preprocessing(
                        mean=tuple(fields["preprocessing"]["mean"]),
                        deviation=tuple(fields["preprocessing"]["deviation"]),
                        per_pixel=bool(fields["preprocessing"]["per_pixel"]),
                    ),
                    "score": Score(**fields["score"]) if fields.get("score") else None,
                    "training": Training(**fields["training"]) if fields.get("training") else None,
                }
            )
        except (TypeError, KeyError) as error:
            raise ArtifactError(f"{source}: its card is incomplete ({error})") from error
        if not _holds_together(card) or not isinstance(fields["classes"], list):
            raise ArtifactError(f"{source}: its card contradicts itself: sizes, classes and preprocessing do not fit")
        return card


def _holds_together(card: ModelCard) -> bool:
    """Whether the values are of their types, and there is a mean and a deviation for every channel."""
    texts = (card.name, card.arch, card.dataset, card.precision, card.checkpoint_sha256, *card.classes)
    numbers = (*card.preprocessing.mean, *card.preprocessing.deviation)
    channels = len(card.preprocessing.mean)
    return (
        len(card.classes) > 0
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(size, int) and size > 0 for size in card.input.shape)
        and all(isinstance(number, int | float) for number in numbers)
        and card.input.channels == channels == len(card.preprocessing.deviation)
        and all(deviation > 0 for deviation in card.preprocessing.deviation)
    )


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"
