"""Files in the cache that libraries read as they are, such as compiled kernels: each starts with a SHA-256.

The hash covers the file's name too. So neither a damaged file nor one that was put in the place of another is used.
"""

import hashlib
import logging
from pathlib import Path

from .files import write_whole
from .paths import cache_dirs, cache_path
from .text import wrapped

_log = logging.getLogger(__name__)

SUFFIX = ".sealed"
"""Files of earlier versions of rtk have another suffix and are not found."""
SEAL_BYTES = 32


def write_sealed(folder: str, name: str, content: bytes) -> None:
    """Write a file of the cache, whole or not at all. Raises OutputError."""
    path = cache_path(folder, name + SUFFIX)
    write_whole(path, _seal(path.name, content) + content)


def read_sealed(folder: str, name: str) -> bytes:
    """Return the content of a file of the cache; empty if it is missing, and with a line of the log if damaged."""
    for path in (parent / folder / (name + SUFFIX) for parent in cache_dirs()):
        if path.is_file():
            problem = sealed_problem(path)
            if not problem:
                return path.read_bytes()[SEAL_BYTES:]
            _log.warning(wrapped(f"{path}: {problem}; it is not used, and made again"))
    return b""


def sealed_problem(path: Path) -> str:
    """The reason why such a file cannot be used; empty if content and name are those that it was written with."""
    try:
        sealed = path.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    fits = sealed[:SEAL_BYTES] == _seal(path.name, sealed[SEAL_BYTES:])
    return "" if fits else "damaged, or another file than its name says: its checksum does not fit"


def _seal(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + content).digest()
