"""One benchmark from beginning to end: compare answers, catch who returns early, measure, report."""

import datetime
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..core.data.datasets import Dataset, Split
from ..core.errors import RtkError
from ..core.machine import this_machine
from ..core.progress import progress_bar
from ..infer.backend import Backend
from .config import BenchConfig
from .files import PngFiles
from .measure.cell import Cell
from .measure.contenders import Contender, prepare, rotating_images
from .measure.environment import this_moment
from .measure.self_check import caught_early, mark
from .measure.timing import take_turns
from .parity.compare import Parity, all_logits, compare, labelled_as
from .parity.verdict import Requirement, judge
from .report.html import pictures_of
from .report.live import live_table
from .report.report import Report
from .roofline.device_rates import device_rates
from .roofline.graph_cost import operations_of

CHECKED_BATCH, CHECKED_BATCHES = 32, 6
"""The self-check takes the batch size nearest to this one, and so many different batches."""


@dataclass
class _Progress:
    """What is known so far, for a report at any time."""

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
) -> Report:
    """Compare each contender's answers with `reference`'s on the test split, and measure them all.

    `graph`: the fp32 graph whose operations make the ceiling. Ctrl-C gives the report of what there is until then.
    Raises DataError.
    """
    split = dataset.split("test")
    card = reference.card
    labelled_as(card.classes, split, dataset.classes, name=dataset.name)
    unusable = dict(unusable)
    progress = _Progress()
    try:
        _compare_answers(contenders, reference, split, unusable, progress)
    except KeyboardInterrupt:
        progress.interrupted = True
    able = [one for one in contenders if one.label not in unusable]
    device = next((one.backend.device for one in able if one.backend.device != "cpu"), "cpu")
    report = Report(
        model=next((one.backend.card for one in contenders if one.backend is not reference), card),
        machine=this_machine(),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        config=config,
        backends={one.label: one.backend.runs_on for one in contenders},
        unusable=unusable,
        cells=[],
        dataset=f"{dataset.name} (test split, {len(split):,} images)",
        parity=progress.parity,
        verdicts=[
            judge(parity, precision=one.computes_in, required=required)
            for parity in progress.parity
            for one in contenders
            if one.label == parity.candidate and one.backend is not reference
        ],
        ready_s={one.label: one.ready_s for one in contenders},
        pictures=pictures_of(split, progress.parity),
        interrupted=progress.interrupted,
    )
    if progress.interrupted or not able:
        return report
    return _measured(report, able, split, config, device, graph)


def _compare_answers(
    contenders: Sequence[Contender],
    reference: Backend,
    split: Split,
    unusable: dict[str, str],
    progress: _Progress,
) -> None:
    judged = [one for one in contenders if not one.baseline]
    others = [one for one in judged if one.backend is not reference]
    with progress_bar("comparing answers", len(split) * (1 + len(others)), unit="images") as advance:
        reference_NK = all_logits(reference, split.images_NHWC, advance=advance)
        for one in judged:
            try:
                same = one.backend is reference
                logits_NK = reference_NK if same else all_logits(one.backend, split.images_NHWC, advance=advance)
            except RtkError as error:
                unusable[one.label] = str(error)
                continue
            progress.parity.append(compare(one.label, reference_NK, logits_NK, split.labels_N))


def _measured(
    report: Report,
    contenders: Sequence[Contender],
    split: Split,
    config: BenchConfig,
    device: str,
    graph: Path | None,
) -> Report:
    """The report with cells, or with as many as there are when Ctrl-C comes."""
    found = replace(report, before=this_moment(device))
    with ExitStack() as stack:
        try:
            if graph is not None:
                found = replace(found, graph=operations_of(graph))
                found = replace(found, rates=device_rates(device, tuple({one.computes_in for one in contenders})))
            size = contenders[0].backend.card.input
            files = stack.enter_context(PngFiles(split, size)) if "files" in config.scopes else None
            prepared = prepare(contenders, config, files=files)
            for resident in prepared.residents:
                stack.callback(resident.close)
            with live_table(config.seconds) as told:
                measured = take_turns(prepared.cells, prepared.runners, config, told=told)
            found = replace(found, cells=measured.cells, coincidences=prepared.notes, interrupted=measured.interrupted)
            found = replace(found, after=this_moment(device))
            if not measured.interrupted:
                found = replace(found, self_checked=_self_check(contenders, found.cells))
        except KeyboardInterrupt:
            found = replace(found, interrupted=True)
    return found


def _self_check(contenders: Sequence[Contender], cells: Sequence[Cell]) -> bool:
    """Mark the cells of whoever returns before its work is done, or fails while it is asked; whether all were asked."""
    with progress_bar("self-check", len(contenders), unit="backends") as advance:
        for one in contenders:
            sizes = [cell.batch for cell in cells if cell.label == one.label and cell.rounds]
            if sizes:
                batch = min(sizes, key=lambda size: abs(size - CHECKED_BATCH))
                images_NHWC = rotating_images(one.backend.card.input, batch)
                batches = [images_NHWC[k * batch : (k + 1) * batch] for k in range(len(images_NHWC) // batch)]
                try:
                    mark(cells, one.label, caught_early(one.backend, batches[:CHECKED_BATCHES]))
                except RtkError as error:
                    mark(cells, one.label, "", error=str(error))
            advance(1)
    return True
