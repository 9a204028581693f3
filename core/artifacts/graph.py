"""Graphs: read an ONNX file of rtk with its card, and write a card into one. Needs onnx, not torch."""

import hashlib
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ..card import ModelCard
from ..errors import ArtifactError
from .graph_card import CARD_KEY, graph_card


def load_graph(path: Path) -> tuple[onnx.ModelProto, ModelCard]:
    """Read an ONNX file and its card. Raises ArtifactError when it is missing, damaged, or from another program."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such graph")
    try:
        graph = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ArtifactError(f"{path}: truncated, damaged, or not an ONNX file") from error
    return graph, graph_card(path, {entry.key: entry.value for entry in graph.metadata_props}, graph.producer_name)


def set_card(graph: onnx.ModelProto, card: ModelCard) -> None:
    """Put the card into the graph's metadata in place; it replaces an earlier card."""
    _remove_card(graph)
    graph.metadata_props.add(key=CARD_KEY, value=card.to_json())


def sha256_without_card(graph: onnx.ModelProto) -> str:
    """Return the SHA-256 of what a graph computes with: its bytes without the card, which may record this very hash."""
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    _remove_card(bare)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _remove_card(graph: onnx.ModelProto) -> None:
    kept = [entry for entry in graph.metadata_props if entry.key != CARD_KEY]
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
