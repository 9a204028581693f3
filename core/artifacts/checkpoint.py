"""Checkpoints: weights, card and training state in one `.pt` file, written whole, read as data only."""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..card import ModelCard
from ..errors import ArtifactError, UsageError
from ..files import sha256_of, whole_file
from ..library_errors import reason_of
from ..models.model import Model, build_model
from .torch_file import read_torch_file
from .weight_advice import import_command
from .weight_files import states_in

FORMAT = "rtk-checkpoint-1"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory; its card has the SHA-256 of the file, or of the file before a temperature was fitted."""

    card: ModelCard
    weights: dict[str, Tensor]
    training: dict[str, Any] | None
    """The state for resuming; only `last.pt` has it."""

    def model(self) -> Model:
        """Return the model in evaluation mode, fp32. Raises ArtifactError when the weights do not fit the card."""
        try:
            model = build_model(self.card)
        except UsageError as error:  # the name comes from the file, not from the user
            raise ArtifactError(f"{self.card.name}: {error}") from error
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            reason = reason_of(error)
            raise ArtifactError(f"{self.card.name}: the weights do not fit {self.card.arch}: {reason}") from error
        return model.eval()


def save_checkpoint(
    path: Path, card: ModelCard, weights: dict[str, Tensor], *, training: dict[str, Any] | None = None
) -> None:
    """Write a checkpoint, whole or not at all. Raises OutputError."""
    content = {"format": FORMAT, "card": card.to_json(), "weights": weights, "training": training}
    save_content(path, content)


def save_content(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values for torch.load, whole or not at all. Raises OutputError.

    The bytes are made in memory first: on a full disk torch.save may raise an error that hides the reason.
    Not by getbuffer(): Python 3.12 crashes when such a view dies with the error of a full disk.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with whole_file(path) as file:
        file.write(buffer.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint into CPU memory without running code from it.

    Raises ArtifactError when the file is missing, damaged, from another program, or a pickle that would run code.
    """
    content = read_torch_file(path, expected="a checkpoint written by rtk")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        states = [] if isinstance(content, dict) and "format" in content else states_in(content)
        advice = f"; to make one of these weights: {import_command(path, states)}" if states else ""
        raise ArtifactError(f"{path}: a PyTorch file, but not a checkpoint of rtk (expected format {FORMAT}){advice}")
    card, weights = content.get("card"), content.get("weights")
    if not isinstance(card, str) or not isinstance(weights, dict):
        raise ArtifactError(f"{path}: incomplete: the card or the weights are missing")
    card = ModelCard.from_json(card, source=str(path))
    card = replace(card, checkpoint_sha256=card.checkpoint_sha256 or sha256_of(path))
    return Checkpoint(card, weights, content.get("training"))
