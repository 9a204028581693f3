"""Graphs: ONNX files of rtk's, read with their card, and a card put into one. Needs onnx, not torch."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ..card import ModelCard
from ..errors import ArtifactError
from .graph_card import CARD_KEY, graph_card


def load_graph(path: Path) -> tuple[onnx.ModelProto, ModelCard]:
    """Read an ONNX file and its card. Raises ArtifactError when it is missing, damaged, or another program's."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such graph")
    try:
        graph = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ArtifactError(f"{path}: truncated, damaged, or not an ONNX file") from error
    return graph, graph_card(path, {entry.key: entry.value for entry in graph.metadata_props}, graph.producer_name)


def set_card(graph: onnx.ModelProto, card: ModelCard) -> None:
    """Put the card into the graph's metadata, in place of an earlier one."""
    kept = [entry for entry in graph.metadata_props if entry.key != CARD_KEY]
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
    graph.metadata_props.add(key=CARD_KEY, value=card.to_json())
