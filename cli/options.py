"""What commands share: common options, exit codes, and how log lines and errors are printed."""

import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ..core.errors import RtkError
from ..core.process_settings import own_process
from ..core.text import visible
from .help import DATA, MEASUREMENT

PACKAGE = "rtk"
SIGNALLED = 128
"""A command that a signal ended exits with this plus the number of the signal, as in shells."""
INTERRUPTED = SIGNALLED + 2
"""Exit code after Ctrl-C."""
ENDED_BY_CTRL_C = (INTERRUPTED, -signal.SIGINT)
"""Exit codes of a command in a process of its own that Ctrl-C stopped; the second one before it could handle it."""

DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the official data files.", envvar="RTK_DATA_DIR", rich_help_panel=DATA)
]

WaitQuiet = Annotated[
    bool,
    typer.Option(
        "--wait-quiet",
        help="Wait before each round until other processes leave the cores alone, ten minutes in all.",
        rich_help_panel=MEASUREMENT,
    ),
]


def given(context: typer.Context, *sources: str) -> dict[str, Any]:
    """The parameters that came from one of these sources (default: COMMANDLINE), by name."""
    found = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name in (sources or ("COMMANDLINE",)):
            found[name] = value
    return found


class _StandardError(logging.Handler):
    """Prints log lines on the current standard error. Standard output is for results only."""

    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        print(f"rtk: {record.getMessage()}" if warning else record.getMessage(), file=sys.stderr, flush=True)
        if record.exc_info:
            traceback.print_exception(record.exc_info[1], file=sys.stderr)


def log_to_stderr(*, debug: bool = False) -> None:
    """Print rtk's own log on standard error from now on, one line per message; `debug`: also what --debug adds.

    What libraries log or warn is not printed, unless -W or PYTHONWARNINGS asks for it: it names no file, and no remedy.
    """
    log = logging.getLogger(PACKAGE)
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    if not any(isinstance(handler, _StandardError) for handler in log.handlers):
        log.addHandler(_StandardError())
        logging.getLogger().addHandler(logging.NullHandler())  # Python prints warnings that have no handler
    if not sys.warnoptions:
        warnings.showwarning = _not_shown


def _not_shown(*warning: Any, **options: Any) -> None:
    """Instead of `warnings.showwarning`."""


def fail(error: RtkError) -> NoReturn:
    """Print the error as one line and exit with its exit code."""
    print(f"rtk: {visible(' '.join(str(error).split()))}", file=sys.stderr)
    sys.exit(error.exit_code)


def run_module(function: Callable[..., None]) -> None:
    """Run a function as the command line of a module (python -m rtk.tools.NAME): its parameters are the options."""
    own_process()
    try:
        typer.run(function)
    except RtkError as error:
        fail(error)
