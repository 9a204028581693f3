"""rtk bench, with its other forms: --train, --files, --compare."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..bench.config import PRESETS, SCOPES, BenchConfig, parse_batches, parse_scopes
from ..core.errors import LimitError, ParityError, UsageError
from ..core.text import text_table
from ..core.zoo import DEFAULT as ZOO_DEFAULT
from ..train.config import TrainConfig
from .bench_files import bench_files
from .bench_training import bench_training
from .options import INTERRUPTED, DataDir, given

if TYPE_CHECKING:
    from ..bench.measure.cell import Cell
    from ..bench.report.report import Report

_log = logging.getLogger(__name__)

FORMS = {
    "compare": {"limit"},
    "train_": {"keras", "dataset", "device", "seconds", "data_dir"},
    "files": {"model", "backend", "precision", "dataset", "reference", "device", "images", "memory", "data_dir"},
}
"""The options that make another command of this one, and those that go with each; OWN go with nothing else."""
OWN = {"limit": "--compare OLD NEW", "keras": "--train ARCH", "images": "--files", "memory": "--files"}
BATCHES = ",".join(map(str, BenchConfig.batches))


def bench(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A file of rtk's, or a model of the zoo.")] = ZOO_DEFAULT,
    backend: Annotated[
        list[str] | None, typer.Option(help="torch, onnx, openvino or trt; repeatable. Default: all that work here.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="fp32, fp16, bf16 or int8; repeatable. Default: the model's.", show_default=False),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help=f"Batch sizes; default: {BATCHES}, or the preset's.", show_default=False)
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What is timed: {', '.join(SCOPES)}; repeatable. Default: all but files.", show_default=False
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"As others measure: {', '.join(PRESETS)}.", show_default=False)
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Measure eager PyTorch, torch.compile and a plain loop beside it.")
    ] = True,
    dataset: Annotated[
        str | None, typer.Option(help="Whose test split is answered; default: the one the model was trained on.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Checkpoint that answers are compared with.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help=f"Measuring time, all cells together; default: {BenchConfig.seconds:g}, or the preset's.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    require_parity: Annotated[
        str | None,
        typer.Option(
            help="Points that may be lost, default, mlperf-99 or mlperf-99.9; exit code 4.", show_default=False
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for report.json, .md and .html.")] = None,
    train_: Annotated[
        str | None,
        typer.Option("--train", metavar="ARCH", help="Measure training of this network instead.", show_default=False),
    ] = None,
    keras: Annotated[
        bool, typer.Option("--keras", help="With --train: measure the Keras example's own training beside it.")
    ] = False,
    files: Annotated[
        bool, typer.Option("--files", help="Measure from PNG files to labels instead, as a share of what is possible.")
    ] = False,
    images: Annotated[int, typer.Option(min=1, help="With --files: how many.")] = 10_000,
    memory: Annotated[int, typer.Option(min=0, help="With --files: watch the memory over so many, too.")] = 0,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="OLD NEW", help="Compare two reports instead of measuring.", show_default=False),
    ] = None,
    limit: Annotated[float, typer.Option(help="With --compare: per cent that may be lost.")] = 5.0,
    data_dir: DataDir = None,
) -> None:
    """Measure throughput, latency and test-set parity of every backend."""
    check_form(context)
    if compare is not None:
        compare_benches(*compare, limit=limit)
        return
    if train_ is not None:
        training = TrainConfig(train_, dataset=dataset or "cifar10", device=device, data_dir=data_dir)
        bench_training(training, seconds=seconds or BenchConfig.seconds, keras=keras)
        return
    if files:
        bench_files(
            model,
            backend=single("--backend", backend),
            precision=single("--precision", precision),
            device=device,
            dataset=dataset,
            reference=reference,
            data_dir=data_dir,
            images=images,
            memory=memory,
        )
        return
    from ..bench.parity.verdict import requirement
    from ..infer.trt.preflight import check_machine
    from ..workflow.artifacts import artifact_for
    from ..workflow.models import find_model, find_reference, read_card

    config = config_of(preset, batch=batch, scopes=scope or (), seconds=seconds)
    required = requirement(require_parity or "default")
    found = find_model(model)
    if "trt" in (backend or ()):
        check_machine(device=device)  # before anything heavy is loaded, which would have been for nothing
    from ..bench.measure.cell import label_of
    from ..bench.parity.compare import labelled_as
    from ..bench.report.render import report_text
    from ..bench.run import run
    from ..core.artifacts.parity_cache import forget_parity, remember_parity
    from ..core.data.datasets import open_dataset
    from ..infer.backend import BackendOptions
    from ..infer.open_backend import open_backend
    from ..workflow.open_backends import open_contenders

    data = open_dataset(dataset or read_card(found).dataset, data_dir=data_dir)
    options = BackendOptions(device=device, cuda_graphs=bool(preset) and PRESETS[config.preset].cuda_graphs)
    checkpoint = find_reference(found, explicit=reference)
    with ExitStack() as stack:
        answers_to = stack.enter_context(open_backend("torch", checkpoint, replace(options, cuda_graphs=False)))
        labelled_as(answers_to.card.classes, data.split("test"), data.classes, name=data.name)  # before any export
        opened = open_contenders(
            found,
            answers_to,
            backends=backend or (),
            precisions=tuple(dict.fromkeys(precision or ())),
            baselines=baselines,
            config=config,
            options=options,
            dataset=data,
            reference=checkpoint,
            given=reference is not None,
            stack=stack,
        )
        found_out = run(
            opened.contenders,
            answers_to,
            data,
            config.for_contenders(len(opened.contenders), seconds_given=seconds is not None),
            unusable=opened.unusable,
            required=required,
            graph=None if found.engine else artifact_for("onnx", find_model(str(checkpoint))),
        )
    print(report_text(found_out))
    onnx, openvino = (label_of(name, read_card(found).precision) for name in ("onnx", "openvino"))
    if any(verdict.candidate == openvino and verdict.passed for verdict in found_out.verdicts):
        keep = forget_parity if faster(found_out.cells, onnx, openvino) else remember_parity
        keep(artifact_for("openvino", found), "openvino")  # which --backend auto looks for
    if report:
        write_report(found_out, report)
    if found_out.interrupted:
        _log.warning("stopped; the report holds what was measured until then")
        raise typer.Exit(INTERRUPTED)
    if require_parity is not None:
        enforce_parity(found_out, judged=[one.label for one in opened.contenders if not one.baseline])


def check_form(context: typer.Context) -> None:
    """Raise UsageError for options that would have no effect beside the others."""
    options = {str(one.name): one.opts[0] if one.opts[0].startswith("-") else "MODEL" for one in context.command.params}
    asked = given(context)
    form = next((name for name in FORMS if name in asked), None)
    if form is None:
        alone = next((name for name in OWN if name in asked), None)
        if alone is not None:
            raise UsageError(f"{options[alone]} goes with {OWN[alone]}")
    else:
        idle = [options[name] for name in asked if name not in {form, *FORMS[form]}]
        if idle:
            raise UsageError(f"{options[form]}: leave out {', '.join(idle)}, which would have no effect")


def single(option: str, values: Sequence[str] | None) -> str | None:
    """The one value of an option that may be repeated elsewhere, None without. Raises UsageError."""
    if values is not None and len(values) > 1:
        raise UsageError(f"{option} {values[1]}: one alone goes with --files")
    return values[0] if values else None


def config_of(preset: str | None, *, batch: str | None, scopes: Sequence[str], seconds: float | None) -> BenchConfig:
    """The options as one config. Raises UsageError."""
    batches = parse_batches(batch) if batch is not None else None
    if preset is None:
        return BenchConfig(
            batches=batches or BenchConfig.batches,
            seconds=BenchConfig.seconds if seconds is None else seconds,
            scopes=parse_scopes(scopes) or BenchConfig.scopes,
        )
    if scopes:
        raise UsageError(f"--preset {preset}: it says what is timed; leave out --scope")
    return BenchConfig.from_preset(preset, batches=batches, seconds=seconds)


def faster(cells: "Sequence[Cell]", one: str, other: str) -> bool:
    """Whether one backend's rate is the higher one, at the largest batch that both have figures for in one scope."""
    rates = {(cell.batch, cell.scope, cell.label): cell.images_per_s for cell in cells if cell.believed}
    both = [(batch, scope) for batch, scope, label in rates if label == one and (batch, scope, other) in rates]
    return bool(both) and rates[*max(both), one] > rates[*max(both), other]


def write_report(report: "Report", folder: Path) -> None:
    """report.json, report.md and report.html, and where the last of them lies."""
    from ..bench.report.html import page_of
    from ..bench.report.render import report_markdown
    from ..core.files import make_folder, write_whole
    from ..core.paths import without_home

    make_folder(folder)
    for suffix, text in (("json", report.to_json()), ("md", report_markdown(report)), ("html", page_of(report))):
        write_whole(folder / f"report.{suffix}", without_home(text))
    print(f"\n{folder / 'report.html'}")


def enforce_parity(report: "Report", *, judged: Sequence[str]) -> None:
    """Raise ParityError where a verdict does not hold, its worst images listed, or is missing."""
    from ..bench.report.render import worst_table

    if not report.verdicts:
        raise ParityError("--require-parity: no backend but the reference could be judged")
    for verdict in report.verdicts:
        if not verdict.passed:
            parity = next(one for one in report.parity if one.candidate == verdict.candidate)
            print(
                f"\nThe worst answers of {verdict.candidate}\n\n{text_table(worst_table(parity, report.model.classes))}"
            )
        verdict.enforce()
    missing = sorted({*judged} - {"torch"} - {verdict.candidate for verdict in report.verdicts})
    if missing:
        raise ParityError(f"--require-parity: {missing[0]} could not be judged: {report.unusable[missing[0]]}")


def compare_benches(old: Path, new: Path, *, limit: float) -> None:
    """rtk bench --compare: what changed beyond noise; exit code 4 when a cell lost more than the limit."""
    from ..bench.report.regressions import change_rows, compare_reports

    changes = compare_reports(old, new)
    print(text_table(change_rows(changes)))
    lost = [change for change in changes if change.slower_by_more_than(limit)]
    if lost:
        worst = min(lost, key=lambda change: change.ratio)
        raise LimitError(
            f"{len(lost)} of {len(changes)} cells are slower by more than {limit:g} %, "
            f"{worst.new.label} at batch {worst.new.batch} by {100 * (1 - worst.ratio):.1f} %"
        )
