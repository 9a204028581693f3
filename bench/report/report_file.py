"""report.json read back: the same Report, so that tables and comparisons made later are those of the day itself.

The schema, described in REPORT.md, is that of the dataclass `Report` and those in it.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import ArtifactError
from ..measure.cell import Cell
from .report import SCHEMA, Report


def read_report(path: Path) -> Report:
    """The report in this file or folder. Raises ArtifactError when it is not one of this version's schema."""
    fields = _fields(path)
    try:
        report: Report = restored(Report, fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: an incomplete report ({error}); write it anew with rtk bench") from error
    return report


def read_cells(path: Path) -> list[Cell]:
    """Only the cells of a report, which is what comparing needs. Raises ArtifactError."""
    fields = _fields(path)
    try:
        return [restored(Cell, cell) for cell in fields["cells"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: an incomplete report ({error}); write it anew with rtk bench") from error


def restored(kind: Any, value: Any) -> Any:
    """A value of JSON as the type that it was: dataclasses, tuples and lists of them, everything else as it is.

    Keys that a dataclass has no field for are left aside; a field without a key keeps its default.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if value is None:
        return None
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {field.name: value[field.name] for field in dataclasses.fields(kind) if field.name in value}
        return kind(**{name: restored(hints[name], one) for name, one in known.items()})  # type: ignore[operator]
    if origin in (tuple, list):
        return origin(restored(inner[0], one) for one in value)
    if origin in (typing.Union, types.UnionType):
        return restored(next(one for one in inner if one is not type(None)), value)
    return value


def _fields(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        path = path / "report.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such report") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not a report of rtk bench ({error})") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ArtifactError(f"{path}: schema {schema!r}, expected {SCHEMA!r}; write the report anew with rtk bench")
    return typing.cast(Mapping[str, Any], content)
