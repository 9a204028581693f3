"""Settings of the whole process, such as TF32 or the number of threads: whom they belong to, and that they come back.

The command line owns its process: `own_process` says so, and what rtk sets then stays. As a library, rtk works in the
process of somebody else: everything that it offers runs inside `settings_put_back`, and sets something only by `change`
and its kin, so that the end of the outermost block undoes it.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Value = TypeVar("Value")


class _Process:
    """Whether rtk owns the process, and what it has to undo."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.owned = False
        self.blocks = 0
        """Open blocks of `settings_put_back`, of all threads."""
        self.undo = contextlib.ExitStack()


_process = _Process()


def own_process() -> None:
    """Let everything that rtk sets stay until the process ends: this is the process of a command."""
    _process.owned = True


def process_is_owned() -> bool:
    """Whether the process is that of a command of rtk."""
    return _process.owned


@contextlib.contextmanager
def settings_put_back() -> Iterator[None]:
    """Undo at the end of the block what `change` has set inside; in the process of a command nothing is undone.

    Blocks of several threads share their settings. The last one to end undoes them, so that no thread loses a setting
    that it needs.
    """
    if _process.owned:
        yield
        return
    with _process.lock:
        _process.blocks += 1
    try:
        yield
    finally:
        with _process.lock:
            _process.blocks -= 1
            if not _process.blocks:
                _process.undo.close()


def put_back(read: Callable[[], Value], write: Callable[[Value], object]) -> None:
    """Remember a setting of the process that is set in another way; it is undone as that of `change` is."""
    with _process.lock:
        if _process.blocks:
            _process.undo.callback(write, read())


def change(read: Callable[[], Value], write: Callable[[Value], object], value: Value) -> None:
    """Set a setting of the process, if it has another value, until the outermost `settings_put_back` ends.

    Outside of any block it stays.
    """
    with _process.lock:
        if read() != value:
            put_back(read, write)
            write(value)


def change_attribute(owner: Any, name: str, value: object) -> None:
    """Set an attribute as `change` does."""
    change(lambda: getattr(owner, name), lambda new: setattr(owner, name, new), value)


def put_back_attribute(owner: Any, name: str) -> None:
    """Remember an attribute as `put_back` does."""
    put_back(lambda: getattr(owner, name), lambda before: setattr(owner, name, before))


def put_back_in_environment(name: str) -> None:
    """Remember an environment variable as `put_back` does."""

    def write(value: str | None) -> None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    put_back(lambda: os.environ.get(name), write)


def set_in_environment(name: str, value: str) -> None:
    """Set an environment variable as `change` does, unless the user has set it."""
    if name not in os.environ:
        put_back_in_environment(name)
        os.environ[name] = value
