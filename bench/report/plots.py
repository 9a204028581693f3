"""The plots of a report, as SVG in the text colour of the page.

Every series is a group with the id `data-PLOT-LABEL`, so that a test can find it in a browser.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.environment import use_writable_matplotlib_folder
from ..config import SCOPES
from ..measure.cell import Cell
from ..parity.compare import Parity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#010203"
"""Placeholder for the page's text colour."""
COLOURS = ("#4c8bf5", "#e8710a", "#2ba84a", "#b0479c", "#c9a21a", "#6b7280", "#12a5b0", "#d6336c")
STYLES = {"sync": "-", "compute": "--", "stream": "-.", "files": ":"}
Draw = Callable[["Axes"], None]


def throughput(cells: Sequence[Cell]) -> Draw:
    """Images per second over batch size, one line per backend, precision and scope."""

    def draw(axes: "Axes") -> None:
        for colour, (name, line) in _coloured(cells):
            low, high = np.array([np.percentile(cell.round_rates, (25, 75)) for cell in line]).T
            rates = np.array([cell.images_per_s for cell in line])
            batches = [cell.batch for cell in line]
            axes.vlines(batches, low, high, color=colour)
            _line(axes, batches, rates, colour, name, line, plot="throughput")
        axes.set(xlabel="batch size", ylabel="images per second", xscale="log", yscale="log")
        batches = sorted({cell.batch for cell in cells})
        axes.set_xticks(batches, [f"{batch:,}" for batch in batches])
        axes.minorticks_off()

    return draw


def latency(cells: Sequence[Cell]) -> Draw:
    """Median and 99th percentile of the latency over images per second, one point per batch size."""

    def draw(axes: "Axes") -> None:
        for colour, (name, line) in _coloured(cells):
            rates = np.array([cell.images_per_s for cell in line])
            _line(axes, rates, [cell.percentile_ms(50) for cell in line], colour, name, line, plot="latency")
            axes.vlines(
                rates,
                [cell.percentile_ms(50) for cell in line],
                [cell.percentile_ms(99) for cell in line],
                color=colour,
                linestyles=":",
            )
        axes.set(xlabel="images per second", ylabel="milliseconds", xscale="log", yscale="log")

    return draw


def accuracy(cells: Sequence[Cell], parity: Sequence[Parity]) -> Draw:
    """Accuracy over each backend's highest throughput (see `accuracy_points`), with the Pareto front."""
    points = accuracy_points(cells, parity)

    def draw(axes: "Axes") -> None:
        front = pareto(points)
        for colour, (name, (rate, share)) in zip(_colours(len(points)), points.items(), strict=True):
            axes.plot(rate, 100 * share, "o", color=colour, label=name, gid=f"data-accuracy-{_id(name)}")
        steps = sorted(points[name] for name in front)
        axes.plot(
            [rate for rate, _ in steps],
            [100 * share for _, share in steps],
            color=INK,
            alpha=0.5,
            label="Pareto front",
            zorder=0,
            gid="data-accuracy-front",
        )
        axes.set(xlabel="images per second", ylabel="test accuracy, %", xscale="log")
        axes.margins(0.15)

    return draw


def accuracy_points(cells: Sequence[Cell], parity: Sequence[Parity]) -> dict[str, tuple[float, float]]:
    """Each backend's highest images per second, host to host where measured, and its share of right answers."""
    points = {}
    for one in parity:
        mine = [cell for cell in cells if cell.label == one.candidate]
        chosen = [cell for cell in mine if cell.scope in ("sync", "stream")] or mine
        if chosen:
            points[one.candidate] = (max(cell.images_per_s for cell in chosen), one.candidate_correct / one.images)
    return points


def pareto(points: dict[str, tuple[float, float]]) -> list[str]:
    """The points on the Pareto front: no other point is better in one value and at least as good in the other."""
    return [
        name
        for name, (rate, share) in points.items()
        if not any(
            other_rate >= rate and other_share >= share and (other_rate, other_share) != (rate, share)
            for other_rate, other_share in points.values()
        )
    ]


def changes(parity: Sequence[Parity]) -> Draw:
    """Answers that differ from the reference's: lost, won, or wrong in both."""

    def draw(axes: "Axes") -> None:
        names = [one.candidate for one in parity]
        left = np.zeros(len(parity))
        kinds = {
            "lost": ("#d6336c", [one.lost for one in parity]),
            "won": ("#2ba84a", [one.won for one in parity]),
            "otherwise": ("#6b7280", [one.changed - one.lost - one.won for one in parity]),
        }
        for kind, (colour, counts) in kinds.items():
            axes.barh(names, counts, left=left, color=colour, label=kind)
            left += counts
        for row, one in enumerate(parity):
            text = f" {one.changed:,} of {one.images:,}; error {one.relative_error:.1e}"
            axes.text(left[row], row, text, va="center", fontsize="small", gid=f"data-parity-{_id(one.candidate)}")
        axes.set(xlabel="answers that changed")
        axes.set_xlim(0, max(1.0, 2.2 * left.max()))
        axes.invert_yaxis()

    return draw


def svg_of(draw: Draw) -> str:
    """The drawing as an SVG element."""
    use_writable_matplotlib_folder()
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter, StrMethodFormatter

    ink: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    )
    with mpl.rc_context({**ink, "svg.fonttype": "none", "svg.hashsalt": "rtk", "font.family": "sans-serif"}):
        figure = Figure(figsize=(5, 4), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        draw(axes)
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_major_formatter().__class__ is LogFormatterSciNotation:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
                axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, which="both")
        figure.legend(loc="outside lower center", ncols=2, framealpha=0, fontsize="small")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    return drawing[drawing.index("<svg") :].replace(INK, "currentColor")


def _line(axes: "Axes", x: Any, y: Any, colour: str, name: str, line: Sequence[Cell], *, plot: str) -> None:
    axes.plot(
        x, y, color=colour, linestyle=STYLES[line[0].scope], marker="o", label=name, gid=f"data-{plot}-{_id(name)}"
    )


def _coloured(cells: Sequence[Cell]) -> list[tuple[str, tuple[str, list[Cell]]]]:
    """One colour per backend and precision; the line style tells the scopes apart."""
    lines: dict[str, list[Cell]] = {}
    scopes = {cell.scope for cell in cells}
    for cell in cells:
        name = cell.label if len(scopes) == 1 else f"{cell.label}, {SCOPES[cell.scope].name}"
        lines.setdefault(name, []).append(cell)
    labels = list(dict.fromkeys(cell.label for cell in cells))
    colour_of = dict(zip(labels, _colours(len(labels)), strict=True))
    return [
        (colour_of[line[0].label], (name, sorted(line, key=lambda cell: cell.batch))) for name, line in lines.items()
    ]


def _colours(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def _id(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
