"""The plots of an evaluation: confusion matrix, reliability diagram, and the figures of each class.

K classes. core/svg_plot.py makes SVG of them, in the text colour of the page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...core.plot_colours import BLUE, ORANGE
from ...core.svg_plot import INK, Draw, shortened
from ...core.text import visible
from .result import Calibration, ClassFigures, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RIGHT, WRONG = BLUE, ORANGE
"""Colours of the confusion matrix."""
WITH_TEMPERATURE, WITHOUT = BLUE, ORANGE
"""Colours of the reliability diagram."""
RECALL, PRECISION = BLUE, ORANGE
"""Colours of the figures of each class."""
MOST_OPAQUE = 0.65
"""Of a cell, so that numbers in the page's text colour stay readable, on a white and on a dark page."""
MOST_NUMBERS = 20
"""Classes up to which the cells show their counts."""
MOST_CELLS = 200
"""Rows and columns of the picture at most; with more classes, a cell stands for several."""
MOST_LABELS = 40
NAME_LENGTH = 16
MOST_BARS = 40
"""Classes in the plot of their figures at most: the worst ones."""
POINTS = 72


@dataclass(frozen=True)
class Picture:
    """What to draw, and how large."""

    draw: Draw
    size_inches: tuple[float, float]
    names: Sequence[str] = ()
    """The classes in it, for the fonts."""
    least_px: int = 0
    """The width below which its text is too small to read."""


def confusion(result: Evaluation) -> Picture:
    """The confusion matrix: a row for each label, a column for each prediction.

    The opacity grows with the cube root of the share of the label's images, so that rare mistakes are seen too.
    """
    counts_KK = np.array(result.confusion, np.int64)
    per_cell = classes_per_cell(len(counts_KK))
    colours = _cell_colours(counts_KK, per_cell)
    size = len(colours)
    step = math.ceil(size / MOST_LABELS)
    shown = range(0, size, step)
    names = [visible(result.classes[k * per_cell].name) for k in shown]
    numbers = len(counts_KK) <= MOST_NUMBERS
    longest = len(f"{counts_KK.max():,}")
    cell_inches = max(0.32, (5.5 * longest + 8) / POINTS) if numbers else 6.5 / size
    label_inches = 0.3 + min(NAME_LENGTH, max(map(len, names))) * 5.5 / POINTS
    side = max(2.0, size * cell_inches) + label_inches

    def draw(axes: "Axes") -> None:
        axes.imshow(colours, interpolation="none", gid="data-confusion")
        labels = [shortened(name, NAME_LENGTH) for name in names]
        axes.set_xticks(list(shown), labels, rotation=90, fontsize=8)
        axes.set_yticks(list(shown), labels, fontsize=8)
        axes.set(xlabel="prediction", ylabel="label")
        axes.tick_params(length=2)
        for row, column in zip(*np.nonzero(counts_KK), strict=True) if numbers else ():
            text = f"{counts_KK[row, column]:,}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8)

    return Picture(draw, (side, side), names, least_px=round(side * 80) if numbers else 520)


def classes_per_cell(classes: int) -> int:
    """How many classes share a row and a column of the confusion matrix's picture."""
    return math.ceil(classes / MOST_CELLS)


def opacity(share: float) -> float:
    """The opacity of a cell with this share of its label's images."""
    return MOST_OPAQUE * math.cbrt(share)


def _cell_colours(counts_KK: NDArray[np.int64], per_cell: int) -> NDArray[np.float64]:
    """Red, green, blue and opacity of each cell. A cell of several classes has the largest share of wrong answers in
    it, and on the diagonal the mean share of right ones."""
    from matplotlib.colors import to_rgb

    support_K1 = np.maximum(1, counts_KK.sum(axis=1, keepdims=True))
    shares_KK = counts_KK / support_K1
    right_K = shares_KK.diagonal()
    starts = np.arange(0, len(counts_KK), per_cell)
    cells = np.maximum.reduceat(np.maximum.reduceat(shares_KK, starts, axis=0), starts, axis=1)
    diagonal = np.arange(len(starts))
    cells[diagonal, diagonal] = np.add.reduceat(right_K, starts) / np.diff([*starts, len(counts_KK)])
    colours = np.empty((*cells.shape, 4))
    colours[..., :3] = to_rgb(WRONG)
    colours[diagonal, diagonal, :3] = to_rgb(RIGHT)
    colours[..., 3] = MOST_OPAQUE * np.cbrt(cells)
    return colours


def reliability(after: Calibration, before: Calibration | None) -> Picture:
    """Accuracy over confidence, bin by bin, with the diagonal of perfect calibration; the counts stand on top."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.5, linestyle="--", linewidth=1, gid="data-reliability-diagonal")
        filled = [one for one in after.bins if one.images]
        axes.bar(
            [(one.low + one.high) / 2 for one in filled],
            [one.accuracy or 0 for one in filled],
            width=[one.high - one.low for one in filled],
            color=WITH_TEMPERATURE,
            alpha=0.25,
            edgecolor=WITH_TEMPERATURE,
        )
        if before:
            _points(axes, before, colour=WITHOUT, marker="s", style=":", gid="data-reliability-before")
        _points(axes, after, colour=WITH_TEMPERATURE, marker="o", style="-", gid="data-reliability-after")
        axes.set(xlabel="confidence", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1))
        axes.set_yticks([0.2, 0.4, 0.6, 0.8, 1.0])  # the 0 of the other axis stands for both
        top = axes.secondary_xaxis("top")
        middles = [(one.low + one.high) / 2 for one in filled]
        top.set_xticks(middles, [f"{one.images:,}" for one in filled], rotation=90, fontsize=8)
        top.set_xlabel("images in each bin", fontsize=8)

    return Picture(draw, (4.6, 4.6))


def _points(axes: "Axes", one: Calibration, *, colour: str, marker: str, style: str, gid: str) -> None:
    filled = [each for each in one.bins if each.images and each.confidence is not None]
    axes.plot(
        [each.confidence or 0 for each in filled],
        [each.accuracy or 0 for each in filled],
        color=colour,
        marker=marker,
        linestyle=style,
        clip_on=False,
        gid=gid,
    )


def worst_first(classes: Sequence[ClassFigures]) -> list[ClassFigures]:
    """The classes that have images, from the lowest F1 to the highest."""
    return sorted((one for one in classes if one.support), key=lambda one: 1.0 if one.f1 is None else one.f1)


def class_bars(classes: Sequence[ClassFigures]) -> Picture:
    """Recall and precision of each class, one bar above the other."""
    names = [visible(one.name) for one in classes]

    def draw(axes: "Axes") -> None:
        places = np.arange(len(classes))
        for offset, colour, key, shares in (
            (-0.19, RECALL, "recall", [one.recall for one in classes]),
            (0.19, PRECISION, "precision", [one.precision for one in classes]),
        ):
            percent = [100 * (share or 0) for share in shares]
            bars = axes.barh(places + offset, percent, height=0.36, color=colour)
            bars[0].set_gid(f"data-classes-{key}")
        axes.set_yticks(list(places), [shortened(name, NAME_LENGTH) for name in names], fontsize=8)
        axes.set(xlabel="%", xlim=(0, 100), ylim=(len(classes) - 0.4, -0.6))

    return Picture(draw, (5.0, 0.9 + 0.26 * len(classes)), names)
