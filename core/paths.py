"""Folders for data and for files that can be made again."""

import atexit
import contextlib
import functools
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError

_log = logging.getLogger(__name__)

REMEDY = "set RTK_CACHE_DIR to a folder that can be written"


def default_data_dir() -> Path:
    """Return RTK_DATA_DIR, or `data` in the cache folder. Raises OutputError as cache_path does."""
    configured = os.environ.get("RTK_DATA_DIR")
    return Path(configured) if configured else cache_path("data")


def cache_dir() -> Path:
    """Return the folder for files that can be made or downloaded again; it may not exist, or not be writable.

    RTK_CACHE_DIR, or `rtk` in the user's cache, or the temporary cache of a user without a home folder.
    """
    configured, user_cache, home = os.environ.get("RTK_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME"), home_dir()
    if configured:
        return Path(configured)
    if user_cache:
        return Path(user_cache) / "rtk"
    return home / ".cache" / "rtk" if home else temporary_cache()


def temporary_cache() -> Path:
    """Return the folder for the cache of this user where the regular one cannot be written; it may not exist."""
    try:
        folder = tempfile.gettempdir()
    except OSError:  # no folder for temporary files can be written
        folder = "/tmp"  # noqa: S108 - only named; _is_private checks it before anything is written
    return Path(folder) / f"rtk-{os.geteuid()}"


def cache_dirs() -> list[Path]:
    """Return the folders that hold the cache and that this user can read, the regular one first."""
    regular, temporary = cache_dir(), temporary_cache()
    found = [regular] if regular != temporary and _readable(regular) else []
    return [*found, temporary] if _readable(temporary) and _is_private(temporary) else found


def cache_path(*parts: str) -> Path:
    """Return the path of a file or folder in the cache, to read or to write it; its folder exists.

    A file that is missing in a cache that cannot be written belongs into the temporary cache; the first time, a line
    says so. Raises OutputError when that cannot be written either.
    """
    regular, temporary = cache_dir(), temporary_cache()
    path = regular.joinpath(*parts)
    if os.path.exists(path) or (regular != temporary and can_write(path.parent)):  # noqa: PTH110 - Path's may raise
        return path
    reason = "no home folder" if regular == temporary else f"{regular}: cannot be written"
    if not _is_private(temporary):
        temporary = _folder_of_this_process()
    path = temporary.joinpath(*parts)
    if not can_write(path.parent):
        raise OutputError(f"{regular}: cannot be written, and {temporary} cannot either; {REMEDY}")
    _say_once(reason, temporary)
    return path


@contextlib.contextmanager
def only_a_cache(what: str) -> Iterator[None]:
    """Turn an OutputError of the block into one line of the log: `what` is not kept, and nothing else is lost."""
    try:
        yield
    except OutputError as error:
        hint = "" if REMEDY in str(error) else f"; {REMEDY}"
        _log.warning(f"{error}; {what} not kept for the next time{hint}")


def home_dir() -> Path | None:
    """Return the user's home folder; None without HOME for a user that the system does not know."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def as_published(text: str) -> str:
    """Replace the user's home folder by ~ and that of the zoo by rtk/core/zoo: no user name, no place of a machine."""
    zoo = Path("core", "zoo")
    text = text.replace(f"{Path(__file__).parent.parent / zoo}/", f"{'rtk' / zoo}/")
    home = home_dir()
    return text.replace(f"{home}/", "~/") if home and home.name else text


def _readable(folder: Path) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)


def can_write(folder: Path) -> bool:
    """Make the folder if it is missing, and return whether files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _is_private(folder: Path) -> bool:
    """Make the folder for this user alone; False when another user made it, and could put an engine there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


@functools.cache
def _folder_of_this_process() -> Path:
    """A new temporary folder, removed when the process ends. Raises OutputError."""
    try:
        folder = tempfile.mkdtemp(prefix="rtk-")
    except OSError as error:
        raise OutputError(
            f"{cache_dir()}: cannot be written, and there is no temporary folder: {error.strerror or error}; {REMEDY}"
        ) from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.cache
def _say_once(reason: str, folder: Path) -> None:
    _log.warning(f"{reason}; the cache is in {folder}; {REMEDY} and that lasts")
