"""The generated parts of README.md and docs/*.md that are made from files: reports, cards, docstrings."""

import ast
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from ..bench.measure.cell import Cell
from ..bench.measure.ratio import ratio_of
from ..bench.parity.compare import Parity
from ..bench.parity.paired_interval import images_for, upper_loss
from ..bench.report.notes import notes_on
from ..bench.report.report import Report, read_report
from ..bench.report.tables import BASELINE, base_of, parity_table, report_table
from ..core.card import ModelCard, Training
from ..core.models.summary import parameter_count
from ..core.text import markdown_table
from ..core.tolerances import PRECISIONS
from ..core.zoo import DEFAULT, zoo_card, zoo_names
from ..train.augment.options import option_name
from ..train.recipes import NO_AUGMENTATION
from .busy_machine import busy_block
from .gpu_tables import gpu_blocks
from .int8_record import int8_block
from .own_data_figures import own_data_block
from .published import kept_cards, trained_rows, untrained_rows

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
BOUND_EXAMPLES = ((100, 0, 0), (1_000, 0, 0), (10_000, 0, 0), (10_000, 40, 40), (10_000, 40, 20), (10_000, 20, 40))
"""Images, lost and won answers of the examples in docs/parity.md."""
NOT_FOLDERS = {"tests", "build", "dist", "demo", "runs"}
"""Folders at the root that hold no part of the package."""


def table_blocks(folder: Path = RESULTS) -> dict[str, str]:
    """Return the blocks that are made from files alone."""
    reports = newest_reports(folder)
    return {
        "headline": headline_block(reports),
        "zoo": zoo_block([zoo_card(name) for name in zoo_names()]),
        "measured": measured_block(reports),
        "published": published_block(kept_cards()),
        "limits": limits_block(),
        "network-limits": network_limits_block(),
        "bounds": bounds_block(),
        "folders": folders_block(ROOT),
        "int8": int8_block(folder / "int8"),
        "own-data": own_data_block(folder / "own-data"),
        "busy-machine": busy_block(folder / "busy-machine"),
        **gpu_blocks(folder / "gpu"),
    }


def newest_reports(folder: Path = RESULTS) -> list[Report]:
    """Return the newest report of each machine and model in that folder."""
    return newest([read_report(path) for path in sorted(folder.glob("*.json"))])


def newest(reports: Sequence[Report]) -> list[Report]:
    """Return the newest of the reports of each machine and model."""
    by_subject: dict[tuple[str, str], Report] = {}
    for report in sorted(reports, key=lambda one: one.date):
        by_subject[report.machine.summary, report.model.name] = report
    return [by_subject[subject] for subject in sorted(by_subject)]


def picture_report(reports: Sequence[Report]) -> Report | None:
    """Return the report that is drawn: the newest of the zoo's default model with several batch sizes."""
    several = [one for one in reports if one.model.name == DEFAULT and len({cell.batch for cell in one.cells}) > 1]
    return max(several, key=lambda one: one.date, default=None)


def headline_block(reports: Sequence[Report]) -> str:
    """Return one row for PyTorch, the fastest fp32 backend and the fastest backend of each report that has parity.

    Reports of several machines have a column with their GPU or processor.
    """
    several = len({report.machine.summary for report in reports}) > 1
    rows = [
        {"model": "", **({"machine": report.machine.gpu or report.machine.processor} if several else {}), **row}
        for report in reports
        for row in _headline_rows(report)
    ]
    return markdown_table(rows) if rows else ""


def _headline_rows(report: Report) -> Iterator[dict[str, str]]:
    passed = {verdict.candidate for verdict in report.verdicts if verdict.passed}
    parities = {parity.candidate: parity for parity in report.parity if parity.candidate in (BASELINE, *passed)}
    cells = [
        cell
        for cell in report.cells
        if cell.label in parities and cell.scope in ("sync", "stream") and cell.valid and _ratio(cell, report)
    ]
    baseline = [cell for cell in cells if cell.label == BASELINE]
    fp32 = [cell for cell in cells if cell.precision == "fp32"]
    fastest: dict[str, Cell] = {}
    for group in filter(None, (baseline, fp32, cells)):
        best = max(group, key=lambda cell: (_ratio(cell, report), cell.images_per_s))
        fastest.setdefault(best.label, best)
    for label, cell in fastest.items():
        yield _headline_row(report, cell, parities[label])


def _headline_row(report: Report, cell: Cell, parity: Parity) -> dict[str, str]:
    lost_pp = 100 * (parity.lost - parity.won) / parity.images
    change = "none" if lost_pp == 0 else f"{abs(lost_pp):.2f} points {'lost' if lost_pp > 0 else 'gained'}"
    bound_pp = 100 * upper_loss(parity.lost, parity.won, parity.images)
    base = base_of(cell, report.cells, BASELINE)
    speed = ratio_of(cell, base).text if base is not None else ""
    is_base = cell.label == BASELINE
    return {
        "model": f"`{report.model.name}`",
        "backend": f"{cell.backend} {cell.precision}",
        "test accuracy": f"{parity.candidate_correct / parity.images:.2%}",
        "answers like PyTorch fp32": f"{parity.agreeing:,} of {parity.images:,}",
        "change of accuracy": "" if is_base else f"{change}; at most {bound_pp:.2f} points lost",
        "speed against eager PyTorch": "1" if is_base else f"{speed} at batch {cell.batch:,}",
    }


def _ratio(cell: Cell, report: Report) -> float:
    """Return the cell's rate over that of eager PyTorch at the same batch size; 0 where that is not known."""
    base = base_of(cell, report.cells, BASELINE)
    return cell.images_per_s / base.images_per_s if base is not None else 0.0


def zoo_block(cards: Sequence[ModelCard]) -> str:
    """Return one row a model, or an empty text without models."""
    rows = []
    for card in cards:
        size, training, score = card.input, card.training, card.score
        parameters = parameter_count(card.arch, in_channels=card.preprocessing.channels, classes=len(card.classes))
        rows.append(
            {
                "model": f"`{card.name}`",
                "parameters": f"{parameters:,}",
                "input": f"{size.height} x {size.width} x {size.channels}",
                "right answers on the test split": f"{score.correct:,} of {score.total:,}" if score else "unknown",
                "accuracy": f"{score.accuracy:.2%}" if score else "unknown",
                "recipe": f"`{training.recipe}`, {training.epochs} epochs, seed {training.seed}" if training else "",
                "augmentation": augmentation_text(training) if training else "",
                "trained": f"{training.train_s / 60:,.0f} minutes on {training.machine}" if training else "",
            }
        )
    return markdown_table(rows) if rows else ""


def augmentation_text(training: Training) -> str:
    """Return the augmentation of a training, spelled as for --augment."""
    nothing = asdict(NO_AUGMENTATION)
    used = training.settings.get("augmentation", {})
    return " ".join(f"`{option_name(name)}={value}`" for name, value in used.items() if value != nothing.get(name))


def published_block(cards: Sequence[ModelCard]) -> str:
    """Return the table of the rows that were trained, and below it the list of those that were not."""
    lines = [markdown_table(trained_rows(cards))]
    untrained = untrained_rows(cards)
    if untrained:
        lines += ["", "Not trained by rtk yet; published accuracies:", ""]
        for row in untrained:
            figures = ", ".join(f"{column} {value}" for column, value in row.published.items() if value)
            lines.append(f"- `{row.arch}` on {row.dataset}: {figures or 'none known'}")
    return "\n".join(lines)


def measured_block(reports: Sequence[Report]) -> str:
    """Return the tables of the newest report of each machine and model, or an empty text without reports."""
    return "\n\n".join(_tables_of(report) for report in newest(reports))


def _tables_of(report: Report) -> str:
    lines = [f"**{report.machine.summary}**: {report.model.name}, {report.date}, commit {report.machine.commit}", ""]
    lines += [f"- {name}: {runs_on}" for name, runs_on in report.backends.items()]
    lines += ["", markdown_table(report_table(report)), "", *(f"- {note}" for note in notes_on(report))]
    if report.parity:
        lines += [
            "",
            f"Parity on {report.dataset}, against PyTorch fp32:",
            "",
            markdown_table(parity_table(report.parity)),
        ]
    return "\n".join(lines)


def limits_block() -> str:
    """Return the limits of the parity gate for each precision, with the images that its margin needs."""
    rows = []
    for precision in PRECISIONS.values():
        fp32 = math.isinf(precision.largest_share)
        largest = f"{precision.equal_within(0):g} absolute" if fp32 else f"{precision.largest_share:g} of the spread"
        rows.append(
            {
                "precision": precision.name,
                "relative RMS error": f"at most {precision.relative_error:g}",
                "largest difference of a logit": f"at most {largest}",
                "same answers": f"at least {precision.agreement:.2%}",
                "margin": f"{precision.margin_pp:.2f} points",
                "images needed": f"{images_for(precision.margin_pp / 100):,}",
            }
        )
    return markdown_table(rows)


def network_limits_block() -> str:
    """Return the limits of the parity gate that depend on what 16 bits cost the network."""
    return markdown_table(
        [
            {
                "precision": one.name,
                "compared with": f"the error of {one.yardstick}",
                "relative RMS error": f"at most {one.error_multiple:g} times, {one.relative_error:g}",
                "mean difference of a logit": f"at most {one.shift_multiple:g} times, {one.class_shift:g}",
                "slope": f"1 ± {one.slope:g}",
                "asked again": f"at most {one.repeat:g}",
            }
            for one in PRECISIONS.values()
            if one.yardstick
        ]
    )


def bounds_block() -> str:
    """Return examples of the upper 95 % bound: what a measured loss on so many images shows."""
    return markdown_table(
        [
            {
                "images": f"{images:,}",
                "lost": f"{lost:,}",
                "won": f"{won:,}",
                "measured loss": f"{100 * (lost - won) / images:.2f} points",
                "95 % bound": f"{100 * upper_loss(lost, won, images):.3f} points",
            }
            for images, lost, won in BOUND_EXAMPLES
        ]
    )


def folders_block(root: Path) -> str:
    """Return a table of every folder of the package with the first line of its docstring."""
    rows = []
    rooms = sorted(path.parent for path in root.glob("*/__init__.py") if path.parent.name not in NOT_FOLDERS)
    for init in (path for room in rooms for path in sorted(room.rglob("__init__.py"))):
        docstring = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        folder = init.parent.relative_to(root).as_posix()
        rows.append({"folder": f"`{folder}/`", "purpose": docstring.split("\n")[0].replace("|", "\\|")})
    return markdown_table(rows).replace("---:", "---") if rows else ""  # text to the left
