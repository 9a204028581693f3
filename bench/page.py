"""The report as one HTML page: no network, readable on a phone and in dark mode, the plots drawn into it."""

import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .measure import Cell
from .report import SCOPE, Report, parity_table, throughput_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#010203"
"""Stands for the page's text colour in the plots until they are inside the page."""
COLOURS = ("#4c8bf5", "#e8710a", "#2ba84a", "#b0479c", "#c9a21a", "#6b7280")

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --rule: #d6d9de; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #16181c; --rule: #3a3f47; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; } svg { width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--rule); text-align: right; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.scroll + .faint { margin-top: 2rem; } figcaption { margin-bottom: 1rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .9rem; } .faint { opacity: .75; }
"""


def page_of(report: Report) -> str:
    """The whole page as text."""
    measured = [cell for cell in report.cells if cell.rounds]
    title = f"{report.model.name}, {report.model.precision}"
    parts = [
        f"<h1>{_text(title)}</h1><p class=faint>{_text(report.machine.summary)}; {_text(report.date)}</p>",
        _list({**report.backends, **{name: f"not run: {why}" for name, why in report.unusable.items()}}),
        f"<h2>Parity</h2><p>Answers on {_text(report.dataset)}, image by image, against PyTorch fp32.</p>",
        _table(parity_table(report.parity)),
        f"<h2>Throughput and latency</h2><p>{_text(SCOPE[0].upper() + SCOPE[1:])}.</p>",
    ]
    if measured:
        parts.append(
            "<div class=plots>"
            + _figure("Throughput over batch size; bars span the middle half of the rounds.", _throughput, measured)
            + _figure("Latency of a call over throughput; each point is a batch size.", _latency, measured)
            + "</div>"
        )
    parts += [_table(throughput_table(report.cells)), _libraries(report)]
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{_text(title)}</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _throughput(axes: "Axes", cells: Sequence[Cell]) -> None:
    import numpy as np

    for colour, (name, line) in zip(COLOURS, _by_backend(cells).items(), strict=False):
        low, high = np.array([np.percentile(cell.round_rates, (25, 75)) for cell in line]).T
        rates = np.array([cell.images_per_s for cell in line])
        bars = np.clip(np.stack([rates - low, high - rates]), 0, None)
        axes.errorbar([cell.batch for cell in line], rates, yerr=bars, color=colour, marker="o", capsize=3, label=name)
    axes.set(xlabel="batch size", ylabel="images per second", xscale="log", yscale="log")
    batches = sorted({cell.batch for cell in cells})
    axes.set_xticks(batches, [f"{batch:,}" for batch in batches])
    axes.minorticks_off()


def _latency(axes: "Axes", cells: Sequence[Cell]) -> None:
    for colour, (name, line) in zip(COLOURS, _by_backend(cells).items(), strict=False):
        rates = [cell.images_per_s for cell in line]
        axes.plot(rates, [cell.percentile_ms(50) for cell in line], color=colour, marker="o", label=f"{name}, median")
        axes.plot(rates, [cell.percentile_ms(99) for cell in line], color=colour, linestyle=":", label=f"{name}, p99")
    axes.set(xlabel="images per second", ylabel="milliseconds", xscale="log", yscale="log")


def _by_backend(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    names = dict.fromkeys(cell.backend for cell in cells)
    return {name: sorted((c for c in cells if c.backend == name), key=lambda c: c.batch) for name in names}


def _figure(caption: str, draw: "Callable[[Axes, Sequence[Cell]], None]", cells: Sequence[Cell]) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter, StrMethodFormatter

    ink: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    )
    with mpl.rc_context({**ink, "svg.fonttype": "none", "svg.hashsalt": "rtk", "font.family": "sans-serif"}):
        figure = Figure(figsize=(5, 3.6), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        draw(axes, cells)
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_major_formatter().__class__ is LogFormatterSciNotation:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
                axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, which="both")
        axes.legend(framealpha=0, fontsize="small")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    return f"<figure>{drawing}<figcaption>{_text(caption)}</figcaption></figure>"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return "<p>Nothing was measured.</p>"
    heading = "".join(f"<th>{_text(name)}" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_text(value)}" for value in row.values()) for row in rows)
    return f"<div class=scroll><table><tr>{heading}{body}</table></div>"


def _list(items: Mapping[str, str]) -> str:
    return "<ul>" + "".join(f"<li><b>{_text(name)}</b>: {_text(words)}" for name, words in items.items()) + "</ul>"


def _libraries(report: Report) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    commit = f"; commit {machine.commit}" if machine.commit else ""
    return f"<p class=faint>Python {_text(machine.python)}, {_text(versions)}{_text(commit)}</p>"


def _text(words: str) -> str:
    return html.escape(words)
