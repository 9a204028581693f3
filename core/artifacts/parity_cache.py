"""Which graphs have shown parity with their reference on which runtime of this machine, kept in the user's cache.

A parity gate that passed writes here; what chooses a backend by itself reads here, and takes no other's word for it.
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
    """Keep that this graph passed the gate on the installed version of a package, on this processor."""
    with contextlib.suppress(OutputError):  # only a cache
        path = _path(graph, package)
        make_folder(path.parent)
        write_whole(path, json.dumps({"graph": str(graph), "runtime": _runtime(package)}) + "\n")


def forget_parity(graph: Path, package: str) -> None:
    """Keep it no longer."""
    with contextlib.suppress(OSError, metadata.PackageNotFoundError):
        _path(graph, package).unlink()


def parity_is_known(graph: Path, package: str) -> bool:
    """Whether this very graph passed the gate here, on the version of the package that is installed now."""
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
