"""Plots for a page: SVG in the text colour of the page, whose labels stay inside the picture and off each other."""

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .environment import use_writable_matplotlib_folder
from .fonts import fonts_for, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

INK = "#010203"
"""Placeholder for the page's text colour."""
SIZE_INCHES = (5.0, 3.7)
LEAST_GAP = 7.0
"""Pixels between two neighbouring tick labels, at least."""
Draw = Callable[["Axes"], None]


def svg_of(
    draw: Draw, *, size_inches: tuple[float, float] = SIZE_INCHES, names: Sequence[str] = (), grid: bool = True
) -> str:
    """The drawing as an SVG element. `names`: texts of users in it, in any script."""
    use_writable_matplotlib_folder()
    with _ink(), fonts_for("".join(names)):
        from matplotlib.figure import Figure

        figure = Figure(figsize=size_inches, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        draw(axes)
        if grid:
            axes.grid(alpha=0.3, which="major")
            axes.set_axisbelow(True)
        tidy_ticks(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    return drawing[drawing.index("<svg") :].replace(INK, "currentColor")


@contextlib.contextmanager
def _ink() -> Iterator[None]:
    import matplotlib as mpl

    ink: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    )
    with mpl.rc_context({**ink, "svg.fonttype": "none", "svg.hashsalt": "rtk", "font.family": "sans-serif"}):
        yield


def tidy_ticks(axes: "Axes") -> None:
    """Give logarithmic axes round numbers, and take off each label that would run into the one before it."""
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if axis.get_scale() == "log" and not _has_own_ticks(axis):
            ticks = log_ticks(low, high)
            axis.set_ticks(ticks, labels=[f"{tick:,.10g}" if tick < 1 else f"{tick:,.12g}" for tick in ticks])
            axis.set_minor_locator(_no_ticks())
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    for axis in (axes.xaxis, axes.yaxis):
        _thin_out(axis, horizontal=axis is axes.xaxis)


def _has_own_ticks(axis: "Axis") -> bool:
    from matplotlib.ticker import FixedLocator

    return isinstance(axis.get_major_locator(), FixedLocator)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two limits: powers of ten, and as many others as a short range needs."""
    from matplotlib.ticker import MaxNLocator

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 4:
            return ticks
    if len(ticks) >= 3:
        return ticks
    evenly = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(f"{tick:.12g}") for tick in evenly if low <= tick <= high]


def _thin_out(axis: "Axis", *, horizontal: bool) -> None:
    """Blank the labels that are nearer than LEAST_GAP to the last one that stays."""
    low, high = sorted(axis.get_view_interval())
    room = 1e-9 * max(abs(low), abs(high))
    column = 0 if horizontal else 1
    shown = [
        tick
        for tick in axis.get_majorticklabels()
        if tick.get_text() and low - room <= tick.get_position()[column] <= high + room
    ]
    spans = []
    for tick in shown:
        box = tick.get_window_extent()
        spans.append((box.x0, box.x1) if horizontal else (box.y0, box.y1))
    gap = LEAST_GAP if horizontal else 0
    texts, last_end = {}, -math.inf
    for (start, end), tick in sorted(zip(spans, shown, strict=True), key=lambda pair: pair[0]):
        fits = start >= last_end + gap
        texts[float(tick.get_position()[column])] = tick.get_text() if fits else ""
        last_end = end if fits else last_end
    if not all(texts.values()):
        axis.set_ticks(list(texts), labels=list(texts.values()))


def shortened(text: str, length: int) -> str:
    """The text for a picture, with its middle left out where it is longer: two names often differ in their ends."""
    if len(text) > length:
        front = (length - 1) // 2
        text = f"{text[:front]}…{text[len(text) - (length - 1 - front) :]}"
    return plain_text(text)
