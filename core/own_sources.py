"""A hash of rtk's own source files: part of the key of what is kept in the cache, so that other code makes it anew."""

import functools
import hashlib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent


@functools.cache
def sources_sha256(*folders: str) -> str:
    """Return the SHA-256 of all Python files in these folders of the package, and of __init__.py with its version.

    Whole folders, because nobody has to remember then that a change matters. It takes some milliseconds.
    """
    digest = hashlib.sha256()
    for path in sorted({ROOT / "__init__.py", *(path for one in folders for path in (ROOT / one).rglob("*.py"))}):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def version_of(package: str) -> str:
    """Return the installed version of a package without loading it; empty if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
