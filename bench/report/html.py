"""The report as one HTML page with its plots: no network, no script, readable on a phone and in dark mode.

It begins with the answer: parity and speed of every backend. What did not run comes last.
"""

from collections.abc import Mapping, Sequence

from ...core.data.datasets import Split
from ...core.svg_plot import Draw, svg_of
from ...core.web_page import escaped, figure_html, notes_html, picture_grid, picture_html, table_html, web_page
from ..config import Scope
from ..measure.cell import Cell
from ..measure.ratio import compares_nothing
from ..parity.compare import Parity
from ..parity.verdict import Verdict
from ..pictures import picture_of
from .answer import answer_table
from .not_run import not_run
from .notes import interruption, not_compared, notes_on, preset_lines
from .plots import accuracy, accuracy_points, changes, changes_size, latency, throughput
from .report import NOT_MEASURED, Report
from .series import legend_html
from .tables import BASELINE, Row, parity_table, report_table

TEXT_COLUMNS = ("precision", "verdict", "at", f"x {BASELINE}", "scope", "of ceiling")
"""Columns of words, set to the left."""


def page_of(report: Report) -> str:
    """The page as text."""
    title = f"{report.model.name}, {report.model.precision}"
    parts = [
        f"<h1>{escaped(title)}</h1><p class=faint>{escaped(report.machine.summary)}; {escaped(report.date)}</p>",
        _answer(report),
        _plots(report),
        "<h2>Throughput and latency</h2>",
        _table(_measurements(report)),
        notes_html(_notes(report)),
        *_parity(report),
        _ran(report),
        _did_not_run(report),
    ]
    return web_page(title, "".join(parts))


def _answer(report: Report) -> str:
    """The first table, and a sentence on what it does not show."""
    warnings = interruption(report) + not_compared(report)
    warnings += [nothing] if (nothing := compares_nothing(report.cells)) else []
    lines = []
    if answers := answer_table(report):
        answers_of = f"right and changed answers: on {report.dataset}, against {report.reference}; "
        lines.append(
            f"{answers_of if report.parity_measured else ''}x {BASELINE}: the backend's "
            "highest rate relative to that of eager PyTorch; ±: 95 % interval, of x only where both have the same "
            "batch size and scope"
        )
    if missing := [label for label in report.unusable if label not in report.backends and label != "ceiling"]:
        lines.append(f"did not run: {', '.join(missing)}; the reasons are at the end")
    table = _table(answers) if answers else "<p>Nothing was measured.</p>"
    return "".join(f"<p><b>{escaped(warning)}</b></p>" for warning in warnings) + table + notes_html(lines)


def _plots(report: Report) -> str:
    cells = [cell for cell in report.cells if cell.valid]
    figures = []
    if cells:
        labels, scopes = _labels_and_scopes(cells)
        legend = legend_html(labels, scopes)
        figures += [
            _figure("Throughput over batch size; bars show the middle half of the rounds.", throughput(cells), legend),
            _figure(
                "Latency over throughput, a point for each batch size: median, dotted to p99.", latency(cells), legend
            ),
        ]
    points = accuracy_points(cells, report.parity)
    shares = {share for _, share in points.values()}
    if len(shares) > 1:
        caption = "Accuracy on the test split over the highest throughput; the grey line is the Pareto front."
        figures.append(_figure(caption, accuracy(cells, report.parity), legend_html(list(points))))
    changed = [one for one in report.parity if one.changed]
    if changed:
        caption = (
            f"Answers that differ from those of {report.reference}: lost (full colour), won (lighter), wrong in both "
            "(lightest); "
            "error: relative RMS error of the logits."
        )
        same = [one.candidate for one in report.parity if not one.changed]
        caption += f" Without any change: {', '.join(same)}." if same else ""
        drawing = svg_of(changes(changed), size_inches=changes_size(changed))
        figures.append(figure_html(drawing, caption))
    same_accuracy = f"<p>All backends have the same accuracy: {shares.pop():.2%}.</p>" if len(shares) == 1 else ""
    return (f"<div class=plots>{''.join(figures)}</div>" if figures else "") + same_accuracy


def _notes(report: Report) -> list[str]:
    """The notes on the measurements, without the one that is at the top of the page."""
    first = interruption(report)
    notes = [note for note in notes_on(report) if note not in first]
    return notes + (preset_lines(report) if report.config.preset else [])


def _labels_and_scopes(cells: Sequence[Cell]) -> tuple[list[str], list[Scope]]:
    return list(dict.fromkeys(cell.label for cell in cells)), list(dict.fromkeys(cell.scope for cell in cells))


def _figure(caption: str, draw: Draw, legend: str) -> str:
    return figure_html(svg_of(draw), caption, legend=legend)


def _parity(report: Report) -> list[str]:
    if not report.parity_measured:
        return [f"<h2>Parity</h2><p>{escaped(NOT_MEASURED)}</p>"]
    if not report.parity:
        return []
    return [
        f"<h2>Parity</h2><p>Answers on {escaped(report.dataset)}, image by image, against "
        f"{escaped(report.reference)}.</p>",
        _table(parity_table(report.parity)),
        *map(_verdict, report.verdicts),
        "<h2>Images whose answers changed</h2>",
        _changed_images(report),
    ]


def _verdict(verdict: Verdict) -> str:
    return "<pre>" + "\n".join(map(escaped, verdict.to_text().splitlines())) + "</pre>"


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
                alt = f"test image {worst.index}"
                figures.append(picture_html(picture, caption, alt=alt, small=f"image {worst.index:,}"))
    if figures:
        return picture_grid(figures)
    if any(one.changed for one in report.parity):
        return "<p>The report holds no pictures of them.</p>"
    return f"<p>None: every backend answers every image as {escaped(report.reference)} does.</p>"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    return table_html(rows, text_columns=TEXT_COLUMNS) if rows else "<p>Nothing was measured.</p>"


def _measurements(report: Report) -> list[Row]:
    """One row per cell. Why a cell failed or was rejected is at the end of the page."""
    rows = report_table(report)
    for cell, row in zip(report.cells, rows, strict=True):
        if cell.rejected or cell.error:
            row["of ceiling" if cell.valid else "images/s"] = "rejected" if cell.rejected else "failed"
    return rows


def _ran(report: Report) -> str:
    """What ran each backend, and the versions of the libraries."""
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    commit = f"; commit {machine.commit}" if machine.commit else ""
    libraries = f"<p class=faint>Python {escaped(machine.python)}, {escaped(versions)}{escaped(commit)}</p>"
    return f"<h2>What ran</h2>{_list(report.backends)}{libraries}"


def _did_not_run(report: Report) -> str:
    causes = not_run(report)
    return f"<h2>What did not run</h2>{_list(causes)}" if causes else ""


def _list(items: Mapping[str, str]) -> str:
    return "<ul>" + "".join(f"<li><b>{escaped(name)}</b>: {escaped(text)}" for name, text in items.items()) + "</ul>"


def pictures_of(split: Split, parity: Sequence[Parity]) -> dict[str, str]:
    """PNG in base64, by index in the split, of each backend's worst images whose answer is not the reference's."""
    changed = {one.index for each in parity for one in each.worst if one.candidate != one.reference}
    return {str(index): picture_of(split, index) for index in sorted(changed)}
