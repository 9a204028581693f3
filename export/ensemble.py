"""An ensemble: one checkpoint made of several, exported, judged and served like any other checkpoint."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..core.artifacts.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ..core.card import ModelCard
from ..core.errors import UsageError
from ..core.file_names import safe_name
from ..core.models.model import SEPARATOR
from ..core.text import wrapped

_log = logging.getLogger(__name__)

NETWORK = "network."
"""Prefix of the names of the network's weights in a checkpoint."""


def ensemble_from_checkpoints(checkpoints: Sequence[Path], folder: Path, *, name: str | None = None) -> Path:
    """Write the ensemble of two or more checkpoints into the folder and return its path.

    It averages the members' probabilities without their temperatures, and has the temperature 1 until one is fitted on
    the ensemble itself: a mean of calibrated probabilities is not calibrated, it is underconfident (arXiv 2007.08792).
    `name`: the ensemble's; default: made of the members' names.
    All members must have the same classes in the same order, the same input and the same preprocessing, which the
    ensemble does once. Raises UsageError if they differ, ArtifactError for a file that is no checkpoint, OutputError.
    """
    loaded = [load_checkpoint(path) for path in checkpoints]
    first, weights = loaded[0].card, _preprocessing_weights(loaded[0])
    for path, member in zip(checkpoints, loaded, strict=True):
        for what in ("classes", "input", "preprocessing"):
            if getattr(member.card, what) != getattr(first, what):
                raise UsageError(_difference(path, checkpoints[0], what))
        if SEPARATOR in member.card.arch:
            raise UsageError(f"{path}: already an ensemble; name its members instead")
        member.model()  # raises ArtifactError if the weights do not fit
        if not all(torch.equal(value, weights[name]) for name, value in _preprocessing_weights(member).items()):
            raise UsageError(_difference(path, checkpoints[0], "preprocessing"))
    for number, member in enumerate(loaded):
        for key, value in member.weights.items():
            if key.startswith(NETWORK):
                weights[key.replace(NETWORK, f"{NETWORK}members.{number}.", 1)] = value
    card = ModelCard(
        name=name or _ensemble_name([member.card for member in loaded]),
        arch=SEPARATOR.join(member.card.arch for member in loaded),
        dataset=first.dataset,
        classes=first.classes,
        input=first.input,
        preprocessing=first.preprocessing,
        notes={"ensemble": [_member_note(member.card) for member in loaded]},
    )
    if any(member.card.temperature != 1 for member in loaded):
        _log.warning(
            wrapped(
                f"{card.name}: its members' temperatures do not apply to the ensemble, which can have one of its own"
            )
        )
    path = folder / f"{card.name}.pt"
    save_checkpoint(path, card, weights)
    return path


def _difference(path: Path, first: Path, what: str) -> str:
    return f"{path}: differs from {first} in {what}; all members of an ensemble must have the same"


def _preprocessing_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the weights outside the network: the constants of the preprocessing."""
    return {name: value for name, value in checkpoint.weights.items() if not name.startswith(NETWORK)}


def _ensemble_name(cards: Sequence[ModelCard]) -> str:
    """Return NAME-x3 if the members' names differ in their seeds alone, else the different names, joined."""
    names = list(dict.fromkeys(card.name.removesuffix(_seed_suffix(card)) for card in cards))
    return safe_name(f"{names[0]}-x{len(cards)}" if len(names) == 1 else SEPARATOR.join(names)) or "ensemble"


def _seed_suffix(card: ModelCard) -> str:
    return f"-s{card.training.seed}" if card.training else ""


def _member_note(card: ModelCard) -> dict[str, object]:
    """Return the entry of a member in the card of the ensemble."""
    note: dict[str, object] = {"name": card.name, "sha256": card.checkpoint_sha256}
    if card.training:
        note["seed"] = card.training.seed
    if card.temperature != 1:
        note["temperature"] = card.temperature
    if card.score:
        note |= {"correct": card.score.correct, "total": card.score.total}
    return note
