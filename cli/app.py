"""The command line: the commands put together, errors turned into exit codes."""

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..core.errors import DataError, RtkError
from . import bench, cache, classify, export, look, train
from .options import INTERRUPTED, fail

app = typer.Typer(
    name="rtk",
    help="Train residual networks, export them to ONNX and TensorRT, classify with them, and prove that they agree.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing help with rich takes longer than everything else about it
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    train.train,
    export.export,
    classify.classify,
    bench.bench,
    look.inspect,
    look.models,
    look.doctor,
):
    app.command()(command)
app.add_typer(cache.app, name="cache")


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


def main() -> None:
    """Run the command line; errors that rtk raises on purpose become one line and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that its encoding lacks is no reason to end
    try:
        app()
    except RtkError as error:
        if _Debug.on:
            raise
        fail(error)
    except OSError as error:  # of a name or a folder that is odd in a way nobody has thought of
        if _Debug.on:
            raise
        fail(DataError(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
