"""Answers as text: a table for people, CSV and JSON lines for programs. Every format is written row by row.

An answer is one line, whatever its name holds. File names come from strangers, so no format passes on what steers a
terminal, and CSV nothing that a spreadsheet would run:

* bytes that are no UTF-8 are shown as \\xff in every format;
* characters that are not printable are shown as escapes (\\n, \\x1b, \\u202e) in tables and CSV, and are JSON's own
  escapes in JSON lines, where a parser gives them back;
* in CSV a text that begins like a formula (= + - @, after spaces too) has an apostrophe before it.
"""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ...core.errors import RtkError
from ...core.text import decodable, visible
from ..classify import Answer
from .formats import TextFormat

WIDTH_ROWS = 1_000
"""Rows that a table looks at to find the width of its columns."""
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet may run, in half and full width."""


def columns(top_k: int) -> list[str]:
    """Names of a row's fields: file, label, index, probability, error, then the other guesses."""
    others = itertools.chain.from_iterable(
        (f"label_{rank}", f"index_{rank}", f"probability_{rank}") for rank in range(2, top_k + 1)
    )
    return ["file", "label", "index", "probability", "error", *others]


def row(answer: Answer, top_k: int) -> dict[str, Any]:
    """One answer by column; None where there is nothing."""
    fields: dict[str, Any] = dict.fromkeys(columns(top_k))
    fields |= {"file": decodable(answer.file), "error": decodable(answer.error) or None}
    for rank, guess in enumerate(answer.guesses, 1):
        suffix = "" if rank == 1 else f"_{rank}"
        fields |= {f"label{suffix}": guess.label, f"index{suffix}": guess.index}
        fields[f"probability{suffix}"] = round(guess.probability, 6)
    return fields


def lines(answers: Iterable[Answer], format_: TextFormat, *, top_k: int, heading: bool = True) -> Iterator[str]:
    """The answers as lines of text, each with its newline, as soon as they are there; CSV's first is the heading."""
    writer: Callable[[Iterable[Answer], int], Iterator[str]] = {"table": _table, "csv": _csv, "jsonl": _jsonl}[format_]
    if format_ == "csv" and heading:
        yield ",".join(columns(top_k)) + "\n"
    yield from writer(answers, top_k)


def file_of_line(line: str, format_: TextFormat) -> tuple[str, bool]:
    """The file in a line of CSV or JSON lines, as `file_text` has it, and whether it could not be read.

    Raises ValueError, which csv.Error and json's errors are turned into, when it is no such line.
    """
    try:
        if format_ == "jsonl":
            fields = json.loads(line)
            return str(fields["file"]), bool(fields["error"])
        cells = next(csv.reader([line], strict=True))
        return cells[0], bool(cells[columns(1).index("error")])
    except (csv.Error, KeyError, IndexError, TypeError, StopIteration) as error:
        raise ValueError(f"not a row: {line[:80]!r}") from error


def file_text(name: str, format_: TextFormat) -> str:
    """A file's name as it is found again in a line of this format."""
    return decodable(name) if format_ == "jsonl" else _cell(decodable(name))


def _csv(answers: Iterable[Answer], top_k: int) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for answer in answers:
        writer.writerow(_cell(value) if isinstance(value, str) else value for value in row(answer, top_k).values())
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _jsonl(answers: Iterable[Answer], top_k: int) -> Iterator[str]:
    for answer in answers:
        text = json.dumps(row(answer, top_k), ensure_ascii=False)
        if not text.isprintable():  # what is not, and json has left as it is, can only stand within a string
            text = "".join(c if c.isprintable() else _json_escape(c) for c in text)
        yield text + "\n"


def _json_escape(character: str) -> str:
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def _table(answers: Iterable[Answer], top_k: int) -> Iterator[str]:
    iterator = iter(answers)
    first: list[Answer] = []
    stopped: BaseException | None = None
    try:
        first.extend(itertools.islice(iterator, WIDTH_ROWS))
    except (RtkError, KeyboardInterrupt) as error:  # what was answered before is shown first
        stopped = error
    file_width = max((len(visible(answer.file)) for answer in first), default=4)
    label_width = max((len(visible(guess.label)) for answer in first for guess in answer.guesses), default=5)
    for answer in itertools.chain(first, () if stopped else iterator):
        guesses = "  ".join(
            f"{visible(guess.label):<{label_width}}  {guess.probability:7.2%}" for guess in answer.guesses
        )
        yield f"{visible(answer.file):<{file_width}}  {guesses or 'not classified: ' + visible(answer.error)}\n"
    if stopped:
        raise stopped


def _cell(text: str) -> str:
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith(FORMULA) else shown
