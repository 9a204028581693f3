"""Text for people: names that are safe to print, wrapped lines, and tables."""

import itertools
import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

WIDEST = 120
"""Columns of text at most: longer lines are hard to read."""
WITHOUT_TERMINAL = 80
"""Columns of text in a file or a pipe, unless COLUMNS says otherwise."""
NAME_WIDTH = 14
"""Columns for the names in an outline."""


def decodable(name: str) -> str:
    """A file name as text that can be encoded: bytes that are not UTF-8 become escapes."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def visible(name: str) -> str:
    """A name that cannot control a terminal: characters that are not printable become escapes."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decodable(name))


def one_line(words: object) -> str:
    """The text of an error or a message, with each run of white space replaced by one space."""
    return " ".join(str(words).split())


def first_few(names: Collection[str], count: int = 3) -> str:
    """The first of some names with commas between them; `...` stands for the others."""
    return ", ".join([*itertools.islice(names, count), *(["..."] if len(names) > count else [])])


def images_text(count: int) -> str:
    """A number of images in words."""
    return f"{count:,} {'image' if count == 1 else 'images'}"


def terminal_width() -> int:
    """Columns of the terminal, at most WIDEST; COLUMNS overrides the terminal, and without both it is 80."""
    return min(shutil.get_terminal_size((WITHOUT_TERMINAL, 24)).columns, WIDEST)


def wrapped(text: str, *, first: str = "", rest: str = "  ") -> str:
    """The text in lines of at most `terminal_width()` columns.

    `first` starts the first line, `rest` starts every other line. A word that is longer than a line, such as a path,
    stays whole, so that it can be copied. A first word that only fits without `first` moves to the next line.
    """
    width, first_word = terminal_width(), len((text.split() or [""])[0])
    if len(rest) + first_word <= width < len(first) + first_word:
        return f"{first.rstrip()}\n{wrapped(text, first=rest, rest=rest)}"
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines) or first.rstrip()


def outline(facts: Mapping[str, object]) -> str:
    """Names and their values for people, long values wrapped. What a mapping holds follows its name, indented."""
    lines = []
    for name, value in facts.items():
        if _has_parts(value):
            lines += [visible(name), *_parts(value, "  ")]
        else:
            lines.append(wrapped(_value(value), first=f"{visible(name):{NAME_WIDTH - 1}} ", rest=" " * NAME_WIDTH))
    return "\n".join(lines)


def _has_parts(value: object) -> bool:
    """True for a mapping, and for a list that holds one."""
    return isinstance(value, Mapping) or (isinstance(value, list | tuple) and any(map(_has_parts, value)))


def _parts(value: Any, indent: str) -> list[str]:
    lines = []
    for name, part in value.items() if isinstance(value, Mapping) else enumerate(value, 1):
        start = f"{indent}{visible(str(name))}: "
        if _has_parts(part):
            lines += [start.rstrip(), *_parts(part, indent + "  ")]
        else:
            lines.append(wrapped(_value(part), first=start, rest=indent + "    "))
    return lines


def _value(value: object) -> str:
    """One value of JSON for people."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.6g}"
        case None:
            return "none"
        case list() | tuple():
            return ", ".join(map(_value, value)) or "none"
    return visible(one_line(value))


def text_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the same keys as aligned columns under their names: numbers to the right, thousands separated.

    `-` among numbers, for a figure that is undefined, is to the right as well.
    """
    if not rows:
        return "(none)"
    names = list(rows[0])
    cells = [[f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for name in names] for row in rows]
    columns = [[line[column] for line in cells if line[column] != "-"] for column in range(len(names))]
    right = [bool(some) and all(cell[:1].isdigit() for cell in some) for some in columns]
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


def fitting_table(rows: Sequence[Mapping[str, object]]) -> str:
    """A text table if it fits the terminal; otherwise an outline for each row, without its empty values."""
    table = text_table(rows)
    if max(map(len, table.splitlines())) <= terminal_width():
        return table
    return "\n\n".join(outline({name: value for name, value in row.items() if value != ""}) for row in rows)


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the same keys as a Markdown table."""
    if not rows:
        return "(none)"
    names = list(rows[0])
    rule = ["---", *["---:"] * (len(names) - 1)]
    lines = [names, rule, *([str(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
