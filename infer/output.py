"""Answers as text: a table for people, CSV and JSON lines for programs. Every format is written row by row."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .classify import Answer
from .formats import Format

WIDTH_ROWS = 1_000
"""Rows that a table looks at to find the width of its columns."""


def columns(top_k: int) -> list[str]:
    """Names of a row's fields: file, label, index, probability, error, then the other guesses."""
    others = itertools.chain.from_iterable(
        (f"label_{rank}", f"index_{rank}", f"probability_{rank}") for rank in range(2, top_k + 1)
    )
    return ["file", "label", "index", "probability", "error", *others]


def row(answer: Answer, top_k: int) -> dict[str, Any]:
    """One answer by column; None where there is nothing."""
    fields: dict[str, Any] = dict.fromkeys(columns(top_k))
    fields |= {"file": answer.file, "error": answer.error or None}
    for rank, guess in enumerate(answer.guesses, 1):
        suffix = "" if rank == 1 else f"_{rank}"
        fields |= {f"label{suffix}": guess.label, f"index{suffix}": guess.index}
        fields[f"probability{suffix}"] = round(guess.probability, 6)
    return fields


def lines(answers: Iterable[Answer], format_: Format, *, top_k: int) -> Iterator[str]:
    """The answers as lines of text, each with its newline, as soon as they are there."""
    writer: Callable[[Iterable[Answer], int], Iterator[str]] = {"table": _table, "csv": _csv, "jsonl": _jsonl}[format_]
    return writer(answers, top_k)


def _csv(answers: Iterable[Answer], top_k: int) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns(top_k), lineterminator="\n")

    def taken() -> str:
        text = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return text

    writer.writeheader()
    yield taken()
    for answer in answers:
        writer.writerow({**row(answer, top_k), "file": _printable(answer.file)})
        yield taken()


def _jsonl(answers: Iterable[Answer], top_k: int) -> Iterator[str]:
    for answer in answers:
        yield json.dumps({**row(answer, top_k), "file": _printable(answer.file)}, ensure_ascii=False) + "\n"


def _table(answers: Iterable[Answer], top_k: int) -> Iterator[str]:
    iterator = iter(answers)
    first = list(itertools.islice(iterator, WIDTH_ROWS))
    file_width = max((len(_visible(answer.file)) for answer in first), default=4)
    label_width = max((len(guess.label) for answer in first for guess in answer.guesses), default=5)
    for answer in itertools.chain(first, iterator):
        guesses = "  ".join(f"{guess.label:<{label_width}}  {guess.probability:7.2%}" for guess in answer.guesses)
        yield f"{_visible(answer.file):<{file_width}}  {guesses or 'not classified: ' + _visible(answer.error)}\n"


def _printable(name: str) -> str:
    """A file name as text that can be encoded: bytes that are no UTF-8 become replacement characters."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _visible(name: str) -> str:
    """A name that cannot steer a terminal: control characters are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in _printable(name))
