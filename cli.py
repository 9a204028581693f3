"""The commands: parse, build a config, call the rooms and compose them, print. Errors become exit codes here.

Rooms are imported inside the commands, so that help loads nothing heavy.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from . import __version__
from .bench.config import BenchConfig
from .core.errors import (
    ArtifactError,
    BackendError,
    DataError,
    LimitError,
    ParityError,
    RtkError,
    UnknownNameError,
    UsageError,
)
from .core.files import whole_file
from .core.folders import cache_dir
from .core.progress import progress_bar
from .core.table import text_table
from .core.zoo import DEFAULT as ZOO_DEFAULT
from .export.config import EngineConfig
from .infer.formats import FORMATS, Fit, Format
from .train.config import Compile, Precision, TrainConfig

if TYPE_CHECKING:
    from .infer.classify import Answer
    from .infer.sources import Entry

SOME_UNREADABLE = 3
INTERRUPTED = 130
BROKEN_PIPE = 141

app = typer.Typer(
    name="rtk",
    help="Train residual networks, export them to ONNX and TensorRT, classify with them, and prove that they agree.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing help with rich takes longer than everything else about it
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the official data files.", envvar="RTK_DATA_DIR", show_envvar=True)
]


class _Debug:
    """Whether errors show their traceback."""

    on = False


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command."""
    _Debug.on = debug
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def train(
    context: typer.Context,
    arch: Annotated[str | None, typer.Argument(help="resnet20v1, resnet56v2, ...; see rtk models.")] = None,
    dataset: Annotated[str, typer.Option(help="cifar10, fashion-mnist, shapes, or a folder.")] = TrainConfig.dataset,
    recipe: Annotated[str, typer.Option(help="rtk, quick, paper or keras.")] = TrainConfig.recipe,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    lr: Annotated[float | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = TrainConfig.seed,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = TrainConfig.device,
    precision: Annotated[Precision, typer.Option(help="Of the arithmetic while training.")] = TrainConfig.precision,
    compile_: Annotated[Compile, typer.Option("--compile", help="torch.compile.")] = TrainConfig.compile,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Repeat bit by bit on a GPU too.")
    ] = TrainConfig.deterministic,
    holdout: Annotated[
        int, typer.Option(help="Hold out so many training images and keep the epoch that is best on them.")
    ] = TrainConfig.holdout,
    train_images: Annotated[
        int | None, typer.Option(help="Train on so many images only, drawn by the seed.", show_default=False)
    ] = None,
    eval_every: Annotated[int, typer.Option(help="Epochs between evaluations.")] = TrainConfig.eval_every,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.", show_default=False)] = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/ARCH-DATASET-sSEED.", show_default=False)
    ] = None,
) -> None:
    """Train a network: data set -> checkpoint."""
    from .core.machine import peak_memory_gib
    from .train import loop

    if resume is not None:
        _refuse_changed_options(context, "resume", "data_dir")
        run_dir = resume
    else:
        if arch is None:
            raise UsageError("an architecture is missing, such as resnet20v1; rtk models lists them")
        config = TrainConfig(
            arch=arch,
            dataset=dataset,
            recipe=recipe,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            device=device,
            precision=precision,
            compile=compile_,
            deterministic=deterministic,
            holdout=holdout,
            train_images=train_images,
            eval_every=eval_every,
            data_dir=data_dir,
            out=out,
        )
        run_dir = config.run_dir
    try:
        trained = loop.resume(run_dir, data_dir=data_dir, say=_say) if resume else loop.train(config, say=_say)
    except KeyboardInterrupt:
        kept = (run_dir / "last.pt").exists()
        _say(f"stopped; go on with: rtk train --resume {run_dir}" if kept else "stopped before the first epoch ended")
        sys.exit(INTERRUPTED)
    _say(f"peak memory {peak_memory_gib():.2f} GiB")
    score = trained.card.score
    assert score is not None  # the last epoch is always evaluated
    print(f"test accuracy {score.accuracy:.2%} ({score.correct:,} of {score.total:,}), test loss {score.loss:.4f}")
    print(trained.best)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A checkpoint, with --trt a graph too, or a model of the zoo.")],
    trt: Annotated[bool, typer.Option("--trt", help="Build a TensorRT engine from the graph.")] = False,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16 or int8; default: fp32, or a graph's own.", show_default=False)
    ] = None,
    int8_flavor: Annotated[str, typer.Option(help="int8 for whom: tensorrt or cpu.")] = "tensorrt",
    keep_fp32: Annotated[
        list[str] | None, typer.Option(help="int8: a layer to leave in fp32; repeatable.", show_default=False)
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="int8: show what each layer costs, and write nothing.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(help="int8: calibrate on its training split; default: the model's.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    flavor: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt-rtx.")] = EngineConfig.flavor,
    max_batch: Annotated[int, typer.Option(help="The largest batch of the engine.")] = EngineConfig.max_batch,
    opt_batch: Annotated[
        int | None, typer.Option(help="The batch that the engine is fastest at; default: 64.", show_default=False)
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Compute capability to build for, such as 8.9; repeatable; RTX only.")
    ] = None,
    workspace_mib: Annotated[
        int | None, typer.Option(help="Scratch memory of a layer, at most.", show_default=False)
    ] = None,
    hardware_compatibility: Annotated[
        str, typer.Option(help="none, ampere-plus or same-compute-capability; not for RTX.")
    ] = EngineConfig.hardware_compatibility,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Later minor versions may run the engine; not for RTX.")
    ] = EngineConfig.version_compatible,
    cache: Annotated[bool, typer.Option(help="Take the engine from the cache, and keep it there.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: beside the model.")] = None,
) -> None:
    """Export a model: checkpoint -> ONNX graph, checked before it is written; with --trt -> TensorRT engine."""
    from .core.checkpoint import load_checkpoint
    from .core.files import make_folder, write_whole
    from .core.flavor import choose_flavor
    from .core.precisions import precision_named
    from .road import export_graph, find_model

    found = find_model(model)
    folder = make_folder(out) if out else (Path() if found.in_zoo else found.given.parent)
    config = EngineConfig(
        graph=found.graph or folder / f"{found.name}.onnx",
        out=folder,
        flavor=flavor,
        max_batch=max_batch,
        opt_batch=opt_batch,
        targets=tuple(target or ()),
        workspace_mib=workspace_mib,
        hardware_compatibility=hardware_compatibility,
        version_compatible=version_compatible,
        cache=cache,
        precision=precision,
    )
    if found.engine or (found.graph and not found.checkpoint and not trt):
        raise UsageError(f"{model}: expected a checkpoint; an engine is made from a graph with --trt")
    if precision is not None:
        precision_named(precision)
    if precision != "int8" and (keep_fp32 or explain or dataset):
        raise UsageError("--keep-fp32, --explain and --dataset go with --precision int8")
    if trt:
        choose_flavor(flavor)  # before an export that would have been for nothing
    if found.checkpoint and precision == "int8":
        graph = export_int8(
            found.checkpoint,
            folder / f"{found.name}.int8.onnx",
            flavor=int8_flavor,
            keep_fp32=tuple(keep_fp32 or ()),
            dataset=dataset,
            data_dir=data_dir,
            explained=explain,
        )
        if graph is None:
            return
        config = replace(config, graph=graph)
    elif trt and found.in_zoo and found.graph and precision in (None, "fp32"):
        config = replace(config, graph=folder / found.graph.name)
        write_whole(config.graph, found.graph.read_bytes())
        print(config.graph)
    elif found.checkpoint:
        wanted = precision or "fp32"
        path = folder / (f"{found.name}.onnx" if wanted == "fp32" else f"{found.name}.{wanted}.onnx")
        exported = export_graph(load_checkpoint(found.checkpoint), path, precision=wanted)
        _say(f"largest logit difference from PyTorch: {exported.largest_difference:.2g}")
        config = replace(config, graph=exported.path)
        print(exported.path)
    if trt:
        from .export.to_tensorrt import engine_from_onnx

        built = engine_from_onnx(config)
        _say(
            f"from the cache: {built.info.plan_bytes:,} bytes"
            if built.cached
            else f"built in {built.info.build_s:.1f} s"
        )
        _say(f"{built.info.flavor} {built.info.version} for {built.info.built_for}; {built.info.profile}")
        _say(f"precision: {built.info.precision}")
        print(built.path)


def export_int8(
    checkpoint: Path,
    path: Path,
    *,
    flavor: str,
    keep_fp32: tuple[str, ...],
    dataset: str | None,
    data_dir: Path | None,
    explained: bool,
) -> Path | None:
    """rtk export --precision int8: calibrate and quantise, or with `explained` only show what each layer costs."""
    from .core.checkpoint import load_checkpoint
    from .core.datasets import open_dataset
    from .export.calibration import draw_calibration
    from .export.int8 import FLAVORS, Int8Config, int8_from_checkpoint
    from .export.int8_explain import explain

    chosen = next((known for known in FLAVORS if known == flavor), None)
    if chosen is None:
        raise UnknownNameError("int8 flavor", flavor, FLAVORS)
    config = Int8Config(flavor=chosen, keep_fp32=keep_fp32)
    loaded = load_checkpoint(checkpoint)
    calibration = draw_calibration(open_dataset(dataset or loaded.card.dataset, data_dir=data_dir), loaded.card)
    if explained:
        rows = [
            {
                "layer": cost.layer,
                "operator": cost.operator,
                "relative error": f"{cost.relative_error:.2%}",
                "largest difference": f"{cost.largest_difference:.2g}",
            }
            for cost in explain(loaded, calibration=calibration, config=config)
        ]
        print(text_table(rows))
        return None
    made = int8_from_checkpoint(loaded, path, calibration=calibration, config=config)
    _say(
        f"calibrated by {made.method} on {len(calibration.images_NHWC):,} training images; on {made.images:,} others "
        f"{made.agreeing:,} answers agree with PyTorch's, largest logit difference {made.largest_difference:.2g}"
    )
    print(made.path)
    return made.path


@app.command()
def classify(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders, quoted globs, zip and tar archives, .npy, .npz, idx and CIFAR binary files, "
            "cifar10:test and the like, or - for paths on stdin."
        ),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="A file of rtk's, or a model of the zoo.")] = ZOO_DEFAULT,
    backend: Annotated[str, typer.Option(help="auto, torch, onnx, openvino or trt.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 256,
    top_k: Annotated[int, typer.Option(min=1, help="Guesses for each image.")] = 1,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Default: by --output's name, else table.", show_default=False)
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file, whole or not at all.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an --output that was not finished.")] = False,
    sort_into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Put each image into DIR/<label>/, too.", show_default=False)
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="--sort-into makes symbolic links instead of copies.")] = False,
    fit: Annotated[Fit, typer.Option(help="Images of other proportions: crop the centre, or letterbox.")] = "crop",
    data_dir: DataDir = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode; default: one a core.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable input.")] = False,
) -> None:
    """Classify images: images -> labels. Unreadable ones are named, and the exit code is then 3."""
    from .infer.backend import BackendOptions
    from .infer.classify import ClassifyConfig
    from .infer.classify import classify as answers_of
    from .infer.decode import Decoder
    from .infer.output import lines, visible
    from .infer.sources import entries
    from .road import open_model

    by_name: Format = next((known for known in FORMATS if output and output.suffix == f".{known}"), "table")
    chosen = format_ or by_name
    journaled = output is not None and chosen != "table" and (output.is_file() or not output.exists())
    if (resume or chosen == "parquet") and not journaled:
        what = "--resume" if resume else "--format parquet"
        raise UsageError(f"{what}: needs --output with a file, in the format csv, jsonl or parquet")
    if chosen == "parquet":
        from .infer.parquet import check_parquet

        check_parquet()
    if sort_into is not None:
        from .infer.sort import check_outside

        check_outside(sort_into, paths)
    elif link:
        raise UsageError("--link: needs --sort-into")
    unreadable = 0

    def watched(answers: "Iterator[Answer]") -> "Iterator[Answer]":
        nonlocal unreadable
        for answer in answers:
            if answer.error:
                unreadable += 1
                if strict:
                    raise DataError(f"{visible(answer.file)}: {answer.error}; stopped, as --strict says")
                _say(f"rtk: {visible(answer.file)}: {visible(answer.error)}")
            advance(1)
            yield answer

    options = BackendOptions(device=device, shares_cores=True)
    with ExitStack() as stack:
        opened = stack.enter_context(open_model(model, backend=backend, options=options, say=_say))
        decoder = stack.enter_context(Decoder(opened.card.input, processes=workers, fit=fit))
        config = ClassifyConfig(batch_size=batch_size, top_k=min(top_k, len(opened.card.classes)))
        advance = stack.enter_context(progress_bar("classifying", None, unit="images"))
        found = entries(paths, data_dir=data_dir)
        sorter = None
        if sort_into is not None:
            from .infer.sort import Sorter

            sorter = Sorter(sort_into, opened.card.classes, link=link)

        def answered(found: "Iterator[Entry]") -> "Iterator[Answer]":
            if sorter is None:
                return answers_of(found, opened, decoder, config)
            return sorter.sorted(answers_of(sorter.noted(found), opened, decoder, config))

        if journaled:
            from .infer.journal import Journal, RunKey

            assert output is not None
            card = opened.card
            key = RunKey(
                model=f"{card.name} {card.precision} {card.checkpoint_sha256[:12]}".strip(),
                backend=opened.name,
                format=chosen,
                top_k=config.top_k,
                batch_size=min(batch_size, opened.max_batch or batch_size),
                fit=fit,
            )
            journal = stack.enter_context(Journal(output, key, resume=resume, say=_say))
            if journal.is_whole:
                _say(f"rtk: {output}: is finished, there is nothing to go on with; without --resume it is made anew")
                return
            journal.write(watched(journal.new(answered(journal.remaining(found)))))
            journal.finish()
            unreadable += journal.unreadable_before
        else:
            assert chosen != "parquet"
            text = lines(watched(answered(found)), chosen, top_k=config.top_k)
            if output is None:
                for line in text:
                    sys.stdout.write(line)
            else:
                with whole_file(output) as file:
                    file.writelines(line.encode() for line in text)
    if unreadable:
        raise typer.Exit(SOME_UNREADABLE)


@app.command()
def bench(
    model: Annotated[str, typer.Argument(help="A file of rtk's, or a model of the zoo.")] = ZOO_DEFAULT,
    backend: Annotated[
        list[str] | None, typer.Option(help="torch, onnx, openvino or trt; repeatable. Default: all that work here.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = ",".join(map(str, BenchConfig.batches)),
    dataset: Annotated[
        str | None, typer.Option(help="Whose test split is answered; default: the one the model was trained on.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Checkpoint that answers are compared with.")] = None,
    seconds: Annotated[float, typer.Option(help="Measuring time, all cells together.")] = BenchConfig.seconds,
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
    files: Annotated[
        bool, typer.Option("--files", help="Measure from PNG files to labels instead, as a share of what is possible.")
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="OLD NEW", help="Compare two reports instead of measuring.", show_default=False),
    ] = None,
    limit: Annotated[float, typer.Option(help="With --compare: per cent that may be lost.")] = 5.0,
    data_dir: DataDir = None,
) -> None:
    """Measure throughput, latency and test-set parity of every backend."""
    if compare is not None:
        compare_benches(*compare, limit=limit)
        return
    if train_ is not None:
        bench_training(train_, dataset or "cifar10", device=device, seconds=seconds, data_dir=data_dir)
        return
    if files:
        bench_files(model, (backend or ["auto"])[0], device=device, dataset=dataset, data_dir=data_dir)
        return
    from .bench.config import parse_batches
    from .bench.page import page_of
    from .bench.run import run
    from .bench.verdict import requirement
    from .core.datasets import open_dataset
    from .core.files import make_folder, write_whole
    from .infer.backend import BACKENDS, BackendOptions, open_backend
    from .road import artifact_for, find_model, find_reference, read_card

    config = BenchConfig(batches=parse_batches(batch), seconds=seconds)
    required = requirement(require_parity or "default")
    found = find_model(model)
    data = open_dataset(dataset or read_card(found).dataset, data_dir=data_dir)
    options = BackendOptions(device=device)
    with ExitStack() as stack:
        answers_to = stack.enter_context(open_backend("torch", find_reference(found, explicit=reference), options))
        opened, unusable = {}, {}
        for name in backend or BACKENDS:
            try:
                if name == "torch" and reference is None:
                    opened[name] = answers_to
                else:
                    artifact = artifact_for(name, found, say=_say, max_batch=max(config.batches))
                    opened[name] = stack.enter_context(open_backend(name, artifact, options))
            except (BackendError, ArtifactError) as error:
                if backend:
                    raise
                unusable[name] = str(error)
        found_out = run(opened, answers_to, data, config, unusable=unusable, required=required)
    print(found_out.to_text())
    if report:
        make_folder(report)
        write_whole(report / "report.json", found_out.to_json())
        write_whole(report / "report.md", found_out.to_markdown())
        write_whole(report / "report.html", page_of(found_out))
        print(f"\n{report / 'report.html'}")
    if require_parity is not None:
        if not found_out.verdicts:
            raise ParityError("--require-parity: no backend but the reference could be judged")
        for verdict in found_out.verdicts:
            verdict.enforce()
        unjudged = sorted({*opened} - {"torch"} - {verdict.candidate for verdict in found_out.verdicts})
        if unjudged:
            raise ParityError(f"--require-parity: {unjudged[0]} could not be judged: {found_out.unusable[unjudged[0]]}")


def compare_benches(old: Path, new: Path, *, limit: float) -> None:
    """rtk bench --compare: what changed beyond noise; exit code 4 when a cell lost more than the limit."""
    from .bench.compare import change_rows, compare_reports

    changes = compare_reports(old, new)
    print(text_table(change_rows(changes)))
    lost = [change for change in changes if change.slower_by_more_than(limit)]
    if lost:
        worst = min(lost, key=lambda change: change.ratio)
        raise LimitError(
            f"{len(lost)} of {len(changes)} cells are slower by more than {limit:g} %, "
            f"{worst.backend} at batch {worst.batch} by {100 * (1 - worst.ratio):.1f} %"
        )


def bench_training(arch: str, dataset: str, *, device: str, seconds: float, data_dir: Path | None) -> None:
    """rtk bench --train: images per second of rtk's training, as a ratio to the plain loop in the same run."""
    from .bench.report import throughput_table
    from .bench.training import Contender, measure_training
    from .core.datasets import open_dataset
    from .core.machine import this_machine
    from .train.steps import endless_steps

    config = TrainConfig(arch, dataset=dataset, device=device)
    split = open_dataset(dataset, data_dir=data_dir).split("train")
    card, arithmetic, words, steps = endless_steps(config, split)
    with progress_bar("measuring", None, unit="rounds") as advance:
        cells = measure_training(
            card,
            split,
            [Contender("rtk", steps)],
            BenchConfig(seconds=seconds),
            device=str(arithmetic.device),
            batch=config.values.batch_size,
            advance=advance,
        )
    rates = {cell.backend: cell.images_per_s for cell in cells}
    print(f"Training {arch} on {dataset}, {words}; {this_machine().summary}\n")
    print(text_table(throughput_table(cells)))
    print(f"\nrtk {rates['rtk'] / rates['plain loop']:.2f} x the plain loop", end="; ")
    print(f"the plain loop {rates['plain loop'] / rates['bare loop']:.2f} of the bare one", end="; ")
    print(f"an epoch of {len(split):,} images in {len(split) / rates['rtk']:.1f} s")


def bench_files(model: str, backend: str, *, device: str, dataset: str | None, data_dir: Path | None) -> None:
    """rtk bench --files: from PNG files to labels, as a share of what decoding and the backend allow together."""
    from .bench.files import measure_files
    from .core.datasets import open_dataset
    from .core.machine import this_machine
    from .infer.backend import BackendOptions
    from .infer.classify import ClassifyConfig
    from .road import open_model

    with open_model(
        model, backend=backend, options=BackendOptions(device=device, shares_cores=True), say=_say
    ) as opened:
        split = open_dataset(dataset or opened.card.dataset, data_dir=data_dir).split("test")
        with progress_bar("measuring", 3, unit="rounds") as advance:
            result = measure_files(opened, split, ClassifyConfig(), rounds=3, advance=advance)
        print(f"{result.images:,} PNG files to labels, {opened.runs_on}; {this_machine().summary}")
    print(
        f"decoding alone  {result.decode_per_s:8,.0f} images/s\nbackend alone   {result.backend_per_s:8,.0f} images/s"
    )
    print(
        f"both allow      {result.bound_per_s:8,.0f} images/s\nfiles to labels {result.classify_per_s:8,.0f} images/s"
    )
    print(f"share of what is possible: {result.share:.2f}")


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(help="A checkpoint, graph or engine, or a model of the zoo.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole card as JSON.")] = False,
) -> None:
    """Show the card of a model: what it is, what it was trained on, how well it does."""
    from .core.engine import engine_problem, read_engine_info
    from .road import find_model, read_card

    found = find_model(file)
    if found.engine:
        info = read_engine_info(found.engine)
        print(info.to_json().rstrip() if as_json else info.to_text())
        problem = engine_problem(found.engine)
        if problem:
            raise ArtifactError(f"{found.engine}: {problem}")
        return
    card = read_card(found)
    print(card.to_json(indent=2) if as_json else card.to_text())


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Show this architecture's layers.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List architectures and the zoo; or the layers of one architecture."""
    from .core.models.names import known_architectures
    from .core.models.summary import layer_table, parameter_count
    from .core.zoo import zoo_card, zoo_names

    if name is not None:
        rows = layer_table(name)
        print(json.dumps(rows, indent=1) if as_json else text_table(rows))
        return
    architectures = [{"architecture": arch, "parameters": parameter_count(arch)} for arch in known_architectures()]
    zoo = [
        {
            "model": card.name,
            "architecture": card.arch,
            "data set": card.dataset,
            "test accuracy": f"{card.score.accuracy:.2%}" if card.score else "unknown",
            "recipe": f"{card.training.recipe}, {card.training.epochs} epochs" if card.training else "unknown",
        }
        for card in map(zoo_card, zoo_names())
    ]
    if as_json:
        print(json.dumps({"architectures": architectures, "zoo": zoo}, indent=1))
    else:
        print(f"Architectures (parameters at 32 x 32 x 3, 10 classes)\n\n{text_table(architectures)}")
        print(f"\nThe zoo: models that ship with rtk\n\n{text_table(zoo)}")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    try_: Annotated[str | None, typer.Option("--try", hidden=True)] = None,
    device: Annotated[str, typer.Option(hidden=True)] = "cpu",
) -> None:
    """Find out what works here: every backend is really tried, and what is missing is named with its fix."""
    from .core.cuda import driver_cuda, gpu, gpu_count, no_gpu_reason
    from .core.flavor import FLAVORS
    from .core.machine import this_machine
    from .doctor import answer_of_trial, trials_here, try_here, try_in_own_process
    from .infer.backend import BACKENDS

    if try_ is not None:
        print(answer_of_trial(try_here(try_, device)))
        return
    machine = this_machine()
    gpus = [gpu(index) for index in range(gpu_count())]
    flavors = {name: flavor.version() for name, flavor in FLAVORS.items() if flavor.installed}
    trials = [try_in_own_process(backend, where) for backend, where in trials_here(BACKENDS)]
    if as_json:
        found = {
            "machine": asdict(machine),
            "gpus": [asdict(one) for one in gpus],
            "driver_cuda": driver_cuda(),
            "tensorrt": flavors,
            "trials": [asdict(trial) for trial in trials],
        }
        print(json.dumps(found, indent=1))
        return
    print(f"machine: {machine.summary}")
    for one in gpus:
        print(f"GPU {one.index}: {one.name}, compute capability {one.compute_capability}, ", end="")
        cuda = ".".join(map(str, driver_cuda() or ()))
        print(f"{one.memory_bytes / 2**30:.0f} GiB, driver {machine.driver}, CUDA {cuda}")
    if not gpus:
        print(f"GPU: {no_gpu_reason()}")
    print(f"TensorRT: {', '.join(f'{name} {v}' for name, v in flavors.items()) or 'none: pip install tensorrt-rtx'}")
    print(f"Python {machine.python}; " + ", ".join(f"{name} {v}" for name, v in machine.libraries.items()))
    for trial in trials:
        print(f"{trial.backend:8} {trial.device:7} {'works' if trial.works else 'does not work'}: {trial.words}")


cache_app = typer.Typer(help="The engines and graphs that rtk keeps to not make them twice.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@cache_app.command("ls")
def cache_ls() -> None:
    """List what is kept."""
    from .core.engine_cache import cached_engines

    rows: list[dict[str, object]] = [
        {
            "kind": "engine",
            "model": entry.info.card.name if entry.info else "unknown",
            "made by": f"{entry.info.flavor} {entry.info.version}" if entry.info else "unknown",
            "for": entry.info.built_for if entry.info else "unknown",
            "bytes": entry.bytes,
            "path": str(entry.engine),
            "problem": entry.problem,
        }
        for entry in cached_engines()
    ]
    empty = {"model": "", "made by": "", "for": "", "problem": ""}
    rows += [{"kind": "graph", **empty, "bytes": path.stat().st_size, "path": str(path)} for path in cached_graphs()]
    names = ("kind", "model", "made by", "for", "bytes", "problem", "path")
    print(text_table([{name: row[name] for name in names} for row in rows]))


@cache_app.command("verify")
def cache_verify() -> None:
    """Read everything that is kept and compare it with its checksums; exit code 1 when something is damaged."""
    from .core.engine_cache import cached_engines

    entries = cached_engines()
    damaged = [f"{entry.engine}: {entry.problem}" for entry in entries if entry.problem]
    for line in damaged:
        print(line)
    print(f"{len(entries) - len(damaged)} of {len(entries)} engines are whole")
    if damaged:
        raise ArtifactError(f"{len(damaged)} damaged; they are built anew when needed, or run: rtk cache clear")


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove everything that is kept."""
    import shutil

    from .core.engine_cache import clear_engines

    count, size = clear_engines()
    graphs = cached_graphs()
    size += sum(path.stat().st_size for path in graphs)
    for folder in ("graphs", "opened", "rtx", "timings"):
        shutil.rmtree(cache_dir() / folder, ignore_errors=True)
    print(f"removed {count} engines and {len(graphs)} graphs, {size:,} bytes")


def cached_graphs() -> list[Path]:
    """The graphs in the cache."""
    return sorted((cache_dir() / "graphs").glob("*.onnx"))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
) -> None:
    """Walk the whole road on drawn shapes: train, export, classify, bench. About a minute on two CPU cores."""
    from .demo import run_demo

    run_demo(out, command=_run_command)


def _run_command(*words: str) -> None:
    """Run a command line of rtk's in this process, shown as a user would type it."""
    print(f"\n$ rtk {' '.join(words)}", flush=True)
    app(list(words), standalone_mode=False)
    sys.stdout.flush()


def _refuse_changed_options(context: typer.Context, *allowed: str) -> None:
    """Raise UsageError when the command was given an option that it would ignore."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            option = next(p for p in context.command.params if p.name == name)
            raise UsageError(f"{option.opts[0]} cannot be changed when a run goes on; start a new one, with --out")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fail(error: RtkError) -> NoReturn:
    print(f"rtk: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(error.exit_code)


def main() -> None:
    """Run the command line; errors that rtk raises on purpose become one line and an exit code."""
    try:
        app()
    except RtkError as error:
        if _Debug.on:
            raise
        _fail(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
