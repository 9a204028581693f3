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

from ..files import sha256_of, write_whole
from ..json_text import json_text
from ..paths import cache_dirs, cache_path

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
    """Write the record beside a graph that was just made from these parts. Raises OutputError."""
    content = {"sha256": sha256_of(path), "made_from": dict(parts)}
    write_whole(_record(path), json_text(content, read_back=True, indent=1) + "\n")


def sound_graph(parts: Mapping[str, Any]) -> Path | None:
    """Return the cached graph that is made from these parts if it fits its record; None if it is missing or damaged."""
    found = (folder / GRAPHS / _name(parts) for folder in cache_dirs())
    return next((path for path in found if path.is_file() and not graph_problem(path)), None)


def graph_problem(path: Path) -> str:
    """The reason why a graph in the cache cannot be used; empty if its bytes, its record and its name fit."""
    try:
        record = json.loads(_record(path).read_bytes())
        sha256, name = record["sha256"], _name(record["made_from"])
    except FileNotFoundError:
        return f"its record, {_record(path).name}, is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"its record, {_record(path).name}, is damaged"
    if name != path.name:
        return "the record beside it is that of another graph"
    found = sha256_of(path)
    return "" if found == sha256 else f"altered: its sha256 is {found[:12]}..., its record says {str(sha256)[:12]}..."


def cached_graphs() -> list[Path]:
    """Return the graphs in the cache, also those of earlier versions of rtk."""
    return [path for parent in cache_dirs() for path in sorted((parent / GRAPHS).glob("*.onnx"))]


def _name(parts: Mapping[str, Any]) -> str:
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]
    return f"{parts['precision']}-{key}.onnx"


def _record(path: Path) -> Path:
    return path.with_suffix(".json")
