"""How a plot shows a measurement: the colour is the backend, the marker the precision, the line style the scope.

A backend has the same colour in every plot of every report, whatever else was measured.
"""

from collections.abc import Sequence

from ...core.plot_colours import BLUE, BROWN, GREEN, GREY, MAGENTA, ORANGE, PINK, VIOLET
from ...core.web_page import escaped
from ..config import SCOPES, Scope
from ..measure.cell import Cell

COLOURS = {
    "torch": ORANGE,
    "onnx": BLUE,
    "openvino": VIOLET,
    "trt": GREEN,
    "torch.compile": PINK,
    "plain loop": GREY,
    "rounded": BROWN,
}
OTHER_COLOUR = MAGENTA
MARKERS = {"fp32": "o", "fp16": "s", "bf16": "^", "int8": "D"}
OTHER_MARKER = "v"
STYLES: dict[Scope, str] = {"sync": "-", "compute": "--", "stream": "-.", "files": ":"}
SHAPES = {
    "o": "<circle cx=8 cy=6 r=4.5 />",
    "s": "<path d='M4 2h8v8h-8z'/>",
    "^": "<path d='M8 1l5 9.5h-10z'/>",
    "D": "<path d='M8 .5l5.5 5.5-5.5 5.5-5.5-5.5z'/>",
    "v": "<path d='M8 11l5-9.5h-10z'/>",
}
"""The markers as parts of an SVG of 16 x 12."""
DASHES: dict[Scope, str] = {"sync": "", "compute": "6 3", "stream": "7 2 1.5 2", "files": "1.5 2"}


def split_label(label: str) -> tuple[str, str]:
    """The backend and the precision of a label from `cell.label_of`."""
    backend, _, precision = label.rpartition(" ")
    return (backend, precision) if backend and precision in MARKERS else (label, "fp32")


def colour_of(backend: str) -> str:
    """The colour of a backend, by its name without the precision."""
    return COLOURS.get(backend, OTHER_COLOUR)


def marker_of(precision: str) -> str:
    """matplotlib's marker of a precision."""
    return MARKERS.get(precision, OTHER_MARKER)


def legend_html(labels: Sequence[str], scopes: Sequence[Scope] = ()) -> str:
    """The legend below a plot as HTML, which breaks its lines where the page is narrow.

    Precisions and scopes are listed only where there are several of them.
    """
    parts = [split_label(label) for label in labels]
    backends = list(dict.fromkeys(backend for backend, _ in parts))
    precisions = list(dict.fromkeys(precision for _, precision in parts))
    groups = [[_entry(SHAPES["o"], backend, fill=colour_of(backend)) for backend in backends]]
    if set(precisions) != {"fp32"}:
        groups.append([_entry(SHAPES[marker_of(precision)], precision) for precision in precisions])
    if len(scopes) > 1:
        groups.append([_line(DASHES[scope], SCOPES[scope].name) for scope in SCOPES if scope in scopes])
    return "".join(f"<span class=legend>{''.join(group)}</span>" for group in groups)


def _entry(shape: str, name: str, *, fill: str = "currentColor") -> str:
    return f"<span><svg viewBox='0 0 16 12' fill='{fill}'>{shape}</svg>{escaped(name)}</span>"


def _line(dashes: str, name: str) -> str:
    path = f"<path d='M0 6h28' stroke='currentColor' stroke-width=2 stroke-dasharray='{dashes}'/>"
    return f"<span><svg class=wide viewBox='0 0 28 12'>{path}</svg>{escaped(name)}</span>"


def lines_of(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of each line of a plot, by batch size: one line per backend, precision and scope."""
    lines: dict[tuple[str, Scope], list[Cell]] = {}
    for cell in cells:
        lines.setdefault((cell.label, cell.scope), []).append(cell)
    return [sorted(line, key=lambda cell: cell.batch) for line in lines.values()]
