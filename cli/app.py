"""The command line: registers the commands and turns errors into exit codes."""

import io
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from .. import __version__
from ..core.errors import DataError, OutputError, RtkError, UsageError
from ..core.process_settings import own_process
from ..core.text import one_line
from . import (
    bench,
    bench_files,
    bench_old_forms,
    bench_training,
    cache,
    classify,
    demo,
    doctor,
    export,
    import_model,
    inspect,
    models,
    train,
)
from . import eval as evaluation
from .help import CONTEXT, GroupedCommand
from .options import INTERRUPTED, fail, log_to_stderr
from .streams import end_of_output, make_lasting

app = typer.Typer(
    name="rtk",
    help="Train image classifiers, export them to ONNX and TensorRT, classify images, and prove that backends agree.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rendering help with rich takes longer than all the rest
    context_settings=CONTEXT,
)
SUMMARIES: dict[Callable[..., None], str] = {
    train.train: "Train a network: data set -> checkpoint.",
    evaluation.evaluate: "Evaluate a model on labelled images, or compare two.",
    import_model.import_model: "Import weights or an ONNX graph of another program.",
    export.export: "Export a model: checkpoint -> ONNX graph, TensorRT engine.",
    classify.classify: "Classify images: images -> labels.",
    bench.bench: "Measure throughput, latency and parity of every backend.",
    bench_training.bench_train: "Measure training speed against a plain PyTorch loop.",
    bench_files.bench_files: "Measure throughput from PNG files to labels.",
    inspect.inspect: "Show the card of a model.",
    models.models: "List architectures and models of the zoo.",
    doctor.doctor: "Try every backend on this machine.",
    demo.demo: "Run the full workflow on synthetic images.",
}
"""The commands, in the order of `rtk --help`, and what each is for in at most 60 characters."""
NAMES = {evaluation.evaluate: "eval", import_model.import_model: "import"}
"""Names of commands that differ from those of their functions."""
for command, summary in SUMMARIES.items():
    form = bench_old_forms.BenchCommand if command is bench.bench else GroupedCommand
    app.command(NAMES.get(command), cls=form, short_help=summary)(command)
app.add_typer(cache.app, name="cache")


class _Debug:
    """Whether errors show their traceback."""

    on = False


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options that are given before the command."""
    _Debug.on = debug
    log_to_stderr(debug=debug)
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line. Errors of rtk and wrong usage become one line and an exit code."""
    own_process()
    make_lasting()
    try:
        _run()
    except SystemExit as end:
        failure = end_of_output()
        if failure and not end.code:
            fail(OutputError(f"standard output: cannot be written: {failure}"))
        raise


def _run() -> NoReturn:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may not fit the encoding
    try:
        sys.exit(app(standalone_mode=False))
    except RtkError as error:
        if _Debug.on:
            raise
        fail(error)
    except OSError as error:  # an unexpected I/O error
        if _Debug.on:
            raise
        reason = error.strerror or str(error)
        fail(DataError(f"{error.filename}: {reason}" if error.filename else f"{reason}; to see where: rtk --debug ..."))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if _Debug.on or not hasattr(error, "format_message"):  # not one of the parser's errors
            raise
        _fail_usage(error)


def _fail_usage(error: Any) -> NoReturn:
    """Print an error of Typer's parser as one line and exit with code 2; without any argument, print the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(error.exit_code)
    message = (
        one_line(error.format_message()).rstrip(".").replace("Value error, ", "").replace("Input should be", "expected")
    )
    command = error.ctx.command_path if error.ctx else "rtk"
    fail(UsageError(f"{message[:1].lower()}{message[1:]}; see: {command} --help"))
