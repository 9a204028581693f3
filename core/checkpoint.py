"""Checkpoints: weights, card and training state in one `.pt`, written whole, read as data only."""

import pickle
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .card import ModelCard
from .errors import ArtifactError
from .files import sha256_of, whole_file
from .models.model import Model, build_model

FORMAT = "rtk-checkpoint-1"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory; its card carries the file's own sha256."""

    card: ModelCard
    weights: dict[str, Tensor]
    training: dict[str, Any] | None
    """What resuming needs; only `last.pt` has it."""

    def model(self) -> Model:
        """The model in evaluation mode, fp32. Raises ArtifactError when the weights do not fit the card."""
        model = build_model(self.card)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ArtifactError(f"{self.card.name}: the weights do not fit {self.card.arch}: {reason}") from error
        return model.eval()


def save_checkpoint(
    path: Path, card: ModelCard, weights: dict[str, Tensor], *, training: dict[str, Any] | None = None
) -> None:
    """Write a checkpoint, whole or not at all. Raises OutputError."""
    content = {"format": FORMAT, "card": card.to_json(), "weights": weights, "training": training}
    with whole_file(path) as file:
        torch.save(content, file)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU without running anything in it.

    Raises ArtifactError when the file is missing, damaged, another program's, or a pickle that would run code.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and zipfile.is_zipfile(path):
            raise ArtifactError(
                f"{path}: refused: it holds Python objects that would run code when loaded; "
                "expected a checkpoint written by rtk train"
            ) from error
        raise ArtifactError(f"{path}: damaged, or not a checkpoint of rtk's") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ArtifactError(f"{path}: truncated, damaged, or not a checkpoint of rtk's") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtifactError(f"{path}: a PyTorch file, but not a checkpoint of rtk's (expected format {FORMAT})")
    card = ModelCard.from_json(content["card"], source=str(path))
    return Checkpoint(replace(card, checkpoint_sha256=sha256_of(path)), content["weights"], content["training"])
