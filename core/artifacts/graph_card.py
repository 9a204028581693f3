"""The card in the metadata of an ONNX file, which shows that rtk wrote the file. Needs neither onnx nor torch."""

import contextlib
import io
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..card import ModelCard
from ..errors import ArtifactError

CARD_KEY = "rtk.card"
"""Key of the card's JSON in the ONNX file's metadata."""
ARITHMETIC_KEY = "rtk.arithmetic"
"""Key of the precision that a graph computes in, if it is not that of its card."""
INPUT_NAME, OUTPUT_NAME = "images", "logits"
METADATA, KEY, VALUE = 14, 1, 2
"""Numbers of the fields `metadata_props` of a model, and `key` and `value` of its entries, in onnx.proto."""
VARINT, EIGHT_BYTES, MESSAGE, FOUR_BYTES = 0, 1, 2, 5
"""Types of fields in the encoding of Protocol Buffers."""
LONGEST_VARINT = 10
"""Bytes of a number of 64 bits."""


def graph_card(path: Path, metadata: dict[str, str], producer: str) -> ModelCard:
    """Read the card from a graph's metadata. Raises ArtifactError for a graph of another program."""
    if CARD_KEY not in metadata:
        raise ArtifactError(
            f"{path}: an ONNX file of {producer or 'an unknown program'}, without a card from rtk; to make it a graph "
            f"of rtk's: rtk import {shlex.quote(str(path))} --classes FILE --preprocess imagenet --out DIR"
        )
    return ModelCard.from_json(metadata[CARD_KEY], source=str(path))


@dataclass(frozen=True)
class GraphArithmetic:
    """What a graph computes in."""

    precision: str
    uniform: bool
    """Whether every product is in that precision; pixels are whitened in fp32, whatever the network has."""


def arithmetic_of(graph: Path | bytes) -> GraphArithmetic | None:
    """Return what a graph computes in, without loading the graph; None without a card that can be read."""
    with contextlib.suppress(OSError, ArtifactError):
        metadata = metadata_of(graph)
        if CARD_KEY in metadata:
            card = ModelCard.from_json(metadata[CARD_KEY], source="the graph")
            precision = metadata.get(ARITHMETIC_KEY, card.precision)
            return GraphArithmetic(precision, uniform=precision == "fp32" or not card.preprocessing.whitening)
    return None


def has_card(graph: Path) -> bool:
    """Whether rtk wrote an ONNX file, without loading it."""
    with contextlib.suppress(OSError):
        return CARD_KEY in metadata_of(graph)
    return False


def is_from_graph(graph: Path | bytes) -> bool:
    """Whether a graph is imported from another program, or comes from such a graph, without loading it."""
    with contextlib.suppress(OSError, ArtifactError):
        text = metadata_of(graph).get(CARD_KEY)
        return text is not None and ModelCard.from_json(text, source="the graph").from_graph
    return False


def metadata_of(graph: Path | bytes) -> dict[str, str]:
    """Read the metadata of an ONNX file and skip the rest; as much as there is of a damaged file.

    A file is one message of Protocol Buffers, whose fields have a number, a type and, if they are messages, a length:
    protobuf.dev/programming-guides/encoding.
    """
    with io.BytesIO(graph) if isinstance(graph, bytes) else graph.open("rb") as file:
        entries = [dict(_messages(io.BytesIO(entry), {KEY, VALUE})) for _, entry in _messages(file, {METADATA})]
    texts = ({number: content.decode(errors="replace") for number, content in entry.items()} for entry in entries)
    return {text.get(KEY, ""): text.get(VALUE, "") for text in texts}


def _messages(file: BinaryIO, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the content of the fields with these numbers; stop where the encoding is wrong."""
    while (tag := _varint(file)) is not None:
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _varint(file)
        elif kind == MESSAGE and (length := _varint(file)) is not None:
            if number in wanted:
                yield number, file.read(length)
            else:
                file.seek(length, io.SEEK_CUR)
        elif kind in {EIGHT_BYTES, FOUR_BYTES}:
            file.seek(8 if kind == EIGHT_BYTES else 4, io.SEEK_CUR)
        else:
            return


def _varint(file: BinaryIO) -> int | None:
    """Read a number of seven bits per byte, the lowest first; None at the end of the file, or if it is too long."""
    value = 0
    for index in range(LONGEST_VARINT):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << 7 * index
        if byte[0] < 0x80:
            return value
    return None
