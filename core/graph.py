"""The card inside a graph: how an ONNX file is known to be rtk's. Needs onnx, not torch."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from .card import ModelCard
from .errors import ArtifactError

CARD_KEY = "rtk.card"
"""Key of the card's JSON in the ONNX file's metadata."""
INPUT_NAME, OUTPUT_NAME = "images", "logits"


def load_graph(path: Path) -> tuple[onnx.ModelProto, ModelCard]:
    """Read an ONNX file and its card. Raises ArtifactError when it is missing, damaged, or another program's."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such graph")
    try:
        graph = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ArtifactError(f"{path}: truncated, damaged, or not an ONNX file") from error
    return graph, graph_card(path, {entry.key: entry.value for entry in graph.metadata_props}, graph.producer_name)


def graph_card(path: Path, metadata: dict[str, str], producer: str) -> ModelCard:
    """The card from a graph's metadata. Raises ArtifactError for a graph of another program."""
    if CARD_KEY not in metadata:
        raise ArtifactError(
            f"{path}: an ONNX file of {producer or 'an unknown program'}, without a card of rtk's; "
            "expected one written by rtk export (uint8 N x H x W x C in, logits out)"
        )
    return ModelCard.from_json(metadata[CARD_KEY], source=str(path))


def set_card(graph: onnx.ModelProto, card: ModelCard) -> None:
    """Put the card into the graph's metadata, in place of an earlier one."""
    kept = [entry for entry in graph.metadata_props if entry.key != CARD_KEY]
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
    graph.metadata_props.add(key=CARD_KEY, value=card.to_json())
