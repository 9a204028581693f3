"""Checkpoints: weights, card and training state in one `.pt` file, written whole, read as data only."""

import io
import pickle
import warnings
import zipfile
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

FORMAT = "rtk-checkpoint-1"
LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of the files that torch.save wrote before PyTorch 1.6, which are not zip archives."""


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
    content = read_tensors(path, expected="a checkpoint written by rtk train")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtifactError(f"{path}: a PyTorch file, but not a checkpoint of rtk (expected format {FORMAT})")
    card, weights = content.get("card"), content.get("weights")
    if not isinstance(card, str) or not isinstance(weights, dict):
        raise ArtifactError(f"{path}: incomplete: the card or the weights are missing")
    card = ModelCard.from_json(card, source=str(path))
    card = replace(card, checkpoint_sha256=card.checkpoint_sha256 or sha256_of(path))
    return Checkpoint(card, weights, content.get("training"))


def read_tensors(path: Path, *, expected: str) -> Any:
    """Read what torch.save wrote: only tensors and plain values. Raises ArtifactError as load_checkpoint does."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such checkpoint")
    try:
        with path.open("rb") as file:
            legacy = file.read(len(LEGACY_START)) == LEGACY_START
        if not legacy:
            with zipfile.ZipFile(path) as archive:  # torch.load does not verify the checksums
                if archive.testzip() is not None:
                    raise ArtifactError(f"{path}: damaged: its content does not match its checksums")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about unusual pickles, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path}: refused: it holds Python objects that would run code when loaded; expected {expected}"
        ) from error
    except ArtifactError:
        raise
    # On a damaged or malicious file zipfile and torch raise many kinds of errors; the user gets one clear line.
    except Exception as error:
        raise ArtifactError(f"{path}: truncated, damaged, or not a checkpoint of rtk") from error
