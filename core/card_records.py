"""What a card records about its model: the data, the training, the score, and the fit of the temperature."""

from dataclasses import dataclass, field
from typing import Any

OPTIMISTIC = "so its score is too optimistic"
"""Part of `Training.selection` when the training used the test split."""
OPTIMISTIC_BEFORE = "which flatters its score"
"""The same part in checkpoints of earlier versions."""
CHOSE_EPOCH = "the training also chose its weights by these images, so this is too optimistic"
"""Part of the text of a temperature."""


@dataclass(frozen=True)
class Score:
    """Result of the model on labelled images; correct answers are counted, so nothing is rounded."""

    split: str
    correct: int
    total: int
    loss: float
    """Mean cross-entropy in nats, of the model's own logits without any temperature."""
    device: str = ""
    """cpu, or cuda:N; empty in cards of earlier versions, as are the next two."""
    threads: int = 0
    """Threads of PyTorch in each process; 0: unknown."""
    machine: str = ""

    @property
    def accuracy(self) -> float:
        """Share of correct answers, 0 to 1."""
        return self.correct / self.total

    @property
    def measured_on(self) -> str:
        """Where the score was measured, in words; empty if the card does not say."""
        return f"{self.machine}{_computed_on(self.device, self.threads, processes=1)}" if self.machine else ""


@dataclass(frozen=True)
class TemperatureFit:
    """The images that a temperature was fitted on, and what it changed on these images."""

    dataset: str
    split: str
    """holdout, validation, test, train, or `all` for every image of a folder."""
    images: int
    standard_error: float
    """Of the temperature: what another sample of as many images would change."""
    loss_before: float
    """Mean cross-entropy in nats, with temperature 1."""
    loss_after: float
    ece_before: float
    """Expected calibration error, with temperature 1."""
    ece_after: float
    chose_epoch: bool = False
    """True if the training chose its epoch or its learning rate by these images: the temperature is then optimistic."""

    def to_text(self) -> str:
        """The images and the figures in words."""
        return (
            f"{self.images:,} images of {self.dataset}, {split_text(self.split)} "
            f"(standard error {self.standard_error:.2g}): loss {self.loss_before:.4f} to {self.loss_after:.4f}, "
            f"calibration error {self.ece_before:.2%} to {self.ece_after:.2%}"
            + (f"; {CHOSE_EPOCH}" if self.chose_epoch else "")
        )


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
    held_out: int = 0
    """Number of training images that the training held out, drawn by the seed."""
    trained_images: int = 0
    """Number of images that it trained on; 0 in cards of earlier versions, as are the next ones."""
    device: str = ""
    """cpu, or cuda:N."""
    threads: int = 0
    """Threads of PyTorch in each process, in the last part of a training that was resumed."""
    processes: int = 0
    """Number of processes that trained together."""

    @property
    def computed_on(self) -> str:
        """Device, threads and processes in words, after a comma; empty if the card does not say."""
        return _computed_on(self.device, self.threads, processes=self.processes)

    @property
    def used_test_split(self) -> bool:
        """True when the training used the images that the score is measured on."""
        return OPTIMISTIC in self.selection or OPTIMISTIC_BEFORE in self.selection


def _computed_on(device: str, threads: int, *, processes: int) -> str:
    """Device, threads and processes in words, each after a comma; nothing for what is unknown."""
    words = [device] if device else []
    if threads:
        words.append(f"{threads} thread{'s' if threads > 1 else ''}{' each' if processes > 1 else ''}")
    if processes > 1:
        words.append(f"{processes} processes")
    return "".join(f", {word}" for word in words)


def split_text(split: str) -> str:
    """A split in words; `all`: every image of a folder."""
    return "all images" if split == "all" else f"{split} split"
