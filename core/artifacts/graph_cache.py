"""The cache of graphs in the user's cache folder; a graph's name has a hash of everything that it is made from.

The record beside a graph, STEM.json, has the parts of that hash and the SHA-256 of the graph's file. A graph is used
only if its bytes are those of its record, and its record is that of its name. Needs neither onnx nor torch.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..card import ModelCard
from ..files import sha256_of, write_whole
from ..json_text import json_text
from ..models.code_sources import source_sha256s
from ..paths import cache_dirs, cache_path
from .graph_card import CARD_KEY, metadata_of

GRAPHS = "graphs"
"""Folder of the cache."""
KEY_LENGTH = 32
"""Number of hexadecimal digits of the SHA-256 in a graph's name."""
NAME = re.compile(rf"(?:fp32|fp16|bf16|int8)-[0-9a-f]{{{KEY_LENGTH}}}\.onnx")
"""The names of cached graphs. Those of earlier versions of rtk differ: they have no record and are never found."""


def graph_file(parts: Mapping[str, Any]) -> Path:
    """Return the path of the graph that is made from these parts; it may not exist. Raises OutputError.

    `parts`: values of JSON, by name; `precision` is one of them.
    """
    return cache_path(GRAPHS, _name(parts))


def record_graph(path: Path, parts: Mapping[str, Any]) -> None:
    """Write the record beside a graph that was just made from these parts. Raises OutputError.

    It also has the SHA-256 of the source files of networks outside of rtk.
    """
    content = {"sha256": sha256_of(path), "made_from": dict(parts), "code": source_sha256s(_architecture(path))}
    write_whole(_record(path), json_text(content, read_back=True, indent=1) + "\n")


def sound_graph(parts: Mapping[str, Any]) -> Path | None:
    """Return the cached graph that is made from these parts if it fits its record; None if it is missing or damaged."""
    found = (folder / GRAPHS / _name(parts) for folder in cache_dirs())
    return next((path for path in found if path.is_file() and not graph_problem(path)), None)


def graph_problem(path: Path) -> str:
    """The reason why a graph in the cache cannot be used; empty if its bytes, its record and its name fit."""
    try:
        record = json.loads(_record(path).read_bytes())
        sha256, name, code = record["sha256"], _name(record["made_from"]), dict(record.get("code", {}))
    except FileNotFoundError:
        return f"its record, {_record(path).name}, is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"its record, {_record(path).name}, is damaged"
    if name != path.name:
        return "the record beside it is that of another graph"
    changed = [arch for arch, before in code.items() if source_sha256s(arch).get(arch, before) != before]
    if changed:
        return f"the code of its network, {changed[0]}, has changed"
    found = sha256_of(path)
    return "" if found == sha256 else f"altered: its sha256 is {found[:12]}..., its record says {str(sha256)[:12]}..."


def cached_graphs() -> list[Path]:
    """Return the graphs in the cache, also those of earlier versions of rtk."""
    return [path for parent in cache_dirs() for path in sorted((parent / GRAPHS).glob("*.onnx"))]


def _name(parts: Mapping[str, Any]) -> str:
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]
    return f"{parts['precision']}-{key}.onnx"


def _architecture(graph: Path) -> str:
    """The architecture on the graph's card; empty without a card."""
    card = metadata_of(graph).get(CARD_KEY)
    return ModelCard.from_json(card, source=str(graph)).arch if card else ""


def _record(path: Path) -> Path:
    return path.with_suffix(".json")
