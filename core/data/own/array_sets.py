"""Data sets that are arrays already: sets of idx files as MNIST's, and CIFAR as its authors and torchvision keep it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...text import visible
from ..official import CIFAR10_CLASSES, FASHION_MNIST_CLASSES
from .cifar import Arrays, cifar10_rows, members_of, pickled_batch, pickled_names
from .idx import read_idx
from .listing import SplitName

IDX = re.compile(
    r"(?P<set>.*?)[-_]?(?P<split>train|test|t10k)[-_.](?P<kind>images|labels)[-_.]idx[13][-_.]ubyte(\.gz)?",
    re.IGNORECASE,
)
IDX_SPLITS: dict[str, SplitName] = {"train": "train", "test": "test", "t10k": "test"}
EMNIST = "emnist"
LARGEST_LABEL = 1_000


@dataclass(frozen=True)
class CifarVersion:
    """The files of one version."""

    folder: str
    archive: str
    files: dict[SplitName, tuple[str, ...]]
    meta: str
    """The file with the names of the classes; empty for the binary version."""


CIFAR = (
    CifarVersion(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        "batches.meta",
    ),
    CifarVersion("cifar-100-python", "cifar-100-python.tar.gz", {"train": ("train",), "test": ("test",)}, "meta"),
    CifarVersion(
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        "",
    ),
)

CIFAR10_PYTHON = CIFAR[:1]
"""As torchvision keeps CIFAR-10."""


@dataclass(frozen=True)
class ArraySet:
    """A data set of arrays."""

    layout: str
    """In words."""
    classes: tuple[str, ...]
    read: Callable[[SplitName], Arrays]
    files: tuple[Path, ...]
    """The files that hold it."""
    note: str = ""


def find_array_set(root: Path) -> ArraySet | None:
    """The set of arrays in a folder or archive; None if it holds none. Raises DataError for a damaged one."""
    return cifar_set(root) or (idx_set(root) if root.is_dir() else None)


def cifar_set(root: Path, versions: Sequence[CifarVersion] = CIFAR) -> ArraySet | None:
    """CIFAR in its folder, in the folder above, or in its archive; None without it. Raises DataError."""
    for version in versions:
        first = version.files["train"][0]
        for folder in (root, root / version.folder):
            needed = {first, version.files["test"][0], version.meta} - {""}
            if folder.is_dir() and all((folder / name).is_file() for name in needed):
                return _cifar(version, folder)
        for archive in (root, root / version.archive):
            if archive.name == version.archive and archive.is_file():
                return _cifar(version, archive)
    return None


def _cifar(version: CifarVersion, place: Path) -> ArraySet:
    """`place`: the folder with the files, or the archive."""
    if place.is_dir() and not version.meta:  # the binary version
        paths = {split: tuple(place / name for name in names) for split, names in version.files.items()}
        return ArraySet(
            "CIFAR-10, binary version",
            CIFAR10_CLASSES,
            lambda split: _joined([cifar10_rows(path) for path in paths[split]]),
            tuple(path for some in paths.values() for path in some),
        )
    if not version.meta:
        raise DataError(f"{place}: expected it unpacked, or as --dataset cifar10 with --data-dir {place.parent}")
    names = {name for some in version.files.values() for name in some} | {version.meta}
    contents = {} if place.is_dir() else members_of(place, names)

    def content(name: str) -> bytes:
        if place.is_dir():
            try:
                return (place / name).read_bytes()
            except OSError as error:
                raise DataError(f"{place / name}: cannot be read: {error.strerror or error}") from error
        if name not in contents:
            raise DataError(f"{place}: has no file {name}")
        return contents[name]

    return ArraySet(
        f"{'CIFAR-100' if version.meta == 'meta' else 'CIFAR-10'}, Python version",
        pickled_names(content(version.meta), f"{place}: {version.meta}"),
        lambda split: _joined([pickled_batch(content(name), f"{place}: {name}") for name in version.files[split]]),
        tuple(place / name for name in sorted(names)) if place.is_dir() else (place,),
    )


def idx_set(root: Path) -> ArraySet | None:
    """A set of idx files in a folder, in its folder `raw`, or in a folder `raw` one level deeper; None without it.

    Raises DataError if there are several sets, or if one lacks a file.
    """
    folders = [root, root / "raw", *sorted(root.glob("*/raw"))]
    for folder in folders:
        if folder.is_dir() and (found := _idx_files(folder)):
            return _idx(folder, found)
    return None


def _idx_files(folder: Path) -> dict[str, dict[tuple[SplitName, str], Path]]:
    """The idx files of a folder, by set, split and kind. A file that is not compressed is preferred."""
    sets: dict[str, dict[tuple[SplitName, str], Path]] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.suffix == ".gz", path.name)):
        match = IDX.fullmatch(path.name)
        if match and path.is_file():
            key = (IDX_SPLITS[match["split"].lower()], match["kind"].lower())
            sets.setdefault(match["set"], {}).setdefault(key, path)
    return sets


def _idx(folder: Path, sets: dict[str, dict[tuple[SplitName, str], Path]]) -> ArraySet:
    if len(sets) > 1:
        found = ", ".join(visible(name) or "mnist" for name in sorted(sets))
        raise DataError(
            f"{folder}: holds {len(sets)} sets of idx files: {found}; "
            "expected one: put the four files of one set into a folder of their own"
        )
    name, files = next(iter(sets.items()))
    splits: tuple[SplitName, ...] = ("train", "test")
    missing = [f"{split} {kind}" for split in splits for kind in ("images", "labels") if (split, kind) not in files]
    if missing:
        raise DataError(
            f"{folder}: the idx files of {', '.join(missing)} are missing; expected four files as MNIST has"
        )
    values = np.unique(read_idx(files["train", "labels"]))
    if len(values) < 2:
        raise DataError(f"{files['train', 'labels']}: found {len(values)} class, expected two or more")
    is_fashion = "fashion" in str(folder.resolve()).lower() and values.tolist() == list(range(10))
    classes = FASHION_MNIST_CLASSES if is_fashion else tuple(str(value) for value in values)

    def read(split: SplitName) -> Arrays:
        images_NHW, labels_N = read_idx(files[split, "images"]), read_idx(files[split, "labels"])
        if images_NHW.ndim != 3 or labels_N.shape != images_NHW.shape[:1]:
            raise DataError(
                f"{folder}: found {split} images {images_NHW.shape} and labels {labels_N.shape}, "
                "expected N x H x W and N"
            )
        unknown = sorted(set(np.unique(labels_N).tolist()) - set(values.tolist()))
        if unknown:
            raise DataError(f"{files[split, 'labels']}: label {unknown[0]} is not among the training labels")
        return images_NHW[..., None], np.searchsorted(values, labels_N).astype(np.int64)

    transposed = name.lower().startswith(EMNIST)
    return ArraySet(
        "idx files",
        classes,
        read,
        tuple(files.values()),
        note="EMNIST's images are transposed in its files; they are used as they are" if transposed else "",
    )


def _joined(parts: list[Arrays]) -> Arrays:
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])
