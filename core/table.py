"""Tables as text in columns: the one way in which rtk prints them."""

from collections.abc import Mapping, Sequence


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
