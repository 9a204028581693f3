"""The README's picture: images per second of every backend over the batch size, from a kept report."""

from pathlib import Path
from textwrap import fill

import numpy as np

from ..bench.report.plots import throughput
from ..bench.report.report import Report
from ..core.environment import use_writable_matplotlib_folder
from ..core.files import make_folder, whole_file
from ..core.svg_plot import tidy_ticks

SIZE_INCHES, DPI = (7.2, 4.2), 130


def write_picture(report: Report, path: Path) -> None:
    """Draw the report's throughput into a PNG file, on white, so that it is readable on a dark page too."""
    use_writable_matplotlib_folder()
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    throughput(report.cells)(axes)
    axes.set_title(fill(f"{report.model.name} on {report.machine.summary}", 60), fontsize="medium")
    axes.grid(alpha=0.3)
    lines = sorted(axes.get_lines(), key=lambda line: float(np.asarray(line.get_ydata())[-1]), reverse=True)
    figure.legend(handles=lines, loc="outside right center", frameon=False)  # in the order in which the lines end
    tidy_ticks(axes)
    make_folder(path.parent)
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
