"""Files that are written whole or not at all: a temporary file beside the target, fsync, then a rename."""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import OutputError
from .urls import url_problem

SUFFIX = ".part"
"""Suffix of the temporary files; their names start with a dot."""
LOCK_SUFFIX = ".lock"
STANDARD_STREAMS = ("/dev/stdout", "/dev/stderr")
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


class _Target(io.FileIO):
    """A file that remembers which error its own writing has met."""

    failed: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.failed = error
            raise


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; the earlier file stays until the block ends without an exception.

    A target that is a stream is written directly. Raises OutputError when the folder or the file cannot be written,
    or when the disk is full. Other errors of the block, such as those of reading an input, stay what they are.
    """
    check_local(path)
    if is_stream(path):
        with writing(path, append=True) as stream:  # /dev/stdout may be a file that already has content
            yield stream
        return
    with _write_errors(path):
        target = Path(os.path.realpath(path))  # a link stays a link
        descriptor, made = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=SUFFIX)
        os.close(descriptor)
    temporary = Path(made)
    try:
        with writing(temporary, shown=path) as file:
            yield file
            with _write_errors(path):
                file.flush()
                os.fsync(file.fileno())
        with _write_errors(path):
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(path: Path, *, append: bool = False, shown: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file for writing bytes. An error of writing it becomes an OutputError, other errors of the block stay.

    `shown`: the name of the file in errors.
    """
    name = shown or path
    with _write_errors(name):
        raw = _Target(path, "ab" if append else "wb")
    try:
        with io.BufferedWriter(raw) as file:
            yield file
    except Exception as error:  # of any kind: libraries make their own of a write that failed
        if raw.failed is None or isinstance(error, OutputError):
            raise
        raise _output_error(name, raw.failed) from error


@contextlib.contextmanager
def _write_errors(name: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _output_error(name, error) from error


def _output_error(name: Path, error: OSError) -> OutputError:
    return OutputError(f"{name}: cannot be written: {error.strerror or error}")


def is_stream(path: Path) -> bool:
    """Return True for a file that cannot be replaced: a pipe, a device, or /dev/stdout even when it is a file."""
    name = os.path.abspath(path)  # noqa: PTH100 - follows no link
    if name in STANDARD_STREAMS or (name.startswith(("/dev/", "/proc/")) and Path(name).parent.name == "fd"):
        return True
    return os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name)  # noqa: PTH110, PTH113


def write_whole(path: Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all. Raises OutputError."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make the folder, lock it for this process, and remove the temporary files of a process that was killed.

    Raises OutputError when another process holds the lock.
    """
    with locked(make_folder(folder)):
        for path in folder.glob(".*" + SUFFIX):
            path.unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a folder or a file for this process while the block runs; a missing file is created.

    The system releases the lock when the process ends in any way. On file systems without locks nothing is locked.
    Raises OutputError when another process holds the lock, unless `wait`.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise OutputError(f"{path}: another process writes there; wait for it or stop it") from error
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
                break
            with contextlib.suppress(FileNotFoundError):  # the process that held the lock may have removed the file
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    break
        yield


@contextlib.contextmanager
def made_by_one(path: Path) -> Iterator[None]:
    """Wait until no other process makes the file or folder `path` in such a block. Raises OutputError.

    The lock is a hidden file beside it, which is removed.
    """
    lock = path.with_name(f".{path.name}{LOCK_SUFFIX}")
    make_folder(path.parent)
    with locked(lock, wait=True):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # while it is locked: a process that waits notices, and locks a new one


@contextlib.contextmanager
def temporary_folder(within: Path | None) -> Iterator[Path]:
    """Make a folder that is removed after the block, in `within` or in the system's folder. Raises OutputError."""
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix=".rtk-" if within else "rtk-", dir=within))
        except OSError as error:
            where = f"{within}: cannot be written" if within else "no temporary folder can be written"
            hint = "" if within else "; set TMPDIR to a folder that can"
            raise OutputError(f"{where}: {error.strerror or error}{hint}") from error
        yield Path(made)


def make_folder(path: Path) -> Path:
    """Create the folder and its parents if they are missing, and return it. Raises OutputError."""
    check_local(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: the folder cannot be created: {error.strerror or error}") from error
    return path


def make_writable_folder(path: Path) -> Path:
    """As `make_folder`, and check that files can be written there, before hours of work. Raises OutputError."""
    with _write_errors(make_folder(path)), tempfile.TemporaryFile(dir=path):
        return path


def check_local(path: Path) -> None:
    """Raise OutputError for a URL. A folder with the name of its scheme would be made otherwise."""
    if url_problem(str(path)) and not Path(path.parts[0]).exists():
        raise OutputError(f"{path}: a URL, expected a path on this machine; write the file here, then copy it there")


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    """The mask of this process. Only where the system does not list it, it is set to be read."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.removeprefix("Umask:"), 8)
    mask = os.umask(0)  # another thread that makes a file just now gets a mask of 0
    os.umask(mask)
    return mask
