"""rtk bench, with its second form --compare."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..bench.config import PRESETS, SCOPES, BenchConfig, parse_batches, parse_scopes
from ..core.errors import LimitError, ParityError, UsageError
from ..core.files import make_folder, make_writable_folder, write_whole
from ..core.text import text_table
from ..core.zoo import DEFAULT as ZOO_DEFAULT
from . import help as groups
from .options import INTERRUPTED, DataDir, WaitQuiet, given

if TYPE_CHECKING:
    from ..bench.report.report import Report
    from ..workflow.bench_request import BenchRequest

_log = logging.getLogger(__name__)

BATCHES = ",".join(map(str, BenchConfig.batches))
NOTHING_TO_JUDGE = "--require-parity: there is no backend to judge, except the reference"
COMPARISON = "Comparing reports"
"""The group of options in `--help`."""
LIMIT = 5.0
"""Per cent that `--compare` lets a cell lose."""


def bench(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(help="Checkpoint, graph, engine, model of the zoo, or architecture; also a foreign graph."),
    ] = ZOO_DEFAULT,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint whose answers are the reference; default: found by the sha256 in the card.",
            rich_help_panel=groups.MODEL,
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Accept a --reference whose sha256 is not the one in the model's card; with --compare, accept reports "
            "of different models, data sets or machines.",
            rich_help_panel=groups.MODEL,
        ),
    ] = False,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="Backend: torch, onnx, openvino or trt; repeatable; default: all that work here.",
            rich_help_panel=groups.BACKEND,
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Precision: fp32, fp16, bf16 or int8; repeatable; default: the model's.",
            rich_help_panel=groups.BACKEND,
            show_default=False,
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            help="Also measure eager PyTorch, torch.compile and a plain loop.", rich_help_panel=groups.BACKEND
        ),
    ] = True,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set whose test split is used for parity; default: the one that the model was trained on.",
            rich_help_panel=groups.DATA,
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW",
            help="Size of the images for an architecture, by default the one that it is known for, or for a graph of "
            "another program that takes any.",
            rich_help_panel=groups.DATA,
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            help=f"Batch sizes, separated by commas; default: {BATCHES}, or the preset's.",
            rich_help_panel=groups.MEASUREMENT,
            show_default=False,
        ),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Scope of the timing: {', '.join(SCOPES)}; repeatable; default: all except files.",
            rich_help_panel=groups.MEASUREMENT,
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Measuring rules of another benchmark: {', '.join(PRESETS)}.",
            rich_help_panel=groups.MEASUREMENT,
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help=f"Measuring time of all cells together; default: {BenchConfig.seconds:g}, or the preset's.",
            rich_help_panel=groups.MEASUREMENT,
            show_default=False,
        ),
    ] = None,
    wait_quiet: WaitQuiet = False,
    device: Annotated[
        str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.", rich_help_panel=groups.MACHINE)
    ] = "auto",
    require_parity: Annotated[
        str | None,
        typer.Option(
            help="Accuracy that may be lost, in percentage points; or default, mlperf-99, mlperf-99.9. Exit code 4 if "
            "a fault is found or more is lost, 5 if the images are too few to show it.",
            rich_help_panel=groups.PARITY,
            show_default=False,
        ),
    ] = None,
    parity: Annotated[
        bool,
        typer.Option(
            "--parity/--no-parity",
            help="Compare answers on the test split; --no-parity measures speed alone, on random images, and needs no "
            "data set and no reference.",
            rich_help_panel=groups.PARITY,
        ),
    ] = True,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.json, report.md and report.html.",
            rich_help_panel=groups.OUTPUT,
            show_default=False,
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print all columns, checks and notes.", rich_help_panel=groups.OUTPUT)
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="OLD NEW",
            help="Compare two reports instead of measuring.",
            rich_help_panel=COMPARISON,
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        float,
        typer.Option(
            help="Per cent of throughput that a cell may lose; exit code 4 beyond it.", rich_help_panel=COMPARISON
        ),
    ] = LIMIT,
) -> None:
    """Measure throughput, latency and test-set parity of every backend; of an architecture its speed alone."""
    if compare is not None:
        _refuse_unused(context, with_compare=True)
        _compare(*compare, limit=limit, force=force)
        return
    _refuse_unused(context, with_compare=False)
    from ..workflow.bench_request import BenchRequest
    from ..workflow.benchmark import run_benchmark

    request = BenchRequest(
        model=model,
        reference=reference,
        backends=tuple(backend or ()),
        precisions=tuple(dict.fromkeys(precision or ())),
        baselines=baselines,
        dataset=dataset,
        data_dir=data_dir,
        config=_config(preset, batch=batch, scopes=scope or (), seconds=seconds, wait_quiet=wait_quiet),
        seconds_given=seconds is not None,
        device=device,
        require_parity=require_parity or "default",
        force=force,
        parity=parity,
        image_size=image_size,
    )
    if not request.measures_parity:
        _refuse_parity_options(request, reference=reference, required=require_parity)
    if force and reference is None:
        raise UsageError("--force goes with --reference FILE or --compare OLD NEW")
    if require_parity is not None and set(request.backends) == {"torch"} and reference is None:
        raise ParityError(NOTHING_TO_JUDGE)
    if report is not None:
        make_writable_folder(report)
    found, judged = run_benchmark(request)
    _print_report(found, folder=report, verbose=verbose)
    if found.interrupted:
        _log.warning("stopped; the report holds what was measured until then")
        raise typer.Exit(INTERRUPTED)
    if require_parity is not None:
        _enforce_parity(found, judged=judged)


def _refuse_parity_options(request: "BenchRequest", *, reference: Path | None, required: str | None) -> None:
    """Raise UsageError for options that ask for a comparison of answers, where none is made."""
    from ..workflow.speed_model import no_reference

    asked = {"--require-parity": required is not None, "--reference": reference is not None}
    for option in (name for name, value in asked.items() if value):
        why = no_reference(request.model) or "--no-parity compares no answers"
        raise UsageError(f"{request.model}: {option}: {why}; omit {option}")


def _refuse_unused(context: typer.Context, *, with_compare: bool) -> None:
    """Raise UsageError for options that would have no effect with, or without, --compare."""
    names = {str(one.name): one.opts[0] if one.opts[0].startswith("-") else "MODEL" for one in context.command.params}
    requested = given(context)
    if not with_compare and "limit" in requested:
        raise UsageError("--limit goes with --compare OLD NEW")
    unused = [names[name] for name in requested if name not in ("compare", "limit", "force")]
    if with_compare and unused:
        raise UsageError(f"--compare: leave out {', '.join(unused)}, which would have no effect")


def _config(
    preset: str | None, *, batch: str | None, scopes: Sequence[str], seconds: float | None, wait_quiet: bool
) -> BenchConfig:
    """The options of the measurement as a config. Raises UsageError."""
    batches = parse_batches(batch) if batch is not None else None
    if preset is None:
        return BenchConfig(
            batches=batches or BenchConfig.batches,
            seconds=BenchConfig.seconds if seconds is None else seconds,
            scopes=parse_scopes(scopes) or BenchConfig.scopes,
            wait_quiet=wait_quiet,
        )
    if scopes:
        raise UsageError(f"--preset {preset} defines the scope; leave out --scope")
    return BenchConfig.from_preset(preset, batches=batches, seconds=seconds, wait_quiet=wait_quiet)


def _print_report(report: "Report", *, folder: Path | None, verbose: bool) -> None:
    from ..bench.report.render import report_text

    print(report_text(report, verbose=verbose))
    if folder:
        write_report(report, folder)
        print(f"\n{folder / 'report.html'}")


def write_report(report: "Report", folder: Path) -> None:
    """Write report.json, report.md and report.html, without the paths of the user's home and of rtk itself."""
    from ..bench.report.html import page_of
    from ..bench.report.render import report_markdown
    from ..core.paths import as_published

    make_folder(folder)
    for suffix, text in (("json", report.to_json()), ("md", report_markdown(report)), ("html", page_of(report))):
        write_whole(folder / f"report.{suffix}", as_published(text))


def _enforce_parity(report: "Report", *, judged: Sequence[str]) -> None:
    """Raise ParityError for no parity, after printing its worst images, and for a missing verdict.

    Raises InconclusiveError if a verdict is inconclusive and none is no parity.
    """
    from ..bench.report.tables import worst_table

    if not report.verdicts:
        raise ParityError(NOTHING_TO_JUDGE)
    for verdict in report.verdicts:
        if verdict.outcome == "failed":
            parity = next(one for one in report.parity if one.candidate == verdict.candidate)
            table = text_table(worst_table(parity, report.model.classes))
            print(f"\nThe worst answers of {verdict.candidate}\n\n{table}")
            verdict.enforce()
    missing = sorted({*judged} - {"torch"} - {verdict.candidate for verdict in report.verdicts})
    if missing:
        raise ParityError(f"--require-parity: {missing[0]} could not be judged: {report.unusable[missing[0]]}")
    for verdict in report.verdicts:
        verdict.enforce()


def _compare(old: Path, new: Path, *, limit: float, force: bool) -> None:
    """Print which cells changed beyond noise; exit code 4 if one of them lost more than the limit."""
    from ..bench.report.regressions import changes_text, compare_reports

    compared = compare_reports(old, new, force=force)
    print(changes_text(compared))
    slower = [change for change in compared.changes if change.slower_by_more_than(limit)]
    pooled = [change for change in compared.pooled if change.slower_by_more_than(limit)]
    if slower:
        worst = min(slower, key=lambda change: change.ratio)
        raise LimitError(
            f"{len(slower)} of {len(compared.changes)} cells are slower by more than {limit:g} %, "
            f"{worst.new.label} at batch {worst.new.batch} by {100 * (1 - worst.ratio):.1f} %"
        )
    if pooled:
        worst = min(pooled, key=lambda change: change.ratio)
        raise LimitError(
            f"{worst.new.label} is slower by more than {limit:g} % in all batch sizes together, "
            f"by {100 * (1 - worst.ratio):.1f} %"
        )
