"""One benchmark from beginning to end: compare answers, measure, reject asynchronous backends, report."""

import datetime
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..core.card import ModelCard
from ..core.data.datasets import Dataset, Split
from ..core.errors import ArtifactError, BackendError, RtkError, noted
from ..core.machine import this_machine
from ..core.probe import probe_images
from ..core.progress import progress_bar
from ..infer.backend import Backend
from .config import BenchConfig
from .files.image_files import PngFiles
from .measure.cell import Cell
from .measure.contenders import Contender, RanFile
from .measure.environment import this_moment
from .measure.prepare import prepare
from .measure.runners import rotating_images
from .measure.self_check import early_return, note_result
from .measure.timing import measure_interleaved, wait_until_idle
from .measure.wait_quiet import before_each_round
from .parity.compare import Parity, check_labels, compare
from .parity.reference import Reference
from .parity.verdict import Requirement, Verdict, judge
from .report.html import pictures_of
from .report.live import live_table
from .report.report import CEILING, PYTORCH, REFERENCE, Report
from .roofline.device_rates import DeviceProbe
from .roofline.graph_cost import operations_of
from .roofline.roofline import Operations

CHECKED_BATCH, CHECKED_BATCHES = 32, 6
"""The self-check uses the measured batch size nearest to this one, and this number of different batches."""

PNG_IMAGES = 96
"""Random images that are written as files when speed alone is measured."""


@dataclass
class _Comparison:
    """The comparisons so far, so that Ctrl-C loses none of them."""

    parity: list[Parity] = field(default_factory=list)
    interrupted: bool = False


def run(
    contenders: Sequence[Contender],
    reference: Backend,
    dataset: Dataset,
    config: BenchConfig,
    *,
    unusable: dict[str, str],
    required: Requirement | None = None,
    graph: Path | None = None,
    reference_file: RanFile | None = None,
    reference_text: str = PYTORCH,
) -> Report:
    """Compare each contender's answers with the reference's on the test split, then measure all contenders.

    `graph`: the graph whose operations define the ceiling. `reference_file`: what `reference` runs, for the report, and
    `reference_text`: what it is, in words.
    After Ctrl-C the report holds the results so far. Raises DataError.
    """
    split = dataset.scored()
    check_labels(reference.card.classes, split, dataset.classes, name=dataset.name)
    unusable = dict(unusable)
    comparison = _Comparison()
    try:
        _compare_answers(contenders, reference, split, config, unusable, comparison)
    except KeyboardInterrupt:
        comparison.interrupted = True
    others = (one.backend.card for one in contenders if one.backend is not reference)
    report = Report(
        model=next(others, reference.card),
        machine=this_machine(),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        config=config,
        backends={one.label: one.backend.runs_on for one in contenders},
        unusable=unusable,
        cells=[],
        dataset=f"{dataset.name} ({dataset.scored_split} split, {len(split):,} images)",
        parity=comparison.parity,
        verdicts=_verdicts(contenders, reference, comparison.parity, required),
        ready_s={one.label: one.ready_s for one in contenders if one.timed},
        devices={one.label: one.backend.device for one in contenders},
        pictures=pictures_of(split, comparison.parity),
        interrupted=comparison.interrupted,
        reference=reference_text,
        files=_files(contenders, reference_file, graph),
    )
    usable = [one for one in contenders if one.label not in unusable and one.timed]
    return report if comparison.interrupted or not usable else _measured(report, usable, split, config, graph)


def run_speed(
    contenders: Sequence[Contender],
    card: ModelCard,
    config: BenchConfig,
    *,
    unusable: dict[str, str],
    graph: Path | None = None,
    remarks: Sequence[str] = (),
) -> Report:
    """Measure all contenders on random images, and compare no answers. `card`: the model's; `remarks`: see Report.

    After Ctrl-C the report holds the results so far.
    """
    report = Report(
        model=card,
        machine=this_machine(),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        config=config,
        backends={one.label: one.backend.runs_on for one in contenders},
        unusable=dict(unusable),
        cells=[],
        dataset=f"random images, {' x '.join(map(str, card.input.shape))}",
        parity=[],
        ready_s={one.label: one.ready_s for one in contenders if one.timed},
        devices={one.label: one.backend.device for one in contenders},
        parity_measured=False,
        remarks=list(remarks),
        files=_files(contenders, None, graph),
    )
    usable = [one for one in contenders if one.timed]
    images_NHWC = probe_images(PNG_IMAGES, card.input)
    split = Split(images_NHWC, np.zeros(PNG_IMAGES, np.int64))
    return _measured(report, usable, split, config, graph) if usable else report


def _files(contenders: Sequence[Contender], reference: RanFile | None, graph: Path | None) -> dict[str, RanFile]:
    ran = {REFERENCE: reference, **{one.label: one.file for one in contenders}}
    ran[CEILING] = RanFile.of(graph) if graph else None
    return {label: file for label, file in ran.items() if file is not None}


def _compare_answers(
    contenders: Sequence[Contender],
    reference: Backend,
    split: Split,
    config: BenchConfig,
    unusable: dict[str, str],
    comparison: _Comparison,
) -> None:
    judged = [one for one in contenders if not one.baseline]
    others = [one for one in judged if one.backend is not reference]
    with progress_bar("comparing answers", len(split) * (1 + len(others)), unit="images") as advance:
        precisions = {one.computes_in for one in others}
        found = Reference.of(reference, split, precisions=precisions, advance=advance)
        for one in judged:
            if one.backend is reference:
                itself = compare(one.label, found.logits_NK, found.logits_NK, split.labels_N, rounding=found.rounding)
                comparison.parity.append(itself)
                continue
            try:
                parity = found.parity_of(
                    one.label,
                    one.backend,
                    precision=one.computes_in,
                    timed=config.batches if one.timed else (),
                    advance=advance,
                )
            except RtkError as error:
                unusable[one.label] = noted(error)
                continue
            comparison.parity.append(parity)


def _verdicts(
    contenders: Sequence[Contender], reference: Backend, parity: Sequence[Parity], required: Requirement | None
) -> list[Verdict]:
    """The verdict on every backend that was compared, except the reference itself."""
    return [
        judge(one, precision=contender.computes_in, required=required, classes=reference.card.classes)
        for one in parity
        for contender in contenders
        if contender.label == one.candidate and contender.backend is not reference
    ]


def _measured(
    report: Report, contenders: Sequence[Contender], split: Split, config: BenchConfig, graph: Path | None
) -> Report:
    """The report with cells; after Ctrl-C with those that were measured until then."""
    device = next((one.backend.device for one in contenders if one.backend.device != "cpu"), "cpu")
    found = replace(report, before=this_moment(device))
    with ExitStack() as stack:
        try:
            probes: list[DeviceProbe] = []
            counted, unusable = _counted(graph) if graph is not None else (None, {})
            if counted is not None:
                probes, unusable = _probes(contenders)
            found = replace(found, graph=counted, unusable=report.unusable | unusable)
            size = contenders[0].backend.card.input
            files = stack.enter_context(PngFiles(split, size)) if "files" in config.scopes else None
            prepared = prepare(contenders, config, files=files)
            for resident in prepared.residents:
                stack.callback(resident.close)
            with live_table(config.seconds) as on_change:
                measured = measure_interleaved(
                    prepared.cells,
                    prepared.runners,
                    config,
                    on_change=on_change,
                    probes=probes,
                    before_round=before_each_round(wait=config.wait_quiet),
                )
            found = replace(found, cells=measured.cells, coincidences=prepared.notes, interrupted=measured.interrupted)
            found = _with_rates(found, probes)
            found = replace(found, after=this_moment(device))
            if not measured.interrupted:
                _self_check(contenders, found.cells)
                found = replace(found, self_checked=True)
        except KeyboardInterrupt:
            found = replace(found, interrupted=True)
    return found


def _counted(graph: Path) -> tuple[Operations | None, dict[str, str]]:
    """The work of the graph; or why there is no ceiling, for a network whose work cannot be counted."""
    try:
        return operations_of(graph), {}
    except ArtifactError as error:
        return None, {"ceiling": noted(error)}


def _probes(contenders: Sequence[Contender]) -> tuple[list[DeviceProbe], dict[str, str]]:
    """What measures the rates of every device in use; and why there is no ceiling for one that cannot be measured."""
    probes, unusable = [], {}
    for device in dict.fromkeys(one.backend.device for one in contenders):
        precisions = {one.computes_in for one in contenders if one.backend.device == device}
        try:
            probes.append(DeviceProbe.open(device, tuple(sorted(precisions))))
        except BackendError as error:
            unusable["ceiling"] = noted(error)
    return probes, unusable


def _with_rates(report: Report, probes: Sequence[DeviceProbe]) -> Report:
    """The report with the rates that were measured, and why others were not."""
    error = next((probe.error for probe in probes if probe.error), "")
    rates = [rates for probe in probes if (rates := probe.rates()) is not None]
    return replace(report, rates=rates, unusable=report.unusable | ({"ceiling": error} if error else {}))


def _self_check(contenders: Sequence[Contender], cells: Sequence[Cell]) -> None:
    """Mark the cells of every contender that returns before its work is done, or that fails during the check."""
    with progress_bar("self-check", len(contenders), unit="backends") as advance:
        for one in contenders:
            sizes = [cell.batch for cell in cells if cell.label == one.label and cell.rounds]
            if sizes:
                wait_until_idle()
                batch = min(sizes, key=lambda size: abs(size - CHECKED_BATCH))
                images_NHWC = rotating_images(one.backend.card.input, batch)
                batches = [images_NHWC[k * batch : (k + 1) * batch] for k in range(len(images_NHWC) // batch)]
                try:
                    note_result(cells, one.label, early_return(one.backend, batches[:CHECKED_BATCHES]))
                except RtkError as error:
                    note_result(cells, one.label, "", error=noted(error))
            advance(1)
