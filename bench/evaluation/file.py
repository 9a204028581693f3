"""eval.json: an evaluation or a comparison as JSON, and read back. Its keys are the fields of the dataclasses."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ...core.errors import ArtifactError
from ...core.json_text import json_text, with_numbers_on_one_line
from ...core.records import restored
from .result import Comparison, Evaluation

SCHEMA, COMPARISON_SCHEMA = "rtk-eval-1", "rtk-eval-compare-1"
"""The number increases with every change that an older reader would misread."""
FILE = "eval.json"


def json_of(result: Evaluation | Comparison) -> str:
    """The whole result. Figures that follow from others are added for other readers; undefined figures are null."""
    if isinstance(result, Comparison):
        content: dict[str, Any] = {"schema": COMPARISON_SCHEMA, **dataclasses.asdict(result)}
        for name, one in (("first", result.first), ("second", result.second)):
            content[name] = _fields(one)
        content["accuracy_change"] = result.accuracy_change
        for fields, image in zip(content["changed"], result.changed, strict=True):
            fields["outcome"] = image.outcome
    else:
        content = {"schema": SCHEMA, **_fields(result)}
    text = json_text(content, read_back=True, indent=1, ensure_ascii=False)
    return with_numbers_on_one_line(text) + "\n"


def _fields(evaluation: Evaluation) -> dict[str, Any]:
    return {**dataclasses.asdict(evaluation), "accuracy": evaluation.accuracy, "loss": evaluation.loss}


def read_evaluation(path: Path | str) -> Evaluation:
    """The evaluation in this file or folder. Raises ArtifactError for another file or an unknown schema."""
    found: Evaluation = _read(Path(path), SCHEMA, Evaluation, "rtk eval MODEL --report FOLDER")
    return found


def read_comparison(path: Path | str) -> Comparison:
    """The comparison in this file or folder. Raises ArtifactError for another file or an unknown schema."""
    found: Comparison = _read(Path(path), COMPARISON_SCHEMA, Comparison, "rtk eval MODEL MODEL2 --report FOLDER")
    return found


def _read(path: Path, schema: str, kind: type, command: str) -> Any:
    path = path / FILE if path.is_dir() else path
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such evaluation; write one: {command}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not a result of rtk eval ({error})") from error
    found = content.get("schema") if isinstance(content, dict) else None
    if found != schema:
        raise ArtifactError(f"{path}: schema {found!r}, expected {schema!r}; write it again: {command}")
    try:
        return restored(kind, content)
    except (TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: an incomplete evaluation ({error}); write it again: {command}") from error
