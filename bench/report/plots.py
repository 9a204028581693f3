"""The plots of a report; core/svg_plot.py makes SVG of them, and series.py has their colours, markers and line styles.

Every series is a group with the id `data-PLOT-LABEL`, so that a test can find it in a browser.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.svg_plot import INK, Draw, shortened
from ..config import SCOPES
from ..measure.cell import Cell
from ..parity.compare import Parity
from .answer import best_cell
from .series import STYLES, colour_of, lines_of, marker_of, split_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL_LENGTH = 24
"""Characters of a backend's name in the plot of changes."""


def throughput(cells: Sequence[Cell]) -> Draw:
    """Images per second over batch size, one line per backend, precision and scope."""

    def draw(axes: "Axes") -> None:
        for line in lines_of(cells):
            low, high = np.array([np.percentile(cell.round_rates, (25, 75)) for cell in line]).T
            batches = [cell.batch for cell in line]
            axes.vlines(batches, low, high, color=colour_of(line[0].backend))
            _line(axes, batches, [cell.images_per_s for cell in line], line, cells, plot="throughput")
        axes.set(xlabel="batch size", ylabel="images per second", xscale="log", yscale="log")
        batches = sorted({cell.batch for cell in cells})
        axes.set_xticks(batches, [f"{batch:,}" for batch in batches])
        axes.minorticks_off()

    return draw


def latency(cells: Sequence[Cell]) -> Draw:
    """Median and 99th percentile of the latency over images per second, one point per batch size."""

    def draw(axes: "Axes") -> None:
        for line in lines_of(cells):
            rates = np.array([cell.images_per_s for cell in line])
            median, high = ([cell.percentile_ms(percent) for cell in line] for percent in (50, 99))
            _line(axes, rates, median, line, cells, plot="latency")
            axes.vlines(rates, median, high, color=colour_of(line[0].backend), linestyles=":")
        axes.set(xlabel="images per second", ylabel="milliseconds", xscale="log", yscale="log")

    return draw


def accuracy(cells: Sequence[Cell], parity: Sequence[Parity]) -> Draw:
    """Accuracy over each backend's highest throughput (see `accuracy_points`), with the Pareto front."""
    points = accuracy_points(cells, parity)

    def draw(axes: "Axes") -> None:
        front = pareto(points)
        for name, (rate, share) in points.items():
            backend, precision = split_label(name)
            axes.plot(
                rate,
                100 * share,
                marker_of(precision),
                color=colour_of(backend),
                label=name,
                gid=f"data-accuracy-{_id(name)}",
            )
        steps = sorted(points[name] for name in front)
        axes.plot(
            [rate for rate, _ in steps],
            [100 * share for _, share in steps],
            color=INK,
            alpha=0.5,
            zorder=0,
            gid="data-accuracy-front",
        )
        axes.set(xlabel="images per second", ylabel="test accuracy, %", xscale="log")
        axes.margins(0.15)
        axes.ticklabel_format(axis="y", useOffset=False)

    return draw


def accuracy_points(cells: Sequence[Cell], parity: Sequence[Parity]) -> dict[str, tuple[float, float]]:
    """Each backend's highest images per second, host to host where measured, and its share of right answers."""
    points = {}
    for one in parity:
        best = best_cell(cells, one.candidate)
        if best:
            points[one.candidate] = (best.images_per_s, one.candidate_correct / one.images)
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


CHANGES = {"lost": 1.0, "won": 0.6, "otherwise": 0.3}
"""Opacity of the parts of a bar: right in the reference alone, in the candidate alone, wrong in both."""


def changes(parity: Sequence[Parity]) -> Draw:
    """Answers that differ from the reference's, as a bar below its backend's name: lost, won, or wrong in both."""

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        for row, one in enumerate(parity):
            counts = {"lost": one.lost, "won": one.won, "otherwise": one.changed - one.lost - one.won}
            left, colour = 0, colour_of(split_label(one.candidate)[0])
            for kind, count in counts.items():
                axes.barh(row, count, left=left, height=0.4, color=colour, alpha=CHANGES[kind])
                left += count
            text = f"{shortened(one.candidate, LABEL_LENGTH)}: {one.changed:,} of {one.images:,}"
            text += f" (-{one.lost:,} +{one.won:,}), error {one.relative_error:.1e}"
            at = (0.01, row - 0.28)
            axes.text(
                *at,
                text,
                transform=axes.get_yaxis_transform(),
                va="bottom",
                fontsize="small",
                gid=f"data-parity-{_id(one.candidate)}",
            )
        axes.set(xlabel="answers that changed", yticks=[])
        axes.set_xlim(0, max(1.0, 1.05 * max(one.changed for one in parity)))
        axes.set_ylim(len(parity) - 0.6, -0.9)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")

    return draw


def changes_size(parity: Sequence[Parity]) -> tuple[float, float]:
    """The size of the plot of changes, in inches."""
    return 5.0, 0.8 + 0.48 * len(parity)


def _line(axes: "Axes", x: Any, y: Any, line: Sequence[Cell], cells: Sequence[Cell], *, plot: str) -> None:
    first = line[0]
    several = len({cell.scope for cell in cells}) > 1
    name = f"{first.label}, {SCOPES[first.scope].name}" if several else first.label
    axes.plot(
        x,
        y,
        color=colour_of(first.backend),
        linestyle=STYLES[first.scope],
        marker=marker_of(first.precision),
        label=name,
        gid=f"data-{plot}-{_id(name)}",
    )


def _id(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
