"""A record in the user's cache of the graphs that passed the parity gate on a runtime of this machine.

A parity gate that passed writes it. The automatic choice of a backend reads it, and trusts no other source.
"""

import contextlib
import hashlib
from importlib import metadata
from pathlib import Path

from ..files import sha256_of, write_whole
from ..json_text import json_text
from ..machine import this_machine
from ..paths import cache_dirs, cache_path, only_a_cache

FOLDER = "parity"


def remember_parity(graph: Path, package: str) -> None:
    """Record that this graph passed the gate with the installed version of a package on this processor."""
    with only_a_cache(f"{graph}: the result of the parity gate is"):
        path = cache_path(FOLDER, _name(graph, package))
        write_whole(path, json_text({"graph": str(graph), "runtime": _runtime(package)}) + "\n")


def forget_parity(graph: Path, package: str) -> None:
    """Delete that record."""
    with contextlib.suppress(OSError, metadata.PackageNotFoundError):
        name = _name(graph, package)
        for folder in cache_dirs():
            (folder / FOLDER / name).unlink(missing_ok=True)


def parity_is_known(graph: Path, package: str) -> bool:
    """Return True when this graph passed the gate here with the installed version of the package."""
    try:
        name = _name(graph, package)
    except metadata.PackageNotFoundError:
        return False
    return any((folder / FOLDER / name).is_file() for folder in cache_dirs())


def _name(graph: Path, package: str) -> str:
    key = "\n".join((sha256_of(graph), *_runtime(package)))
    return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _runtime(package: str) -> tuple[str, str, str]:
    machine = this_machine()
    return package, metadata.version(package), f"{machine.processor} {' '.join(machine.features)}"
