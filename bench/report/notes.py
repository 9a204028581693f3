"""What stands under the table: what was timed and how, what was not, and what there is to doubt."""

from typing import TYPE_CHECKING

import numpy as np

from ..measure.cell import NOISY_SPREAD
from ..measure.environment import processors
from ..presets import PRESETS
from ..scopes import SCOPES

if TYPE_CHECKING:
    from .report import Report


def notes_on(report: "Report") -> list[str]:
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


def preset_lines(report: "Report") -> list[str]:
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


def _clocks(report: "Report") -> list[str]:
    off = [cell.clock_disagreement for cell in report.cells if cell.clock_disagreement is not None]
    if not off:
        return []
    return [
        f"two clocks: in compute the wall clock shows {np.median(off):.1%} more than CUDA events in the median, "
        f"{max(off, key=abs):.1%} at most: launching and waiting"
    ]


def _time_before(report: "Report") -> list[str]:
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


def _surroundings(report: "Report") -> list[str]:
    if report.before is None or report.after is None:
        return []
    where = f"processors {processors(report.before.affinity)}" if report.before.affinity else "processors not told"
    return [
        f"threads as each backend says above, on {where}; before: {report.before.words}; after: {report.after.words}"
    ]


def _ceiling(report: "Report") -> list[str]:
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
