"""The card in the metadata of an ONNX file, which shows that rtk wrote the file. Needs neither onnx nor torch."""

from pathlib import Path

from ..card import ModelCard
from ..errors import ArtifactError

CARD_KEY = "rtk.card"
"""Key of the card's JSON in the ONNX file's metadata."""
INPUT_NAME, OUTPUT_NAME = "images", "logits"


def graph_card(path: Path, metadata: dict[str, str], producer: str) -> ModelCard:
    """Read the card from a graph's metadata. Raises ArtifactError for a graph of another program."""
    if CARD_KEY not in metadata:
        raise ArtifactError(
            f"{path}: an ONNX file of {producer or 'an unknown program'}, without a card from rtk; "
            "expected one written by rtk export (uint8 N x H x W x C in, logits out)"
        )
    return ModelCard.from_json(metadata[CARD_KEY], source=str(path))
