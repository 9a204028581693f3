"""ModelCard: what a model is. It travels with every artifact, as JSON: in the checkpoint, in the graph, beside the engine.

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

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Self:
        """Read a card. `source` names the file in errors. Raises ArtifactError when it is not a card of rtk's."""
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise ArtifactError(f"{source}: its card is not JSON ({error})") from error
        if not isinstance(fields, dict) or "format" not in fields:
            raise ArtifactError(f"{source}: its card is not one of rtk's")
        if fields.pop("format") != FORMAT:
            raise ArtifactError(f"{source}: its card has another format than {FORMAT}; use the rtk that wrote it")
        try:
            return cls(
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
