"""What commands share: options of the same meaning, exit codes, and how they talk."""

import sys
from pathlib import Path
from typing import Annotated

import typer

INTERRUPTED = 130

DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the official data files.", envvar="RTK_DATA_DIR", show_envvar=True)
]


def say(line: str) -> None:
    """A line for people, on standard error: results alone go to standard output."""
    print(line, file=sys.stderr, flush=True)
