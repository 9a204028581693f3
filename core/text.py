"""Text for people: names that are safe to print, wrapped lines, and tables."""

import shutil
import textwrap
from collections.abc import Mapping, Sequence

WIDEST = 120
"""Columns of text at most: longer lines are hard to read."""
WITHOUT_TERMINAL = 80
"""Columns of text in a file or a pipe, unless COLUMNS says otherwise."""


def decodable(name: str) -> str:
    """A file name as text that can be encoded: bytes that are no UTF-8 become escapes."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def visible(name: str) -> str:
    """A name that cannot steer a terminal: characters that are not printable are shown as escapes."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decodable(name))


def one_line(words: object) -> str:
    """The text of an error or a message with every run of white space as one space."""
    return " ".join(str(words).split())


def terminal_width() -> int:
    """Columns of the terminal, at most WIDEST; COLUMNS overrides the terminal, and without both it is 80."""
    return min(shutil.get_terminal_size((WITHOUT_TERMINAL, 24)).columns, WIDEST)


def wrapped(text: str, *, first: str = "", rest: str = "  ") -> str:
    """The text in lines of at most `terminal_width()` columns.

    `first` starts the first line, `rest` starts every other line. A word that is longer than a line, such as a path,
    stays whole, so that it can be copied.
    """
    lines = textwrap.wrap(
        text,
        terminal_width(),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines) or first.rstrip()


def text_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the same keys as aligned columns under their names; figures to the right, thousands separated."""
    if not rows:
        return "(none)"
    names = list(rows[0])
    cells = [[f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for name in names] for row in rows]
    right = [all(line[column][:1].isdigit() for line in cells) for column in range(len(names))]
    cells.insert(0, names)
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = (
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    )
    return "\n".join(lines)


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """The same for Markdown."""
    if not rows:
        return "(none)"
    names = list(rows[0])
    rule = ["---", *["---:"] * (len(names) - 1)]
    lines = [names, rule, *([str(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
