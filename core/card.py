"""ModelCard: what a model is. It travels with every artifact as JSON, in the file or beside it.

Nothing here needs torch: a backend that runs a graph reads its card from the graph.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Self

from .errors import ArtifactError

FORMAT = 1
"""The version of the card's JSON; a newer one is refused with a clear message."""
SWITCHES = ("per_pixel", "image_mean", "image_deviation", "whitening")
"""Of preprocessing."""
LARGEST_WHITENED = 4_096
"""Values of an image that is whitened: the matrix has the square of that, 64 MiB."""


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
    """What the model itself does to the uint8 pixels: divide by 255, subtract `mean`, divide by `deviation`.

    What has a default came later; it happens in the order of the fields, what concerns single images before the rest.
    """

    mean: tuple[float, ...]
    """Per channel that the network takes, in units of pixel / 255: a grey image is repeated to as many. With
    `per_pixel` the average of the map that the weights hold."""
    deviation: tuple[float, ...]
    """Per channel, in units of pixel / 255."""
    per_pixel: bool = False
    """True when one mean per pixel is subtracted instead of one per channel."""
    image_mean: bool = False
    """True when each image's own mean, over pixels and channels, is subtracted."""
    image_deviation: bool = False
    """True when each image is divided by its own deviation."""
    whitening: bool = False
    """True when the values of an image are multiplied by a matrix that the weights hold (ZCA)."""
    resize: tuple[int, int] | None = None
    """Height and width that images are scaled to at last, bilinearly."""

    @property
    def channels(self) -> int:
        """Channels that the network takes."""
        return len(self.mean)

    @property
    def is_plain(self) -> bool:
        """Whether a mean and a deviation for each channel are all of it."""
        return self == Preprocessing(self.mean, self.deviation)

    def to_text(self) -> str:
        """In words, in the order in which it happens."""
        steps = ["/ 255"]
        if self.image_mean:
            steps.append("minus the image's own mean")
        if self.image_deviation:
            steps.append("/ the image's own deviation")
        if any(self.mean):
            steps.append(f"minus {_numbers(self.mean)}{' on average, pixel by pixel' if self.per_pixel else ''}")
        if set(self.deviation) != {1.0}:
            steps.append(f"/ {_numbers(self.deviation)}")
        if self.whitening:
            steps.append("whitened (ZCA)")
        if self.resize:
            steps.append(f"scaled to {self.resize[0]} x {self.resize[1]}")
        return ", ".join(steps)


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


FLATTERED = "which flatters its score"
"""Said of a training that looked at the test split."""


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
    selected_on: str = ""
    """The split whose right answers chose among the epochs: holdout or test; empty where nothing was chosen."""

    @property
    def flattered(self) -> bool:
        """Whether the score is of images that had a say in the training."""
        return FLATTERED in self.selection


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
            "preprocessing": f"in the model: {self.preprocessing.to_text()}",
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
                    "preprocessing": _preprocessing(fields["preprocessing"]),
                    "score": Score(**fields["score"]) if fields.get("score") else None,
                    "training": Training(**fields["training"]) if fields.get("training") else None,
                }
            )
        except (TypeError, KeyError) as error:
            raise ArtifactError(f"{source}: its card is incomplete ({error})") from error
        if not _holds_together(card) or not isinstance(fields["classes"], list):
            raise ArtifactError(f"{source}: its card contradicts itself: sizes, classes and preprocessing do not fit")
        return card


def _preprocessing(fields: dict[str, Any]) -> Preprocessing:
    resize = fields.get("resize")
    switches = {name: bool(fields[name]) for name in SWITCHES if name in fields}
    lists = {"mean": tuple(fields["mean"]), "deviation": tuple(fields["deviation"])}
    return Preprocessing(**{**fields, **switches, **lists, "resize": tuple(resize) if resize else None})


def _holds_together(card: ModelCard) -> bool:
    """Whether the values are of their types, and there is a mean and a deviation for every channel."""
    texts = (card.name, card.arch, card.dataset, card.precision, card.checkpoint_sha256, *card.classes)
    numbers = (*card.preprocessing.mean, *card.preprocessing.deviation)
    channels, resize = card.preprocessing.channels, card.preprocessing.resize
    return (
        len(card.classes) > 0
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(size, int) and size > 0 for size in card.input.shape)
        and all(isinstance(number, int | float) for number in numbers)
        and card.input.channels in (1, channels)
        and 0 < channels == len(card.preprocessing.deviation)
        and (not card.preprocessing.whitening or math.prod(card.input.shape) <= LARGEST_WHITENED)
        and (resize is None or (len(resize) == 2 and all(isinstance(size, int) and size > 0 for size in resize)))
        and all(deviation > 0 for deviation in card.preprocessing.deviation)
    )


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"
