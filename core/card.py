"""ModelCard: what a model is. It travels with every artifact as JSON, in the file or beside it.

This module needs no torch: a backend that runs a graph reads the card from the graph.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Self, get_args

from .card_records import OPTIMISTIC, DataRecord, Score, TemperatureFit, Training
from .data.options import ANTIALIAS, CROP_SHARE, RESIZE_FILTER, Fit
from .errors import ArtifactError
from .json_text import json_text
from .records import restored
from .text import outline

__all__ = [
    "OPTIMISTIC",
    "DataRecord",
    "Input",
    "ModelCard",
    "Preprocessing",
    "Resizing",
    "Score",
    "TemperatureFit",
    "Training",
    "engine_card",
]

FORMAT = 1
"""Version of the card's JSON; any other version is refused with a clear message."""
MAX_WHITENED_VALUES = 4_096
"""Values in an image that can be whitened: the matrix has the square of that, 64 MiB."""
SHOWN_CLASSES = 20
"""Classes named in the text for people; the JSON has all."""
PARITY, GRAPH_PARITY = "parity", "graph_parity"
"""Keys of the notes that the parity gate writes: on this very artifact, and on the graph that an engine was built from.
"""
IMPORTED = "imported_graph"
"""Key of the note on a graph of another program, in the card of its import and of all that is derived from it."""
MEASURED = "measured_sha256"
"""Key in such a note: the SHA-256 of the graph without its card, or of the engine's plan, that the gate measured."""


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
    """What the model itself does to uint8 pixels: divide by 255, subtract `mean`, divide by `deviation`.

    The fields with a default are optional steps that were added later. The steps run in the order of `to_text`: first
    the steps that use only the image itself.
    """

    mean: tuple[float, ...]
    """One value for each channel that the network takes, in units of pixel / 255; a grey image is repeated to that
    many channels. With `per_pixel`: the average of the mean image, which is among the weights."""
    deviation: tuple[float, ...]
    """One value for each channel, in units of pixel / 255."""
    per_pixel: bool = False
    """True: subtract one mean for each pixel instead of one for each channel."""
    image_mean: bool = False
    """True: subtract each image's own mean over pixels and channels."""
    image_deviation: bool = False
    """True: divide each image by its own standard deviation."""
    whitening: bool = False
    """True: multiply the values of an image by a matrix that is among the weights (ZCA)."""
    resize: tuple[int, int] | None = None
    """Height and width to which images are scaled as the last step, bilinearly and without antialiasing."""

    @property
    def channels(self) -> int:
        """Number of channels that the network takes."""
        return len(self.mean)

    @property
    def is_plain(self) -> bool:
        """True when the only steps are one mean and one deviation for each channel."""
        return self == Preprocessing(self.mean, self.deviation)

    def to_text(self) -> str:
        """The steps in words, in the order in which they run."""
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
            steps.append(f"scaled to {self.resize[0]} x {self.resize[1]} (bilinear, not antialiased)")
        return ", ".join(steps)


@dataclass(frozen=True)
class Resizing:
    """How an image of another size becomes the input, in training and at test time alike; `ModelCard.fit` is the rest.

    rtk has one rule, so a card with other values is refused. The card states it for programs that prepare the images
    themselves, such as clients of Triton.
    """

    filter: str = RESIZE_FILTER
    """The interpolation."""
    antialias: bool = ANTIALIAS
    """True: an image that becomes smaller is averaged over all of its pixels, as Pillow does."""
    crop_share: float = CROP_SHARE
    """The share of an image that the crop keeps along its shorter side; 1: no margin is cut off."""

    def to_text(self, fit: str) -> str:
        """The rule in words, for images that `fit` crops, letterboxes or stretches."""
        words = {
            "crop": f"the centre in the input's proportions, {self.crop_share:.0%} of the shorter side",
            "letterbox": "the whole image, with black bars",
            "stretch": "both sides",
        }
        return f"{fit}: {words.get(fit, fit)}, scaled {self.filter}ly{', antialiased' if self.antialias else ''}"


@dataclass(frozen=True)
class ModelCard:
    """Everything that is needed to use a model and to judge it."""

    name: str
    arch: str
    dataset: str
    classes: tuple[str, ...]
    input: Input
    preprocessing: Preprocessing
    precision: str = "fp32"
    """Precision of this artifact's arithmetic."""
    score: Score | None = None
    training: Training | None = None
    fit: str = "crop"
    """How images of other proportions become the input: crop, letterbox or stretch."""
    resizing: Resizing = field(default_factory=Resizing)
    """How images of other sizes become the input, besides `fit`."""
    data: DataRecord | None = None
    """The user's own data; None for a data set with a name."""
    temperature: float = 1.0
    """The logits are divided by it before the softmax. Predictions do not depend on it, only their probabilities."""
    temperature_fit: TemperatureFit | None = None
    """What the temperature was fitted on; None: it was not."""
    checkpoint_sha256: str = ""
    """SHA-256 of the checkpoint that this artifact comes from; of an imported graph, and of what comes from it, that of
    the imported graph without its card. Inside the checkpoint itself it is empty, until a fitted
    temperature changes the file: then it is that of the file before, by which exports still find their checkpoint."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Results of making this artifact, by topic: checks passed, library versions."""

    @property
    def from_graph(self) -> bool:
        """True if there is no checkpoint: the model was imported as a graph, which is its own reference."""
        return IMPORTED in self.notes

    @property
    def for_cpus_only(self) -> bool:
        """True for an int8 graph with activations in uint8, which is made for CPUs: TensorRT takes int8 only."""
        made = self.notes.get("export")
        return self.precision == "int8" and isinstance(made, dict) and made.get("flavor") in ("cpu", "openvino")

    @property
    def weight_bits(self) -> int:
        """Bits of the weights of an int8 graph; 8 if its card does not say."""
        made = self.notes.get("export")
        bits = made.get("weight_bits") if isinstance(made, dict) else None
        return bits if isinstance(bits, int) else 8

    @property
    def image_fit(self) -> Fit:
        """`fit`, if this rtk knows it; else crop."""
        return next((fit for fit in get_args(Fit) if fit == self.fit), "crop")

    def differences_from(self, other: "ModelCard") -> tuple[str, ...]:
        """What differs from another card of what gives pixels and logits their meaning.

        The temperature is not part of it: it changes no logit and no answer, and an int8 graph may have its own.
        """
        names = ("classes", "input", "preprocessing", "fit")
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))

    def own_accuracy(self, file_sha256: str) -> str:
        """The accuracy that the parity gate measured on this very graph or engine, in words; empty if it did not.

        `file_sha256`: the SHA-256 of the graph without its card, or of the engine's plan, as they are now.
        """
        note = self.notes.get(PARITY)
        if not isinstance(note, dict) or not file_sha256 or note.get(MEASURED) != file_sha256:
            return ""
        right, images = note.get("right"), note.get("images")
        if not isinstance(right, int) or not isinstance(images, int) or images < 1:
            return ""
        return (
            f"{right / images:.2%} ({right:,} of {images:,} images of {note.get('dataset')}), on {note.get('ran_on')}"
        )

    def to_json(self, *, indent: int | None = None) -> str:
        """The card as JSON text."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        return json_text(content, read_back=True, indent=indent, ensure_ascii=False)

    def to_text(self, *, is_checkpoint: bool = False, file_sha256: str = "") -> str:
        """The card as lines for people, as wide as the terminal.

        `is_checkpoint`: it is the card of the checkpoint itself; the score in any other card is that of its checkpoint.
        `file_sha256`: what the note of the parity gate calls a graph or an engine; see `own_accuracy`.
        """
        size, is_derived = self.input, bool(self.checkpoint_sha256) and not is_checkpoint
        facts: dict[str, object] = {
            "model": self.name,
            "architecture": self.arch,
            "precision": self.precision,
            "input": f"uint8 [N, {size.height}, {size.width}, {size.channels}]",
            "other sizes": self.resizing.to_text(self.fit),
            "preprocessing": f"in the model: {self.preprocessing.to_text()}",
            "classes": ", ".join(self.classes[:SHOWN_CLASSES]),
            "data set": self.dataset or "unknown",
        }
        if self.data:
            counts = ", ".join(f"{count:,} {split}" for split, count in self.data.images.items())
            facts["data set"] = f"{self.dataset}: {counts} images ({self.data.layout}), {self.data.path}"
        if len(self.classes) > SHOWN_CLASSES:
            facts["classes"] = f"{facts['classes']}, and {len(self.classes) - SHOWN_CLASSES:,} more"
        if self.score:
            score = self.score
            counts = f"{score.correct:,} of {score.total:,} images of the {score.split} split"
            text = f"{score.accuracy:.2%} ({counts}), loss {score.loss:.4f}"
            facts["accuracy"] = f"of its checkpoint: {text}" if is_derived else text
            if score.measured_on:
                facts["measured on"] = score.measured_on
        if is_derived:
            facts["own accuracy"] = self.own_accuracy(file_sha256) or "not measured on this file"
        if self.temperature != 1 or self.temperature_fit:
            fit = self.temperature_fit
            facts["temperature"] = f"{self.temperature:.4g}" + (f", fitted on {fit.to_text()}" if fit else "")
        if self.training:
            training = self.training
            facts["recipe"] = f"{training.recipe}, {training.epochs} epochs, seed {training.seed}"
            if training.start:
                facts["started from"] = training.start
            facts["weights"] = training.selection
            facts["trained"] = (
                f"{training.train_s / 60:,.1f} minutes on {training.machine}{training.computed_on}, "
                f"commit {training.commit}"
            )
        if self.checkpoint_sha256:
            before = " before its temperature was fitted" if is_checkpoint and self.temperature_fit else ""
            facts["imported" if self.from_graph else "checkpoint"] = f"sha256{before} {self.checkpoint_sha256}"
        notes = {_label(name, note): note for name, note in self.notes.items()}
        return outline(facts | notes)

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Self:
        """Read a card. `source` names the file in errors. Raises ArtifactError when the text is not a card of rtk."""
        try:
            fields = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ArtifactError(f"{source}: its card is not JSON ({error})") from error
        if not isinstance(fields, dict) or "format" not in fields:
            raise ArtifactError(f"{source}: its card was not written by rtk")
        if fields.pop("format") != FORMAT:
            raise ArtifactError(f"{source}: its card has another format than {FORMAT}; use the rtk that wrote it")
        try:
            card: Self = restored(cls, fields, strict=True)
        except TypeError as error:
            raise ArtifactError(f"{source}: its card is not valid: {error}") from error
        if not (0 < card.temperature < math.inf):
            raise ArtifactError(
                f"{source}: its card has the temperature {card.temperature:g}; expected a finite number above 0"
            )
        if card.resizing != Resizing():
            raise ArtifactError(
                f"{source}: its card resizes images in another way ({card.resizing.to_text(card.fit)}) than this rtk "
                f"({Resizing().to_text(card.fit)}); use the rtk that wrote it"
            )
        if not _is_consistent(card):
            raise ArtifactError(f"{source}: its card contradicts itself: sizes, classes and preprocessing do not fit")
        return card


def engine_card(graph_card: ModelCard) -> ModelCard:
    """Return the card of an engine that is built from a graph: what was measured on the graph stays the graph's."""
    notes = {GRAPH_PARITY if name == PARITY else name: note for name, note in graph_card.notes.items()}
    return dataclasses.replace(graph_card, notes=notes)


def _is_consistent(card: ModelCard) -> bool:
    """True when sizes are positive, counts fit, and there is one mean and one deviation for each channel."""
    preprocessing, score = card.preprocessing, card.score
    return (
        len(card.classes) > 0
        and all(size > 0 for size in (*card.input.shape, *(preprocessing.resize or ())))
        and card.input.channels in (1, preprocessing.channels)
        and 0 < preprocessing.channels == len(preprocessing.deviation)
        and all(deviation > 0 for deviation in preprocessing.deviation)
        and (preprocessing.resize is None or len(preprocessing.resize) == 2)
        and (not preprocessing.whitening or math.prod(card.input.shape) <= MAX_WHITENED_VALUES)
        and (score is None or 0 <= score.correct <= score.total > 0)
    )


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"


def _label(name: str, note: object) -> str:
    """How people read the name of a note: `training` holds a command line in the cards of the zoo."""
    return "command" if name == "training" and str(note).startswith("rtk ") else name
