"""What commands share: options of the same meaning, exit codes, and how they talk."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ..core.errors import RtkError
from ..core.text import visible

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


def say(line: str) -> None:
    """A line for people, on standard error: results alone go to standard output."""
    print(line, file=sys.stderr, flush=True)


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
