"""What the functions take where a command has text: paths of any kind, one value or several."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ..core.models.allowed_code import allow_code
from ..core.models.code_names import code_name, with_arguments

PathLike: TypeAlias = str | os.PathLike[str]


def text(path: PathLike) -> str:
    """A name or a path as text."""
    return os.fspath(path)


def text_or_none(path: PathLike | None) -> str | None:
    """A name or a path as text, or None."""
    return None if path is None else os.fspath(path)


def path_or_none(path: PathLike | None) -> Path | None:
    """A path, or None."""
    return None if path is None else Path(path)


def several(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """One value, several, or none."""
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def allow(modules: str | Sequence[str] | None) -> None:
    """Allow importing these modules to build networks, from now on. Raises UsageError."""
    allow_code(*several(modules))


def named_network(arch: str, net_arg: Mapping[str, Any] | Sequence[str] | None) -> str:
    """The architecture with its arguments; to name its code in a call is to allow it. Raises UsageError."""
    given = [f"{key}={value!r}" for key, value in net_arg.items()] if isinstance(net_arg, Mapping) else net_arg
    arch = with_arguments(arch, given or ())
    code = code_name(arch)
    if code is not None:
        allow_code(code.module)
    return arch
