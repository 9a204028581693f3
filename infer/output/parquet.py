"""Answers as Parquet, written by pyarrow: file, label and error as text, index as int32, probability as double."""

import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ...core.errors import OutputError, UsageError
from ...core.files import make_folder, whole_file
from ..classify import Answer, columns

_log = logging.getLogger(__name__)

ROWS_PER_GROUP = 1 << 15
"""Rows of a row group and of a shard; bounds the memory."""
Row = dict[str, Any]


def check_parquet() -> None:
    """Raise UsageError if pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UsageError("--format parquet: pyarrow is not installed; pip install pyarrow") from error


def parquet_from_jsonl(rows: Path, target: IO[bytes], *, top_k: int) -> None:
    """Convert rows of JSON lines to a Parquet file."""
    with rows.open(encoding="utf-8") as file:
        _write(target, _groups(map(json.loads, file)), top_k)


def write_shards(answers: Iterable[Answer], folder: Path, *, top_k: int) -> int:
    """Write the answers to part-00000.parquet and so on in `folder`, and return their number.

    Each shard is written whole or not at all. The folder is named FOLDER.part until all shards are complete; if the run
    stops early, it keeps that name and a warning is logged. Raises OutputError before the first answer if the folder
    is not empty.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(f"{folder}: exists and is not an empty folder; choose another")
    whole = Path(os.path.realpath(folder))
    part = make_folder(whole.with_name(f"{whole.name}.part"))
    for old in part.glob("part-*.parquet"):
        old.unlink()
    written = 0
    try:
        for number, group in enumerate(_groups(answer.to_dict(top_k) for answer in answers)):
            with whole_file(part / f"part-{number:05}.parquet") as file:
                _write(file, [group], top_k)
            written += len(group)
    except BaseException:
        if written:
            _log.warning(f"{written:,} answers are in {part}")
        raise
    try:
        part.replace(whole)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written: {error.strerror or error}; the shards are in {part}"
        ) from error
    return written


def _write(target: IO[bytes], groups: Iterable[list[Row]], top_k: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    types: dict[str, Any] = {"index": pa.int32(), "probability": pa.float64()}
    schema = pa.schema([(name, types.get(name.split("_")[0], pa.string())) for name in columns(top_k)])
    with parquet.ParquetWriter(target, schema) as writer:
        for group in groups:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Split rows into groups of ROWS_PER_GROUP; an error or Ctrl-C is raised after the rows before it."""
    stopped: BaseException | None = None
    while stopped is None:
        group: list[Row] = []
        try:
            for one in itertools.islice(rows, ROWS_PER_GROUP):
                group.append(one)  # noqa: PERF402 - one by one, so that the group keeps its rows when the next one fails
        except BaseException as error:
            stopped = error
        if not group:
            break
        yield group
    if stopped is not None:
        raise stopped
