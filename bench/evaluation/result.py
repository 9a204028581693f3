"""The result of evaluating one model on labelled images, and of comparing two. Data only; file.py writes and reads it.

Shares are from 0 to 1. A figure that is undefined is None, never 0: precision without predictions, recall without
images. Indices of classes are those of `card.classes`; indices of images are those of the split, from 0.
"""

from dataclasses import dataclass, field
from typing import Literal

from ...core.card import ModelCard
from ...core.machine import Machine
from ..measure.contenders import RanFile

Outcome = Literal["lost", "won", "both wrong"]
"""What the second model made of an image whose answer changed. lost: only the first is right."""


@dataclass(frozen=True)
class Interval:
    """A two-sided 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class LabelledData:
    """The images that a model was evaluated on."""

    name: str
    split: str
    """train, validation or test; `all` if every image of a folder counts."""
    images: int
    """Those that were evaluated."""
    layout: str = ""
    """The user's own data: the layout in words."""
    path: str = ""
    """The user's own data: the folder or archive."""
    fingerprint: str = ""
    """The user's own data: SHA-256 of the names, classes and sizes of all images, and of the content of some."""
    unreadable: int = 0
    """Images that cannot be read and were left out."""
    note: str = ""
    """What a reader must know about the images, such as that the model was selected on them; one sentence."""


@dataclass(frozen=True)
class ClassFigures:
    """One class: the counts, and the figures that follow from them."""

    name: str
    support: int
    """Images with this label."""
    predicted: int
    """Images with this prediction."""
    right: int
    precision: float | None
    """Share of the predictions of this class that are right; None without predictions."""
    recall: float | None
    """Share of the images of this class that are right; None without images."""
    f1: float | None
    """Harmonic mean of precision and recall; None without predictions and images."""


@dataclass(frozen=True)
class Averages:
    """Means over the classes for which a figure is defined; None if it is defined for none."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class ConfusedPair:
    """Images of one class that were taken for another one."""

    label: int
    prediction: int
    images: int


@dataclass(frozen=True)
class ConfidenceBin:
    """Images whose confidence, the probability of the prediction, is above `low` and at most `high`."""

    low: float
    high: float
    images: int
    right: int
    confidence: float | None
    """Mean confidence; None without images."""

    @property
    def accuracy(self) -> float | None:
        """Share of right predictions; None without images."""
        return self.right / self.images if self.images else None


@dataclass(frozen=True)
class Calibration:
    """How well the probabilities tell how often the predictions are right."""

    temperature: float
    """The logits were divided by it before the softmax; 1: the probabilities are those of the model itself."""
    ece: float
    """Expected calibration error: mean over the images of |accuracy - mean confidence| of their bin."""
    loss: float
    """Mean negative log-likelihood of the labels, in nats: the cross-entropy."""
    confidence: float
    """Mean confidence; above the accuracy: the model is overconfident."""
    bins: tuple[ConfidenceBin, ...]
    """Fifteen of equal width, in order; some may hold no image."""


@dataclass(frozen=True)
class ShownImage:
    """An image with its answer, for lists and galleries."""

    index: int
    name: str
    """The name of its file; empty for a data set with a name."""
    label: int
    prediction: int
    confidence: float
    """Probability of the prediction."""
    label_probability: float
    picture: str = ""
    """PNG in base64, in the size that the model reads."""


@dataclass(frozen=True)
class Evaluation:
    """One model on labelled images."""

    card: ModelCard
    file: RanFile
    """The file that the backend ran, with its SHA-256."""
    backend: str
    runs_on: str
    """The library and hardware that ran the model, with versions and threads, as text for people."""
    device: str
    precision: str
    """Precision of the computation."""
    machine: Machine
    date: str
    data: LabelledData
    images: int
    correct: int
    accuracy_interval: Interval
    """Wilson's."""
    top5_correct: int | None
    """Images whose label is among the five most probable classes; None for a model of five classes or fewer."""
    classes: tuple[ClassFigures, ...]
    """In the order of the card's classes."""
    macro: Averages
    """Every class counts the same."""
    weighted: Averages
    """Every class counts by its support."""
    confusion: tuple[tuple[int, ...], ...]
    """K x K counts: a row for each label, a column for each prediction."""
    pairs: tuple[ConfusedPair, ...]
    """The most confused ones first, at most ten."""
    calibration: Calibration
    """With the card's temperature."""
    uncalibrated: Calibration | None
    """With temperature 1; None if that is the card's temperature."""
    surest_wrong: tuple[ShownImage, ...] = ()
    """Wrong predictions with the highest confidence, the surest first."""
    least_sure_right: tuple[ShownImage, ...] = ()
    """Right predictions with the lowest confidence, the least sure first."""
    given: str = ""
    """The model as the user named it; empty in earlier files. `file` may be a graph that was made from it."""

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return self.correct / self.images

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats, of the model's own logits without any temperature."""
        return (self.uncalibrated or self.calibration).loss


@dataclass(frozen=True)
class ClassChange:
    """What changed for one class from the first to the second model."""

    name: str
    support: int
    first_right: int
    second_right: int
    lost: int
    """Images of this class that only the first model answers right."""
    won: int
    """Images of this class that only the second model answers right."""


@dataclass(frozen=True)
class ChangedImage:
    """An image that the two models answer otherwise."""

    index: int
    name: str
    """The name of its file; empty for a data set with a name."""
    label: int
    first: int
    """The first model's prediction."""
    second: int
    first_confidence: float
    second_confidence: float
    picture: str = ""
    """PNG in base64."""

    @property
    def outcome(self) -> Outcome:
        """Which of the two is right, if any."""
        return "lost" if self.first == self.label else "won" if self.second == self.label else "both wrong"


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images."""

    first: Evaluation
    second: Evaluation
    both_right: int
    lost: int
    """Images that only the first model answers right."""
    won: int
    """Images that only the second model answers right."""
    both_wrong: int
    """Images that neither answers right, whether with the same answer or not."""
    both_wrong_changed: int
    """Those of them with two different wrong answers."""
    difference: Interval
    """95 % interval of the second model's accuracy minus the first one's: Tango's, for paired answers."""
    classes: tuple[ClassChange, ...]
    """In the order of the card's classes."""
    changed: tuple[ChangedImage, ...] = field(default=())
    """Some of each outcome: lost, then won, then both wrong; of each, the most confident wrong answer first."""

    @property
    def images(self) -> int:
        """The images that both answered."""
        return self.first.images

    @property
    def changed_images(self) -> int:
        """All images with different answers."""
        return self.lost + self.won + self.both_wrong_changed

    @property
    def accuracy_change(self) -> float:
        """The second model's accuracy minus the first one's."""
        return (self.won - self.lost) / self.images
