"""A fingerprint of a data set's files: other images, names, classes or sizes give another one."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from .files import ArchiveFiles
from .listing import Listing

SAMPLED_FILES, SAMPLED_BYTES = 64, 1 << 16
"""Of this many images, evenly spread, so many bytes of the content count too: images may have equal sizes."""


def fingerprint_of(listing: Listing) -> str:
    """The SHA-256 of names, classes and sizes of all images, and of the first bytes of some.

    It does not depend on the place of the folder, on a drawn split, or on when files were changed.
    """
    items = sorted((item.name, item.label) for split in listing.splits.values() for item in split)
    digest = hashlib.sha256()
    for name, label in items:
        line = f"{name}\0{listing.classes[label]}\0{listing.files.stamp(name)[0]}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    if isinstance(listing.files, ArchiveFiles):
        for archive in listing.files.archives:
            digest.update(_sampled(archive))
        return digest.hexdigest()
    step = max(1, len(items) // SAMPLED_FILES)
    for name, _ in items[::step]:
        digest.update(listing.files.samples(name, SAMPLED_BYTES))
    return digest.hexdigest()


def _sampled(archive: Path) -> bytes:
    """Blocks of an archive, evenly spread; all of a small one."""
    size, blocks = archive.stat().st_size, []
    step = max(SAMPLED_BYTES, size // SAMPLED_FILES)
    with archive.open("rb") as file:
        for start in range(0, size, step):
            file.seek(start)
            blocks.append(file.read(SAMPLED_BYTES))
    return b"".join(blocks)


def fingerprint_of_files(root: Path, files: Iterable[Path]) -> str:
    """The SHA-256 of the names and sizes of these files in a folder, and of their first bytes."""
    digest = hashlib.sha256()
    for path in sorted(files):
        name = path.name if path == root else str(path.relative_to(root))
        with path.open("rb") as file:
            digest.update(
                f"{name}\0{path.stat().st_size}\n".encode("utf-8", "surrogateescape") + file.read(SAMPLED_BYTES)
            )
    return digest.hexdigest()
