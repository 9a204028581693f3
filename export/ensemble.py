"""Several checkpoints as one, which is then exported, judged and served like any other."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..core.artifacts.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ..core.card import ModelCard
from ..core.errors import UsageError
from ..core.models.model import SEPARATOR

NETWORK = "network."
"""How the names of a network's weights begin in a checkpoint."""


def ensemble_of(checkpoints: Sequence[Path], folder: Path) -> Path:
    """Write the ensemble of these checkpoints, two or more, into the folder and return its path.

    All must have the same classes, in their order, the same input and the same preprocessing, which is done once.
    Raises UsageError when they differ, ArtifactError for a file that is no checkpoint, OutputError.
    """
    loaded = [load_checkpoint(path) for path in checkpoints]
    first, weights = loaded[0].card, _outside(loaded[0])
    for path, member in zip(checkpoints, loaded, strict=True):
        for what in ("classes", "input", "preprocessing"):
            if getattr(member.card, what) != getattr(first, what):
                raise UsageError(f"{path}: differs from {checkpoints[0]} in {what}, which an ensemble's members share")
        if SEPARATOR in member.card.arch:
            raise UsageError(f"{path}: an ensemble already; name its members instead")
        member.model()  # raises when the weights do not fit
        if not all(torch.equal(value, weights[name]) for name, value in _outside(member).items()):
            raise UsageError(
                f"{path}: differs from {checkpoints[0]} in preprocessing, which an ensemble's members share"
            )
    for number, member in enumerate(loaded):
        for name, value in member.weights.items():
            if name.startswith(NETWORK):
                weights[name.replace(NETWORK, f"{NETWORK}members.{number}.", 1)] = value
    card = ModelCard(
        name=_name([member.card for member in loaded]),
        arch=SEPARATOR.join(member.card.arch for member in loaded),
        dataset=first.dataset,
        classes=first.classes,
        input=first.input,
        preprocessing=first.preprocessing,
        notes={"ensemble": [_origin(member.card) for member in loaded]},
    )
    path = folder / f"{card.name}.pt"
    save_checkpoint(path, card, weights)
    return path


def _outside(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """What it holds beside the network: the numbers of its preprocessing."""
    return {name: value for name, value in checkpoint.weights.items() if not name.startswith(NETWORK)}


def _name(cards: Sequence[ModelCard]) -> str:
    """resnet20v1-cifar10-x3, or the names that differ, joined."""
    names = list(dict.fromkeys(card.name for card in cards))
    return f"{names[0]}-x{len(cards)}" if len(names) == 1 else SEPARATOR.join(names)


def _origin(card: ModelCard) -> dict[str, object]:
    """What the ensemble's card keeps of a member."""
    kept: dict[str, object] = {"name": card.name, "sha256": card.checkpoint_sha256}
    if card.training:
        kept["seed"] = card.training.seed
    if card.score:
        kept |= {"correct": card.score.correct, "total": card.score.total}
    return kept
