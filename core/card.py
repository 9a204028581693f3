"""ModelCard: what a model is. It travels with every artifact as JSON, in the file or beside it.

This module needs no torch: a backend that runs a graph reads the card from the graph.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Self, get_args

from .data.options import Fit
from .errors import ArtifactError
from .json_text import json_text
from .records import restored
from .text import outline

FORMAT = 1
"""Version of the card's JSON; any other version is refused with a clear message."""
MAX_WHITENED_VALUES = 4_096
"""Values in an image that can be whitened: the matrix has the square of that, 64 MiB."""
SHOWN_CLASSES = 20
"""Classes named in the text for people; the JSON has all."""
OPTIMISTIC = "so its score is too optimistic"
"""Part of `Training.selection` when the training used the test split."""
OPTIMISTIC_BEFORE = "which flatters its score"
"""The same part in checkpoints of earlier versions."""
PARITY, GRAPH_PARITY = "parity", "graph_parity"
"""Keys of the notes that the parity gate writes: on this very artifact, and on the graph that an engine was built from.
"""
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
    """Height and width to which images are scaled bilinearly as the last step."""

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
            steps.append(f"scaled to {self.resize[0]} x {self.resize[1]}")
        return ", ".join(steps)


@dataclass(frozen=True)
class Score:
    """Result of the model on labelled images; correct answers are counted, so nothing is rounded."""

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
class DataRecord:
    """The user's own data that a model was trained on, so that they are found again."""

    path: str
    """Absolute path of the folder or archive."""
    layout: str
    """In words."""
    images: dict[str, int]
    """Number of images by split, the unreadable ones included."""
    fingerprint: str
    """SHA-256 of the names, classes and sizes of all images, and of the content of some."""
    seed: int = 0
    """The random seed of a test split that was drawn."""
    test_share: float = 0.0
    """The share of each class in a test split that was drawn; 0: it was not drawn."""
    max_unreadable: float = 0.0
    """The largest share of unreadable images that are left out."""
    max_pixels: int = 0
    """The largest images that are read."""


@dataclass(frozen=True)
class Training:
    """Where the weights come from."""

    recipe: str
    epochs: int
    seed: int
    train_s: float
    """Seconds of training, including the evaluations during it."""
    selection: str
    """Which weights were kept, and how they were chosen."""
    machine: str
    commit: str
    settings: dict[str, Any] = field(default_factory=dict)
    """The recipe's values as used."""
    start: str = ""
    """The weights that the training started from; empty when they were random."""
    selected_on: str = ""
    """The split that was used to choose an epoch: holdout or test; empty when no epoch was chosen."""

    @property
    def used_test_split(self) -> bool:
        """True when the training used the images that the score is measured on."""
        return OPTIMISTIC in self.selection or OPTIMISTIC_BEFORE in self.selection


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
    data: DataRecord | None = None
    """The user's own data; None for a data set with a name."""
    checkpoint_sha256: str = ""
    """SHA-256 of the checkpoint that this artifact comes from; empty inside the checkpoint itself."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Results of making this artifact, by topic: checks passed, library versions."""

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
        """What differs from another card of what gives pixels and logits their meaning."""
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
            "preprocessing": f"in the model: {self.preprocessing.to_text()}",
            "classes": ", ".join(self.classes[:SHOWN_CLASSES]),
            "data set": self.dataset,
        }
        if self.fit != ModelCard.fit:
            facts["input"] = f"{facts['input']}, {self.fit} of other proportions"
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
        if is_derived:
            facts["own accuracy"] = self.own_accuracy(file_sha256) or "not measured on this file"
        if self.training:
            training = self.training
            facts["recipe"] = f"{training.recipe}, {training.epochs} epochs, seed {training.seed}"
            if training.start:
                facts["started from"] = training.start
            facts["weights"] = training.selection
            facts["trained"] = f"{training.train_s / 60:,.1f} minutes on {training.machine}, commit {training.commit}"
        if self.checkpoint_sha256:
            facts["checkpoint"] = f"sha256 {self.checkpoint_sha256}"
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
