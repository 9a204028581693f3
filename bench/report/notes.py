"""The text around a report's tables: what ran the backends, what the columns mean, and how they were measured."""

from collections.abc import Collection

import numpy as np

from ..config import PRESETS, SCOPES
from ..measure.cell import NOISY_SPREAD
from ..measure.environment import processors
from ..roofline.roofline import DeviceRates
from .report import Report
from .tables import BASELINE, base_of

ALL = frozenset({"x", "spread", "of ceiling"})
"""The columns that have notes of their own."""


def notes_on(report: Report, *, columns: Collection[str] = ALL, short_scopes: bool = False) -> list[str]:
    """All notes, one line each; those on a column are left out unless it is among `columns`.

    `short_scopes`: call the scopes as the terminal's table does.
    """
    notes = interruption(report)
    measured = [cell for cell in report.cells if cell.rounds]
    timed = {cell.scope for cell in report.cells}
    for scope, text in SCOPES.items():
        if scope in timed:
            name = f"{text.column} ({text.name})" if short_scopes and text.column != text.name else text.name
            notes.append(f"{name}: {text.timed}")
    notes += report.coincidences
    if "x" in columns and any(base_of(cell, report.cells, BASELINE) for cell in measured):
        notes.append("x: images/s relative to eager PyTorch (torch), in the same scope, otherwise host to host")
    if any(len(cell.rounds) > 1 for cell in measured):
        notes.append("±: 95 % interval, by block bootstrap over interleaved rounds")
    if "spread" in columns:
        notes += noise(report)
    if measured and report.self_checked:
        rejected = sorted({cell.label for cell in measured if cell.rejected})
        notes.append(f"the self-check for asynchronous results rejected {', '.join(rejected) or 'no backend'}")
    notes += _clocks(report)
    notes += _not_included(report)
    notes += _environment(report)
    notes += _files(report)
    if "of ceiling" in columns:
        notes += _ceiling(report)
    return notes


def interruption(report: Report) -> list[str]:
    """Says that Ctrl-C stopped the benchmark, if it did."""
    return ["stopped by Ctrl-C: the figures are those measured until then"] if report.interrupted else []


def noise(report: Report) -> list[str]:
    """The number of noisy cells, if there are any."""
    measured = [cell for cell in report.cells if cell.rounds]
    noisy = sum(cell.noisy for cell in measured)
    if not noisy:
        return []
    measurements = "measurement varies" if len(measured) == 1 else "measurements vary"
    return [f"noisy: {noisy} of {len(measured)} {measurements} by more than {100 * NOISY_SPREAD:.0f} % between rounds"]


def preset_lines(report: Report, *, short_scopes: bool = False) -> list[str]:
    """What the preset measures, and its figure for every backend."""
    preset = PRESETS[report.config.preset]
    lines = [f"{preset.name}: {preset.text}"]
    for cell in report.cells:
        if cell.valid:
            if preset.headline == "images/s":
                figure = f"{cell.images_per_s:,.1f} images/s, {cell.images_per_s / cell.batch:,.1f} calls/s"
            else:
                figure = f"{cell.percentile_ms(float(preset.headline[1:])):.3f} ms ({preset.headline})"
            scope = SCOPES[cell.scope].column if short_scopes else SCOPES[cell.scope].name
            lines.append(f"  {cell.label}, batch {cell.batch:,}, {scope}: {figure}")
    return lines


def _clocks(report: Report) -> list[str]:
    extra = [cell.clock_disagreement for cell in report.cells if cell.clock_disagreement is not None]
    if not extra:
        return []
    return [
        f"two clocks: in compute the wall clock shows more than CUDA events, by {np.median(extra):.1%} in the median "
        f"and {max(extra, key=abs):.1%} at most: the time to launch and to wait"
    ]


def _not_included(report: Report) -> list[str]:
    parts = []
    if report.ready_s:
        ready = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.ready_s.items())
        parts.append(f"exports, builds and opening: {ready}")
    if report.cells:
        total_s = sum(cell.warm_up_s for cell in report.cells)
        longest = max(report.cells, key=lambda cell: cell.warm_up_s)
        which = f"{longest.label}, batch {longest.batch:,}"
        parts.append(f"warm-up: {total_s:.1f} s in total, at most {longest.warm_up_s:.1f} s ({which})")
    return [f"not included in any figure: {'; '.join(parts)}"] if parts else []


def _environment(report: Report) -> list[str]:
    if report.before is None or report.after is None:
        return []
    where = f"processors {processors(report.before.affinity)}" if report.before.affinity else "unknown processors"
    return [f"threads as listed for each backend, on {where}; before: {report.before.text}; after: {report.after.text}"]


def _files(report: Report) -> list[str]:
    """Which file each backend ran; those that ran the same one share an entry."""
    labels_of: dict[str, list[str]] = {}
    for label, file in report.files.items():
        labels_of.setdefault(str(file), []).append(label)
    entries = [f"{', '.join(labels)}: {file}" for file, labels in labels_of.items()]
    return [f"files: {'; '.join(entries)}"] if entries else []


def _ceiling(report: Report) -> list[str]:
    graph = report.graph
    if graph is None or not any(cell.valid and report.ceiling(cell) for cell in report.cells):
        return []
    line = (
        f"ceiling: {graph.matrix / 1e6:,.1f} million operations per image in matrix arithmetic (convolutions as they "
        f"are defined; {graph.other / 1e6:,.1f} million others not counted), {graph.weight_bytes / 1e6:,.1f} MB of "
        f"weights per batch, {graph.image_bytes + graph.logits_bytes:,} bytes per image; measured"
    )
    line += "; ".join(map(_rates_text, report.rates))
    if any(cell.precision == "int8" for cell in report.cells):
        line += "; int8 has no ceiling, because PyTorch cannot measure its rate"
    return [line]


def _rates_text(rates: DeviceRates) -> str:
    known = ", ".join(f"{name} {rate / 1e9:,.3g}" for name, rate in rates.matrix_per_s.items())
    text = f" on {rates.device}: 10^9 operations/s {known}; {rates.copy_bytes_per_s / 1e9:,.3g} GB/s"
    if rates.upload_bytes_per_s and rates.download_bytes_per_s:
        up, down = rates.upload_bytes_per_s / 1e9, rates.download_bytes_per_s / 1e9
        text += f", copies at {up:,.1f} GB/s to the device and {down:,.1f} GB/s from it"
    return text
