"""The commands: parse, build a config, call the rooms and compose them, print. Errors become exit codes here.

Rooms are imported inside the commands, so that help loads nothing heavy.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from . import __version__
from .core.errors import DataError, RtkError, UnknownNameError, UsageError
from .core.files import whole_file
from .core.progress import progress_bar
from .core.zoo import DEFAULT as ZOO_DEFAULT
from .train.config import TrainConfig

if TYPE_CHECKING:
    from .infer.classify import Answer

SOME_UNREADABLE = 3
INTERRUPTED = 130
BROKEN_PIPE = 141

app = typer.Typer(
    name="rtk",
    help="Train residual networks, export them to ONNX and TensorRT, classify with them, and prove that they agree.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
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
    recipe: Annotated[str, typer.Option(help="rtk, paper or keras.")] = TrainConfig.recipe,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    lr: Annotated[float | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = TrainConfig.seed,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = TrainConfig.device,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16, while training.")] = TrainConfig.precision,
    compile_: Annotated[str, typer.Option("--compile", help="auto, on or off.")] = TrainConfig.compile,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Repeat bit by bit on a GPU too.")
    ] = TrainConfig.deterministic,
    holdout: Annotated[
        int, typer.Option(help="Hold out so many training images and keep the epoch that is best on them.")
    ] = TrainConfig.holdout,
    train_images: Annotated[
        int | None, typer.Option(help="Train on the first so many images only.", show_default=False)
    ] = None,
    eval_every: Annotated[int, typer.Option(help="Epochs between evaluations.")] = TrainConfig.eval_every,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/ARCH-DATASET-sSEED.", show_default=False)
    ] = None,
) -> None:
    """Train a network: data set -> checkpoint."""
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
        trained = loop.resume(run_dir, say=_say) if resume else loop.train(config, say=_say)
    except KeyboardInterrupt:
        kept = (run_dir / "last.pt").exists()
        _say(f"stopped; go on with: rtk train --resume {run_dir}" if kept else "stopped before the first epoch ended")
        sys.exit(INTERRUPTED)
    score = trained.card.score
    assert score is not None  # the last epoch is always evaluated
    print(f"test accuracy {score.accuracy:.2%} ({score.correct:,} of {score.total:,}), test loss {score.loss:.4f}")
    print(trained.best)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A checkpoint (.pt), or a model of the zoo.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: beside the model.")] = None,
) -> None:
    """Export a checkpoint: checkpoint -> ONNX graph, checked before it is written."""
    from .core.checkpoint import load_checkpoint
    from .core.files import make_folder
    from .road import export_graph, find_model

    found = find_model(model)
    if found.checkpoint is None:
        raise UsageError(f"{model}: expected a checkpoint")
    folder = make_folder(out) if out else (Path() if found.graph else found.checkpoint.parent)
    exported = export_graph(load_checkpoint(found.checkpoint), folder / f"{found.name}.onnx")
    _say(f"largest logit difference from PyTorch: {exported.largest_difference:.2g}")
    print(exported.path)


@app.command()
def classify(
    paths: Annotated[list[str], typer.Argument(help="Images, folders, quoted globs, or - for paths on stdin.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A file of rtk's, or a model of the zoo.")] = ZOO_DEFAULT,
    backend: Annotated[str, typer.Option(help="auto, torch or onnx.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 256,
    top_k: Annotated[int, typer.Option(min=1, help="Guesses for each image.")] = 1,
    format_: Annotated[
        str | None, typer.Option("--format", help="table, csv or jsonl; default: by --output's name, else table.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file, whole or not at all.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode; default: one a core.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable input.")] = False,
) -> None:
    """Classify images: images -> labels. Unreadable ones are named, and the exit code is then 3."""
    from .infer.backend import BackendOptions
    from .infer.classify import ClassifyConfig
    from .infer.classify import classify as answers_of
    from .infer.output import FORMATS, lines
    from .infer.sources import entries
    from .road import open_model

    if format_ is None:
        suffix = output.suffix[1:] if output else ""
        format_ = suffix if suffix in FORMATS else "table"
    if format_ not in FORMATS:
        raise UnknownNameError("format", format_, FORMATS)
    config = ClassifyConfig(batch_size=batch_size, top_k=top_k, processes=workers)
    unreadable = 0

    def watched(answers: "Iterator[Answer]") -> "Iterator[Answer]":
        nonlocal unreadable
        for answer in answers:
            if answer.error:
                unreadable += 1
                if strict:
                    raise DataError(f"{answer.file}: {answer.error}; stopped, as --strict says")
                _say(f"rtk: {answer.file}: {answer.error}")
            advance(1)
            yield answer

    options = BackendOptions(device=device, shares_cores=True)
    with open_model(model, backend=backend, options=options, say=_say) as opened:
        config = replace(config, top_k=min(top_k, len(opened.card.classes)))
        with progress_bar("classifying", None, unit="images") as advance:
            text = lines(watched(answers_of(entries(paths), opened, config)), format_, top_k=config.top_k)
            if output is None:
                for line in text:
                    sys.stdout.write(line)
            else:
                with whole_file(output) as file:
                    file.writelines(line.encode() for line in text)
    if unreadable:
        raise typer.Exit(SOME_UNREADABLE)


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
