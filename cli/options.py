"""What commands share: options of the same meaning, exit codes, and how they talk."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ..core.errors import RtkError
from ..core.text import visible

PACKAGE = "rtk"
SIGNALLED = 128
"""To which the number of the signal is added, as shells do."""
INTERRUPTED = SIGNALLED + 2

DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the official data files.", envvar="RTK_DATA_DIR", show_envvar=True)
]


def given(context: typer.Context, *sources: str) -> dict[str, Any]:
    """The parameters that came from one of these sources, COMMANDLINE where none is named, by their names."""
    found = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name in (sources or ("COMMANDLINE",)):
            found[name] = value
    return found


class _StandardError(logging.Handler):
    """Prints what is logged on standard error, whichever that is now: results alone go to standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        print(f"rtk: {record.getMessage()}" if warning else record.getMessage(), file=sys.stderr, flush=True)


def log_to_stderr() -> None:
    """From now on rtk's own log goes to standard error, a line for each message; calling it twice does no harm."""
    log = logging.getLogger(PACKAGE)
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _StandardError) for handler in log.handlers):
        log.addHandler(_StandardError())


def fail(error: RtkError) -> NoReturn:
    """End with the error as one line, whatever names it holds, and its exit code."""
    print(f"rtk: {visible(' '.join(str(error).split()))}", file=sys.stderr)
    sys.exit(error.exit_code)


def run_module(function: Callable[..., None]) -> None:
    """Run a module of its own, python -m rtk.NAME, with the function's parameters as its options."""
    try:
        typer.run(function)
    except RtkError as error:
        fail(error)
