"""One row for each image, as CSV or Parquet: its label, the prediction, and the probabilities of both."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UsageError
from ...core.files import whole_file
from ...core.text import decodable
from ...infer.output.rows import file_text
from .answers import Answers
from .calibration import scores_of
from .figures import ranks_of

SUFFIXES = (".csv", ".parquet")
ROWS_PER_GROUP = 1 << 15
Row = dict[str, Any]


def check_suffix(path: Path) -> None:
    """Raise UsageError for a file of another kind, or if pyarrow is missing for Parquet."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: unknown suffix; expected {' or '.join(SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise UsageError(f"{path}: pyarrow is not installed; pip install pyarrow") from error


def write_per_image(path: Path, classes: Sequence[str], models: Mapping[str, tuple[Answers, float]]) -> None:
    """Write the rows, whole or not at all. `models`: a prefix for the columns of each, its answers and temperature.

    Columns: index, file (only if images have names), label; then for each model prediction, right, confidence,
    label_probability, and label_rank, 1 if the label is the most probable class. Raises OutputError.
    """
    columns = _columns(classes, models)
    with whole_file(path) as file:
        if path.suffix.lower() == ".parquet":
            import pyarrow as pa
            from pyarrow import parquet

            table = pa.table({name: pa.array(values) for name, values in columns.items()})
            parquet.write_table(table, file, row_group_size=ROWS_PER_GROUP)
        else:
            file.writelines(line.encode() for line in _csv_lines(columns))


def _columns(classes: Sequence[str], models: Mapping[str, tuple[Answers, float]]) -> dict[str, Any]:
    first = next(iter(models.values()))[0]
    names = np.array([decodable(name) for name in classes], object)
    columns: dict[str, Any] = {"index": np.arange(len(first.labels_N))}
    if first.names:
        columns["file"] = [decodable(name) for name in first.names]
    columns["label"] = names[first.labels_N].tolist()
    for prefix, (answers, temperature) in models.items():
        scores = scores_of(answers.logits_NK, answers.labels_N, temperature=temperature)
        columns |= {
            f"{prefix}prediction": names[scores.predictions_N].tolist(),
            f"{prefix}right": scores.predictions_N == answers.labels_N,
            f"{prefix}confidence": scores.confidences_N,
            f"{prefix}label_probability": scores.label_probabilities_N,
            f"{prefix}label_rank": 1 + ranks_of(answers.logits_NK, answers.labels_N),
        }
    return columns


def _csv_lines(columns: Mapping[str, Any]) -> Iterator[str]:
    """Lines of CSV; texts are written as those of rtk classify."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for values in zip(*columns.values(), strict=True):
        writer.writerow(map(_cell, values))
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return file_text(value, "csv")
    if isinstance(value, np.bool_):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else int(value)
