"""A report for people: its tables and notes, as text for the terminal and as Markdown. The HTML page shows the same."""

from collections.abc import Callable, Sequence

import numpy as np

from ...core.text import markdown_table, text_table
from ..config import PRESETS, SCOPES
from ..measure.bootstrap import Interval, paired_ratio_interval, rate_interval
from ..measure.cell import NOISY_SPREAD, Cell
from ..measure.environment import processors
from ..parity.compare import Parity
from ..roofline.roofline import Ceiling
from .report import Report

Row = dict[str, str]
BASELINE = "torch"
"""Eager PyTorch in fp32: what `x` compares with."""
COLUMNS = (
    "backend",
    "precision",
    "scope",
    "batch",
    "images/s",
    "x",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "spread",
    "rounds",
    "of ceiling",
)


def report_text(report: Report) -> str:
    """The report for the terminal."""
    lines = [f"{report.model.name}, {report.model.precision}, on {report.machine.summary}"]
    lines += [f"  {name}: {runs_on}" for name, runs_on in report.backends.items()]
    lines += [f"  {name}: not run: {reason}" for name, reason in report.unusable.items()]
    lines += ["", f"Parity on {report.dataset}, against PyTorch fp32", "", text_table(parity_table(report.parity))]
    lines += ["", *(verdict.to_text() for verdict in report.verdicts)]
    lines += ["", "Throughput and latency", "", text_table(report_table(report)), ""]
    lines += [f"  {note}" for note in notes_on(report)]
    lines += ["", *preset_lines(report)] if report.config.preset else []
    return "\n".join(lines)


def report_markdown(report: Report) -> str:
    """The report for a README or a paper."""
    model, machine = report.model, report.machine
    lines = [f"Model: {model.name}, {model.precision}. Machine: {machine.summary}. {report.date}.", ""]
    lines += [f"- {name}: {runs_on}" for name, runs_on in report.backends.items()]
    lines += [f"- {name}: not run: {reason}" for name, reason in report.unusable.items()]
    if report.cells:
        lines += ["", "Throughput and latency.", "", markdown_table(report_table(report)), ""]
        lines += [f"- {note}" for note in notes_on(report)]
    if report.config.preset:
        lines += ["", *preset_lines(report)]
    if report.parity:
        heading = f"Parity on {report.dataset}, against PyTorch fp32."
        lines += ["", heading, "", markdown_table(parity_table(report.parity))]
    lines += [f"\n```\n{verdict.to_text()}\n```" for verdict in report.verdicts]
    return "\n".join(lines) + "\n"


def report_table(report: Report) -> list[Row]:
    """The report's cells against eager PyTorch, a row for each."""
    return throughput_table(report.cells, baseline=BASELINE, ceiling=report.ceiling)


def throughput_table(
    cells: Sequence[Cell],
    *,
    baseline: str | None = None,
    ceiling: Callable[[Cell], Ceiling | None] = lambda cell: None,
) -> list[Row]:
    """One row a cell; `x` is the ratio to the baseline's cell, to the first backend's where none is named."""
    baseline = baseline or (cells[0].label if cells else "")
    rows = []
    for cell in cells:
        figures = [cell.backend, cell.precision, SCOPES[cell.scope][0], f"{cell.batch:,}"]
        reason = cell.caught or (f"failed: {cell.error}" if cell.error else "")
        if cell.believed:
            rate, spread = f"{cell.images_per_s:,.0f}", f"{cell.spread:.0%}{' noisy' if cell.noisy else ''}"
            figures += [rate + _either_side(rate_interval(cell), cell.images_per_s, share=True)]
            figures += [_ratio(cell, base_of(cell, cells, baseline))]
            figures += [f"{cell.percentile_ms(p):.2f}" for p in (50, 90, 99)]
            figures += [spread, f"{len(cell.rounds):,}", reason or _of_ceiling(cell, ceiling(cell))]
        else:
            figures += [reason or "no time"]
        rows.append(dict(zip(COLUMNS, [*figures, *[""] * (len(COLUMNS) - len(figures))], strict=True)))
    return [{name: row[name] for name in COLUMNS if any(one[name] for one in rows)} for row in rows]


def base_of(cell: Cell, cells: Sequence[Cell], baseline: str) -> Cell | None:
    """The baseline's cell at the same batch size: in the same scope, or host to host where that has none."""
    at_batch = [one for one in cells if one.label == baseline and one.batch == cell.batch and one.believed]
    same = [one for one in at_batch if one.scope == cell.scope]
    return next(iter([*same, *(one for one in at_batch if one.scope == "sync")]), None)


def parity_table(parity: Sequence[Parity]) -> list[Row]:
    """One row a backend."""
    return [
        {
            "backend": one.candidate,
            "right answers": f"{one.candidate_correct:,} of {one.images:,}",
            "accuracy": f"{one.candidate_correct / one.images:.2%}",
            "same answers": f"{one.agreeing:,} of {one.images:,}"
            + (f", {one.not_finite:,} not finite" if one.not_finite else "")
            + (f", {one.answered:,} answers" if one.answered != one.images else ""),
            "lost": f"{one.lost:,}",
            "won": f"{one.won:,}",
            "largest logit difference": f"{one.largest_difference:.1e}",
        }
        for one in parity
    ]


def worst_table(parity: Parity, classes: Sequence[str]) -> list[Row]:
    """The images that the candidate answers worst, one row each."""
    return [
        {
            "image": f"{one.index:,}",
            "label": classes[one.label],
            "reference": classes[one.reference],
            parity.candidate: "no answer" if one.candidate is None else classes[one.candidate],
            "largest logit difference": f"{one.largest_difference:.1e}",
        }
        for one in parity.worst
    ]


def _ratio(cell: Cell, base: Cell | None) -> str:
    if base is None:
        return ""
    ratio = cell.images_per_s / base.images_per_s
    return f"{ratio:.2f}" + ("" if base is cell else _either_side(paired_ratio_interval(cell, base), ratio))


def _either_side(interval: Interval | None, value: float, *, share: bool = False) -> str:
    """The farther end of a 95 % interval, as a distance."""
    if interval is None:
        return ""
    distance = max(value - interval[0], interval[1] - value)
    return f" ±{distance / value:.1%}" if share else f" ±{distance:.2f}"


def _of_ceiling(cell: Cell, ceiling: Ceiling | None) -> str:
    if ceiling is None:
        return ""
    return f"{cell.images_per_s / ceiling.images_per_s:.1%} {ceiling.binds}"


def notes_on(report: Report) -> list[str]:
    """One line each, in the order in which a reader asks."""
    notes = ["stopped by Ctrl-C: what follows is what was measured until then"] if report.interrupted else []
    measured = [cell for cell in report.cells if cell.rounds]
    timed = {cell.scope for cell in report.cells}
    notes += [f"{name}: {words}" for scope, (name, words) in SCOPES.items() if scope in timed]
    notes += report.coincidences
    if measured:
        notes.append(
            "x: images/s against eager PyTorch (torch), in the same scope or else host to host; ±: 95 %, by bootstrap "
            "over stretches of rounds that the cells took in turns"
        )
    noisy = [cell for cell in measured if cell.noisy]
    if noisy:
        notes.append(
            f"noisy: {len(noisy)} of {len(measured)} cells; their rounds differ by more than {NOISY_SPREAD:.0%}"
        )
    if measured and report.self_checked:
        caught = sorted({cell.label for cell in measured if cell.caught})
        words = f"{', '.join(caught)} did: no figures" if caught else "none did"
        notes.append(f"self-check for backends that return before their work is done: {words}")
    notes += _clocks(report)
    notes += _time_before(report)
    notes += _surroundings(report)
    notes += _ceiling(report)
    return notes


def preset_lines(report: Report) -> list[str]:
    """The figure to put beside others', for every backend."""
    preset = PRESETS[report.config.preset]
    lines = [f"{preset.name}: {preset.words}"]
    for cell in report.cells:
        if cell.believed:
            if preset.headline == "images/s":
                figure = f"{cell.images_per_s:,.1f} images/s, {cell.images_per_s / cell.batch:,.1f} calls/s"
            else:
                figure = f"{cell.percentile_ms(float(preset.headline[1:])):.3f} ms ({preset.headline})"
            lines.append(f"  {cell.label}, batch {cell.batch:,}, {SCOPES[cell.scope][0]}: {figure}")
    return lines


def _clocks(report: Report) -> list[str]:
    off = [cell.clock_disagreement for cell in report.cells if cell.clock_disagreement is not None]
    if not off:
        return []
    return [
        f"two clocks: in compute the wall clock shows {np.median(off):.1%} more than CUDA events in the median, "
        f"{max(off, key=abs):.1%} at most: launching and waiting"
    ]


def _time_before(report: Report) -> list[str]:
    parts = []
    if report.ready_s:
        ready = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.ready_s.items())
        parts.append(f"exports, builds and opening: {ready}")
    if report.cells:
        longest = max(report.cells, key=lambda cell: cell.warm_up_s)
        parts.append(
            f"warming up: {sum(cell.warm_up_s for cell in report.cells):.1f} s, at most {longest.warm_up_s:.1f} s "
            f"({longest.label}, batch {longest.batch:,})"
        )
    return [f"not in any figure: {'; '.join(parts)}"] if parts else []


def _surroundings(report: Report) -> list[str]:
    if report.before is None or report.after is None:
        return []
    where = f"processors {processors(report.before.affinity)}" if report.before.affinity else "processors not told"
    return [
        f"threads as each backend says above, on {where}; before: {report.before.words}; after: {report.after.words}"
    ]


def _ceiling(report: Report) -> list[str]:
    graph, rates = report.graph, report.rates
    if graph is None or rates is None:
        return []
    known = ", ".join(f"{name} {rate / 1e9:,.3g}" for name, rate in rates.matrix_per_s.items())
    line = (
        f"ceiling: {graph.matrix / 1e6:,.1f} million operations an image in matrix arithmetic (convolutions as they "
        f"are defined; {graph.other / 1e6:,.1f} million others not counted) at measured 10^9 operations/s: {known}; "
        f"{graph.weight_bytes / 1e6:,.1f} MB of weights a batch, {graph.image_bytes + graph.logits_bytes:,} bytes an "
        f"image at {rates.copy_bytes_per_s / 1e9:,.3g} GB/s"
    )
    if rates.upload_bytes_per_s and rates.download_bytes_per_s:
        up, down = rates.upload_bytes_per_s / 1e9, rates.download_bytes_per_s / 1e9
        line += f", copies at {up:,.1f} GB/s up and {down:,.1f} GB/s down"
    if any(cell.precision == "int8" for cell in report.cells):
        line += "; none is stated for int8, whose rate PyTorch cannot measure"
    return [line]
