"""The report as one HTML page with its plots: no network, no script, readable on a phone and in dark mode."""

import base64
from collections.abc import Mapping, Sequence

from ...core.data.datasets import Split
from ...core.data.images import encoded_image
from ...core.web_page import escaped, web_page
from ..parity.compare import Parity
from .notes import backend_texts, notes_on, preset_lines
from .plots import Draw, accuracy, accuracy_points, changes, latency, svg_of, throughput
from .report import Report
from .tables import parity_table, report_table

STYLE = """
.scroll { overflow-x: auto; } svg { width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.notes { font-size: .9rem; padding-left: 1.2rem; }
.plots { display: grid; gap: 1rem 2rem; margin-bottom: 2rem;
         grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); }
pre { white-space: pre-wrap; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1rem; }
.images img { width: 96px; image-rendering: pixelated; border: 1px solid var(--rule); }
"""


def page_of(report: Report) -> str:
    """The page as text."""
    title = f"{report.model.name}, {report.model.precision}"
    parts = [
        f"<h1>{escaped(title)}</h1><p class=faint>{escaped(report.machine.summary)}; {escaped(report.date)}</p>",
        _list(backend_texts(report)),
        "<h2>Throughput and latency</h2>",
        _plots(report),
        _table(report_table(report)),
        _notes([*notes_on(report), *(preset_lines(report) if report.config.preset else [])]),
        f"<h2>Parity</h2><p>Answers on {escaped(report.dataset)}, image by image, against PyTorch fp32.</p>",
        _table(parity_table(report.parity)),
        *(f"<pre class=scroll>{escaped(verdict.to_text())}</pre>" for verdict in report.verdicts),
        "<h2>Images whose answers changed</h2>",
        _changed_images(report),
        _libraries(report),
    ]
    return web_page(title, "".join(parts), style=STYLE)


def _plots(report: Report) -> str:
    cells = [cell for cell in report.cells if cell.valid]
    figures = []
    if cells:
        figures += [
            _figure("Throughput over batch size; bars show the middle half of the rounds.", throughput(cells)),
            _figure("Latency over throughput, a point for each batch size: median, dotted to p99.", latency(cells)),
        ]
    if accuracy_points(cells, report.parity):
        caption = (
            "Accuracy on the test split over the highest throughput; no backend is better than those on the front."
        )
        figures.append(_figure(caption, accuracy(cells, report.parity)))
    if report.parity:
        caption = "Parity: answers that differ from PyTorch fp32's, and the relative RMS error of the logits."
        figures.append(_figure(caption, changes(report.parity)))
    return f"<div class=plots>{''.join(figures)}</div>" if figures else ""


def _figure(caption: str, draw: Draw) -> str:
    return f"<figure>{svg_of(draw)}<figcaption>{escaped(caption)}</figcaption></figure>"


def _changed_images(report: Report) -> str:
    """The worst images whose answers changed, each with its label and both answers."""
    classes = report.model.classes
    figures = []
    for one in report.parity:
        for worst in one.worst:
            picture = report.pictures.get(str(worst.index))
            if picture and worst.candidate != worst.reference:
                now = "no answer" if worst.candidate is None else classes[worst.candidate]
                caption = f"{one.candidate}: {classes[worst.reference]} became {now}; it is {classes[worst.label]}"
                figures.append(
                    f'<figure><img alt="test image {worst.index}" src="data:image/png;base64,{picture}">'
                    f"<figcaption>{escaped(caption)} (image {worst.index:,})</figcaption></figure>"
                )
    if not figures:
        return "<p>None: every backend answers every image as PyTorch fp32 does.</p>" if report.parity else ""
    return f"<div class=images>{''.join(figures)}</div>"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return "<p>Nothing was measured.</p>"
    heading = "".join(f"<th>{escaped(name)}" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escaped(value)}" for value in row.values()) for row in rows)
    return f"<div class=scroll><table><tr>{heading}{body}</table></div>"


def _list(items: Mapping[str, str]) -> str:
    return "<ul>" + "".join(f"<li><b>{escaped(name)}</b>: {escaped(text)}" for name, text in items.items()) + "</ul>"


def _notes(lines: Sequence[str]) -> str:
    return f"<ul class='notes faint'>{''.join(f'<li>{escaped(line)}' for line in lines)}</ul>" if lines else ""


def _libraries(report: Report) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    commit = f"; commit {machine.commit}" if machine.commit else ""
    return f"<p class=faint>Python {escaped(machine.python)}, {escaped(versions)}{escaped(commit)}</p>"


def pictures_of(split: Split, parity: Sequence[Parity]) -> dict[str, str]:
    """PNG in base64, by index in the split, of each backend's worst images whose answer is not the reference's."""
    changed = {one.index for each in parity for one in each.worst if one.candidate != one.reference}
    return {str(index): base64.b64encode(encoded_image(split.images_NHWC[index])).decode() for index in sorted(changed)}
