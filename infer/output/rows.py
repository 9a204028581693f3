"""Answers as text: a table for people; CSV, TSV, JSON and JSON lines for programs. Rows are written one by one.

File names and labels are untrusted. No format lets them control a terminal, start a new line, or run in a spreadsheet:

* bytes that are not UTF-8 become \\xff in every format;
* characters that are not printable become escapes (\\n, \\x1b, \\u202e) in tables, CSV and TSV; JSON uses its own
  escapes, so that a parser restores the characters;
* in CSV and TSV, a text that begins like a formula (= + - @, also after spaces) gets an apostrophe in front.
"""

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator

from ...core.errors import RtkError
from ...core.json_text import json_text
from ...core.text import decodable, visible
from ..classify import Answer, columns
from .formats import RowFormat, TextFormat

ROWS_MEASURED = 1_000
"""The widths of a table's columns come from this many rows."""
TABLE_COLUMNS = 80
"""Predictions that do not fit into this many columns go to further lines below."""
DELIMITERS = {"csv": ",", "tsv": "\t"}
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of what a spreadsheet may run, in half and full width."""


def lines(
    answers: Iterable[Answer], format_: TextFormat, *, top_k: int, with_heading: bool = True, mark: bool = False
) -> Iterator[str]:
    """Yield the answers as lines of text with their newlines, as they arrive.

    `with_heading`: begin with the line that `heading` returns. `mark`: see there.
    """
    if with_heading and (first := heading(format_, top_k, mark=mark)):
        yield first
    match format_:
        case "csv" | "tsv":
            yield from _cells(answers, DELIMITERS[format_], top_k)
        case "jsonl":
            yield from (f"{_json(answer, top_k)}\n" for answer in answers)
        case "json":
            yield from _json_array(answers, top_k)
        case "table":
            yield from _table(answers, top_k)


def heading(format_: TextFormat, top_k: int, *, mark: bool = False) -> str:
    """The line with the names of the columns; empty for formats without one.

    `mark`: begin with the mark (BOM) by which Excel recognises UTF-8.
    """
    if format_ not in DELIMITERS:
        return ""
    return ("\ufeff" if mark else "") + DELIMITERS[format_].join(columns(top_k)) + "\n"


def file_of_line(line: str, format_: RowFormat) -> tuple[str, bool]:
    """The file name in a line of one of these formats, as `file_text` writes it, and whether the row has an error.

    Raises ValueError if the line is not such a row; errors of csv and json are converted to it.
    """
    try:
        if format_ == "jsonl":
            fields = json.loads(line)
            return str(fields["file"]), bool(fields["error"])
        cells = next(csv.reader([line], strict=True, delimiter=DELIMITERS[format_]))
        return cells[0], bool(cells[columns(1).index("error")])
    except (csv.Error, KeyError, IndexError, TypeError, StopIteration) as error:
        raise ValueError(f"not a row: {line[:80]!r}") from error


def file_text(name: str, format_: RowFormat) -> str:
    """A file name as it is written in a line of this format."""
    return decodable(name) if format_ == "jsonl" else _cell(decodable(name))


def _cells(answers: Iterable[Answer], delimiter: str, top_k: int) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n")
    for answer in answers:
        writer.writerow(_cell(value) if isinstance(value, str) else value for value in answer.to_dict(top_k).values())
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _cell(text: str) -> str:
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith(FORMULA) else shown


def _json(answer: Answer, top_k: int) -> str:
    text = json_text(answer.to_dict(top_k), ensure_ascii=False)
    if not text.isprintable():  # json escapes some of these characters; the others can only be inside strings
        text = "".join(c if c.isprintable() else _json_escape(c) for c in text)
    return text


def _json_array(answers: Iterable[Answer], top_k: int) -> Iterator[str]:
    """One array: the first line begins with its bracket, the last one ends with it."""
    start, waiting = "[", ""
    for answer in answers:
        if waiting:
            yield f"{start}{waiting},\n"
            start = " "
        waiting = _json(answer, top_k)
    yield f"{start}{waiting}]\n"


def _json_escape(character: str) -> str:
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def _table(answers: Iterable[Answer], top_k: int) -> Iterator[str]:
    iterator = iter(answers)
    first: list[Answer] = []
    stopped: BaseException | None = None
    try:
        first.extend(itertools.islice(iterator, ROWS_MEASURED))
    except (RtkError, KeyboardInterrupt) as error:  # show the answers so far, then raise
        stopped = error
    file_width = max((len(visible(answer.file)) for answer in first), default=4)
    label_width = max((len(visible(one.label)) for answer in first for one in answer.predictions), default=5)
    for answer in itertools.chain(first, () if stopped else iterator):
        yield from _table_lines(answer, file_width, label_width)
    if stopped:
        raise stopped


def _table_lines(answer: Answer, file_width: int, label_width: int) -> Iterator[str]:
    """The lines of one answer: file and predictions, or file and error."""
    file = f"{visible(answer.file):<{file_width}}"
    if not answer.predictions:
        yield f"{file}  not classified: {visible(answer.error)}\n"
        return
    cells = [f"  {visible(one.label):<{label_width}}  {one.probability:7.2%}" for one in answer.predictions]
    cell_width = label_width + len("    100.00%")
    per_line = max((TABLE_COLUMNS - file_width) // cell_width, 1)
    for start in range(0, len(cells), per_line):
        yield f"{file if start == 0 else ' ' * file_width}{''.join(cells[start : start + per_line])}\n"
