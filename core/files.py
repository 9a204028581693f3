"""Files are written whole or not at all: a temporary file beside the target, fsync, then a rename."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import OutputError

SUFFIX = ".part"
"""Of the temporary files, which start with a dot."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; what was there before stays until the block ends without an exception.

    A target that is not a regular file (a pipe, /dev/stdout) is written directly. Raises OutputError when the folder
    or the file cannot be written, or the disk is full.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as device:
                yield device
            return
        target = Path(os.path.realpath(path))  # a link stays one: /dev/stdout, sent to a file, must not be replaced
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", suffix=SUFFIX, delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.chmod(0o666 & ~_umask())
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_whole(path: Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all. Raises OutputError."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make the folder, keep it for this process, and remove what one that was killed has left half-written in it.

    The system lets go of it however the process ends. Raises OutputError when another process keeps it.
    """
    make_folder(folder)
    with contextlib.ExitStack() as stack:
        try:
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{folder}: another process writes there; wait for it, or end it") from error
        except (ImportError, OSError):  # Windows, or a file system without locks
            pass
        for path in folder.glob(".*" + SUFFIX):
            path.unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def temporary_folder(within: Path | None) -> Iterator[Path]:
    """A folder that is gone after the block, in that one or where the system keeps such. Raises OutputError."""
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix=".rtk-", dir=within))
        except OSError as error:
            raise OutputError(f"{within or tempfile.gettempdir()}: cannot be written: {error.strerror}") from error
        yield Path(made)


def make_folder(path: Path) -> Path:
    """Create the folder with its parents where it is missing, and return it. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: the folder cannot be made: {error.strerror or error}") from error
    return path


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
