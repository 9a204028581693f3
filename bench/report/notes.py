"""The text around a report's tables: what ran the backends, what the columns mean, and how they were measured."""

from collections.abc import Collection, Sequence

import numpy as np

from ..config import PRESETS, SCOPES
from ..measure.cell import NOISY_SPREAD, Cell
from ..measure.environment import processors
from ..roofline.roofline import COPY, WRONG_CEILING, DeviceRates
from .report import NOT_MEASURED, Report
from .tables import BASELINE, ON_CPU, base_of, on_cpu_beside_gpu

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
        notes.append(
            "x: images/s relative to eager PyTorch (torch) in the same round, the median over all rounds; in the same "
            "scope, otherwise host to host"
        )
        notes += _on_cpu(report, measured)
    if any(len(cell.rounds) > 1 for cell in measured):
        notes.append("±: 95 % interval, by block bootstrap over interleaved rounds")
    if any(cell.valid for cell in measured):
        notes.append("images/s: of the median round; mean: all images divided by all seconds, pauses included")
    if "spread" in columns:
        notes += noise(report.cells)
    if measured and report.self_checked:
        rejected = sorted({cell.label for cell in measured if cell.rejected})
        notes.append(f"the self-check for asynchronous results rejected {', '.join(rejected) or 'no backend'}")
    notes += _switches(measured)
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


def not_compared(report: Report) -> list[str]:
    """Says that only speed was measured, if so, and what else a reader must know about the model."""
    return ([] if report.parity_measured else [NOT_MEASURED]) + report.remarks


def noise(cells: Sequence[Cell]) -> list[str]:
    """What disturbed the measurement: noisy cells, outliers, other processes; empty if nothing did."""
    measured = [cell for cell in cells if cell.rounds]
    return [*_noisy(measured), *_outliers(measured), *_other_load(measured), *_overlapped(measured)]


def _noisy(measured: Sequence[Cell]) -> list[str]:
    noisy = sum(cell.noisy for cell in measured)
    if not noisy:
        return []
    measurements = "measurement varies" if len(measured) == 1 else "measurements vary"
    return [f"noisy: {noisy} of {len(measured)} {measurements} by more than {100 * NOISY_SPREAD:.0f} % between rounds"]


def _outliers(measured: Sequence[Cell]) -> list[str]:
    with_outliers = [cell for cell in measured if cell.outliers]
    if not with_outliers:
        return []
    worst = max(with_outliers, key=lambda cell: max(cell.outliers))
    count, rounds = sum(len(cell.outliers) for cell in measured), sum(len(cell.rounds) for cell in measured)
    return [
        f"outliers: {count} of {rounds:,} rounds took much longer than the others of their kind, at most "
        f"{max(worst.outliers):.1f} times the median ({_name(worst)}); images/s leaves them out, mean counts them"
    ]


def _other_load(measured: Sequence[Cell]) -> list[str]:
    busy = [cell for cell in measured if cell.busy]
    if not busy:
        return []
    highest = max(cell.other_share or 0.0 for cell in busy)
    return [
        f"busy: other processes took up to {highest:.0%} of the cores during {len(busy)} of {len(measured)} "
        "measurements, which changes their ratios; --wait-quiet waits until they stop"
    ]


def _overlapped(measured: Sequence[Cell]) -> list[str]:
    cells = [cell for cell in measured if cell.overlapped]
    if not cells:
        return []
    count, rounds = sum(cell.overlapped for cell in cells), sum(len(cell.rounds) for cell in measured)
    return [
        f"overlapped: threads of another backend still computed at the beginning of {count} of {rounds:,} rounds "
        "(OMP_WAIT_POLICY=active and KMP_BLOCKTIME=infinite do this)"
    ]


def _name(cell: Cell) -> str:
    return f"{cell.label}, {SCOPES[cell.scope].column}, batch {cell.batch:,}"


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


def _on_cpu(report: Report, measured: Sequence[Cell]) -> list[str]:
    """Which backends ran on the CPU although the baseline ran on a GPU."""
    bases = ((cell, base_of(cell, report.cells, BASELINE)) for cell in measured)
    labels = [cell.label for cell, base in bases if base and on_cpu_beside_gpu(cell, base, report.devices)]
    if not labels:
        return []
    return [
        f"{ON_CPU}: {', '.join(dict.fromkeys(labels))} ran on the CPU and {BASELINE} on {report.devices[BASELINE]}, so "
        "no ratio is given: it would compare processors"
    ]


def _switches(measured: Sequence[Cell]) -> list[str]:
    """For which backends a change of the batch size takes long, and how long at most."""
    longest: dict[str, float] = {}
    for cell in measured:
        if cell.switch_is_long and cell.switch_ms is not None:
            longest[cell.label] = max(cell.switch_ms, longest.get(cell.label, 0.0))
    if not longest:
        return []
    each = ", ".join(f"{label} up to {switch_ms:,.0f} ms" for label, switch_ms in longest.items())
    return [f"a change of the batch size: its first call took longer than the next one: {each}; in no other figure"]


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
    return [line, *wrong_ceilings(report)]


def wrong_ceilings(report: Report) -> list[str]:
    """The ceilings that a cell exceeds: they were measured wrong, or the work is counted wrong."""
    shares = [(cell, share) for cell in report.cells if (share := report.share(cell)) is not None and share.wrong]
    if not shares:
        return []
    cell, share = max(shares, key=lambda one: one[1].value)
    exceed = "1 measurement exceeds" if len(shares) == 1 else f"{len(shares)} measurements exceed"
    return [
        f"wrong ceiling: {exceed} it by more than {100 * (WRONG_CEILING - 1):.0f} %, "
        f"{_name(cell)} reaches {share.value:.0%} of it; do not use the column"
    ]


def _rates_text(rates: DeviceRates) -> str:
    known = ", ".join(
        f"{name} {rate / 1e9:,.3g}{_share_either_side(rates, name, rate)}" for name, rate in rates.matrix_per_s.items()
    )
    copy = f"{rates.copy_bytes_per_s / 1e9:,.3g}{_share_either_side(rates, COPY, rates.copy_bytes_per_s)}"
    text = f" on {rates.device}: 10^9 operations/s {known}; {copy} GB/s"
    if rates.upload_bytes_per_s and rates.download_bytes_per_s:
        up, down = rates.upload_bytes_per_s / 1e9, rates.download_bytes_per_s / 1e9
        text += f", copies at {up:,.1f} GB/s to the device and {down:,.1f} GB/s from it"
    return text


def _share_either_side(rates: DeviceRates, name: str, rate: float) -> str:
    interval = rates.interval(name)
    return f" ±{max(rate - interval[0], interval[1] - rate) / rate:.0%}" if interval else ""
