"""Answers as Parquet, through pyarrow: file, label and error as text, index as int32, probability as double."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..core.errors import UsageError
from .output import columns

ROWS_AT_ONCE = 1 << 15
"""Of a row group; bounds the memory."""


def check_parquet() -> None:
    """Raises UsageError when pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UsageError("--format parquet: pyarrow is not installed; pip install pyarrow") from error


def parquet_from_jsonl(rows: Path, target: IO[bytes], *, top_k: int) -> None:
    """Write rows of JSON lines as a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    types: dict[str, Any] = {"index": pa.int32(), "probability": pa.float64()}
    schema = pa.schema([(name, types.get(name.split("_")[0], pa.string())) for name in columns(top_k)])
    with parquet.ParquetWriter(target, schema) as writer, rows.open(encoding="utf-8") as file:
        for group in _groups(file):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _groups(file: IO[str]) -> Iterator[list[dict[str, Any]]]:
    while group := [json.loads(line) for line in itertools.islice(file, ROWS_AT_ONCE)]:
        yield group
