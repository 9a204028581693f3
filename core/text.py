"""Text for people: names of files that are safe to print, and tables."""

from collections.abc import Mapping, Sequence


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
