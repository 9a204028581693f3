"""A record in the user's cache of the graphs that passed the parity gate on a runtime of this machine.

A parity gate that passed writes it. The automatic choice of a backend reads it, and trusts no other source.
"""

import contextlib
import hashlib
import json
from importlib import metadata
from pathlib import Path

from ..errors import OutputError
from ..files import make_folder, sha256_of, write_whole
from ..machine import this_machine
from ..paths import cache_dir

FOLDER = "parity"


def remember_parity(graph: Path, package: str) -> None:
    """Record that this graph passed the gate with the installed version of a package on this processor."""
    with contextlib.suppress(OutputError):  # it is only a cache
        path = _path(graph, package)
        make_folder(path.parent)
        write_whole(path, json.dumps({"graph": str(graph), "runtime": _runtime(package)}) + "\n")


def forget_parity(graph: Path, package: str) -> None:
    """Delete that record."""
    with contextlib.suppress(OSError, metadata.PackageNotFoundError):
        _path(graph, package).unlink()


def parity_is_known(graph: Path, package: str) -> bool:
    """Return True when this graph passed the gate here with the installed version of the package."""
    try:
        return _path(graph, package).is_file()
    except metadata.PackageNotFoundError:
        return False


def _path(graph: Path, package: str) -> Path:
    key = "\n".join((sha256_of(graph), *_runtime(package)))
    return cache_dir() / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _runtime(package: str) -> tuple[str, str, str]:
    machine = this_machine()
    return package, metadata.version(package), f"{machine.processor} {' '.join(machine.features)}"
