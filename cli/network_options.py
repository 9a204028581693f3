"""Options about networks that are built by code outside of rtk."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..core.models.code_names import code_name, with_arguments
from .help import MODEL

NetArg = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Argument for the function that builds a network of your own, such as width=32; repeatable.",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]

ALLOW_CODE = "Python module that a checkpoint may import to build its network; repeatable."


def _allowed(modules: list[str] | None) -> list[str] | None:
    allow_named(*(modules or ()))
    return modules


AllowCode = Annotated[
    list[str] | None,
    typer.Option(
        callback=_allowed,
        metavar="MODULE",
        help=ALLOW_CODE,
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
"""An option that takes effect by itself: a command only has to have the parameter."""


def named_network(arch: str, net_arg: Sequence[str] | None) -> str:
    """The architecture with its arguments; to name its code on the command line is to allow it. Raises UsageError."""
    arch = with_arguments(arch, net_arg or ())
    code = code_name(arch)
    if code is not None:
        allow_named(code.module)
    return arch


def allow_named(*modules: str) -> None:
    """Allow importing these modules, also from the current folder, as Python itself does for scripts there.

    Raises UsageError.
    """
    if not modules:
        return
    from ..core.models.allowed_code import allow_code

    allow_code(*modules)
    here = str(Path.cwd())
    if not {"", here} & set(sys.path):
        sys.path.append(here)
