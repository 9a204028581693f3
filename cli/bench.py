"""rtk bench, with its second form --compare."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..bench.config import PRESETS, SCOPES, BenchConfig, parse_batches
from ..core.files import make_writable_folder
from ..core.text import text_table
from ..core.zoo import DEFAULT as ZOO_DEFAULT
from ..workflow.bench_options import LIMIT
from . import help as groups
from .network_options import AllowCode, NetArg, named_network
from .options import INTERRUPTED, DataDir, WaitQuiet, given

if TYPE_CHECKING:
    from ..bench.report.report import Report

_log = logging.getLogger(__name__)

BATCHES = ",".join(map(str, BenchConfig.batches))
COMPARISON = "Comparing reports"
"""The group of options in `--help`."""


def bench(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(help="Checkpoint, graph, engine, model of the zoo, or architecture; also a foreign graph."),
    ] = ZOO_DEFAULT,
    net_arg: NetArg = None,
    allow_code: AllowCode = None,
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
    from ..workflow.bench_options import bench_config, check_request
    from ..workflow.bench_request import BenchRequest
    from ..workflow.benchmark import run_benchmark

    request = BenchRequest(
        model=named_network(model, net_arg),
        reference=reference,
        backends=tuple(backend or ()),
        precisions=tuple(dict.fromkeys(precision or ())),
        baselines=baselines,
        dataset=dataset,
        data_dir=data_dir,
        config=bench_config(
            preset,
            batches=None if batch is None else parse_batches(batch),
            scopes=scope or (),
            seconds=seconds,
            wait_quiet=wait_quiet,
        ),
        seconds_given=seconds is not None,
        device=device,
        require_parity=require_parity or "default",
        force=force,
        parity=parity,
        image_size=image_size,
    )
    check_request(request, require_parity=require_parity)
    if report is not None:
        make_writable_folder(report)
    found, judged = run_benchmark(request)
    _print_report(found, folder=report, verbose=verbose)
    if found.interrupted:
        _log.warning("stopped; the report holds what was measured until then")
        raise typer.Exit(INTERRUPTED)
    if require_parity is not None:
        _enforce_parity(found, judged=judged)


def _refuse_unused(context: typer.Context, *, with_compare: bool) -> None:
    """Raise UsageError for options that would have no effect with, or without, --compare."""
    from ..workflow.bench_options import refuse_unused

    names = {str(one.name): one.opts[0] if one.opts[0].startswith("-") else "MODEL" for one in context.command.params}
    refuse_unused([names[name] for name in given(context)], compares=with_compare)


def _print_report(report: "Report", *, folder: Path | None, verbose: bool) -> None:
    from ..bench.report.render import report_text
    from ..workflow.bench_options import write_report

    print(report_text(report, verbose=verbose))
    if folder:
        print(f"\n{write_report(report, folder)}")


def _enforce_parity(report: "Report", *, judged: Sequence[str]) -> None:
    """Raise the failure of parity, if there is one, after printing the worst images of the first faulty backend."""
    from ..bench.report.tables import worst_table
    from ..workflow.bench_options import parity_failure

    failed = next((verdict for verdict in report.verdicts if verdict.outcome == "failed"), None)
    if failed is not None:
        parity = next(one for one in report.parity if one.candidate == failed.candidate)
        table = text_table(worst_table(parity, report.model.classes))
        print(f"\nThe worst answers of {failed.candidate}\n\n{table}")
    if (failure := parity_failure(report, judged=judged)) is not None:
        raise failure


def _compare(old: Path, new: Path, *, limit: float, force: bool) -> None:
    """Print which cells changed beyond noise; exit code 4 if one of them lost more than the limit."""
    from ..bench.report.regressions import changes_text, compare_reports
    from ..workflow.bench_options import limit_failure

    compared = compare_reports(old, new, force=force)
    print(changes_text(compared))
    if (failure := limit_failure(compared, limit)) is not None:
        raise failure
