"""Data sets with a name, as uint8 arrays: CIFAR-10, Fashion-MNIST, and `shapes`. No torch.

Official files are read from the data folder if they exist; only their structure is checked. Missing files are
downloaded and verified by their checksum; those in rtk's own cache are verified whenever they are read.
Shapes: N images, H rows, W columns, C channels.
"""

import functools
import json
import math
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..card import DataRecord
from ..errors import DataError, OutputError, UnknownNameError
from ..files import made_by_one, sha256_of, temporary_folder, write_whole
from ..json_text import json_text
from ..paths import cache_dirs, default_data_dir
from . import DATASETS
from .download import check_download, download
from .mapped_images import PageRelease, parts, stays_in_place
from .official import CIFAR10_CLASSES, FASHION_MNIST_CLASSES
from .options import Fit
from .own.array_sets import CIFAR10_PYTHON, cifar_set, idx_set
from .own.cifar import cifar10_rows
from .own.idx import read_idx
from .own.listing import SplitName
from .synthetic_shapes import SHAPES_CLASSES, draw_shapes

SHAPES_SIZES = {"train": 10_000, "test": 2_000}
SHAPES_SEEDS = {"train": 1, "test": 2}

ELSEWHERE = "set --data-dir or RTK_DATA_DIR to the folder that has it"

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/"
CIFAR10_ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9dddda3db29a59bca1dd"
CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
CIFAR10_ROWS = 10_000  # in every file

UNPACKED_SHA256 = "sha256.json"
"""File beside unpacked files in rtk's cache, with their SHA-256 by name."""

FASHION_MNIST_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_MNIST_FOLDER = "fashion-mnist"
FASHION_MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
TORCHVISION_FASHION_MNIST = "FashionMNIST"
"""The folder in which torchvision keeps it."""
FASHION_MNIST_PREFIX = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Split:
    """Labelled images, in memory or in a memory-mapped file."""

    stored_NHWC: NDArray[np.uint8]
    """The images, or a larger array from which `index_N` selects them."""
    labels_N: NDArray[np.int64]
    index_N: NDArray[np.int64] | None = None
    """Positions of the images in `stored_NHWC`; None: all of them, in order."""

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def images_NHWC(self) -> NDArray[np.uint8]:
        """All images as one array; a new copy of them if they are a selection."""
        return self.stored_NHWC if self.index_N is None else self.stored_NHWC[self.index_N]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.stored_NHWC.shape[1:]
        return height, width, channels

    @property
    def stays_in_place(self) -> bool:
        """Whether the images are too many to copy them all: they are memory-mapped, or larger than LARGE_BYTES."""
        return stays_in_place(self.stored_NHWC)

    def head(self, count: int) -> "Split":
        """Return the first `count` images."""
        if self.index_N is None:
            return Split(self.stored_NHWC[:count], self.labels_N[:count])
        return Split(self.stored_NHWC, self.labels_N[:count], self.index_N[:count])

    def take(self, index: NDArray[np.int64]) -> "Split":
        """Return the images with these indices, in this order; they are copied unless they stay in place."""
        if self.index_N is None and not self.stays_in_place:
            return Split(self.stored_NHWC[index], self.labels_N[index])
        return Split(self.stored_NHWC, self.labels_N[index], index if self.index_N is None else self.index_N[index])

    def part(self, part: slice) -> NDArray[np.uint8]:
        """The images of a slice; a copy if they are a selection."""
        return self.stored_NHWC[part] if self.index_N is None else self.stored_NHWC[self.index_N[part]]

    def parts(self) -> Iterator[NDArray[np.uint8]]:
        """All images in order, some megabytes at a time."""
        release = PageRelease(self.stored_NHWC)
        for part in parts(len(self), math.prod(self.image_shape)):
            yield self.part(part)
            release.count(part.stop - part.start)

    @functools.cached_property
    def counts_CV(self) -> NDArray[np.int64]:
        """How often each channel has each of the 256 values."""
        counts_CV = np.zeros((self.image_shape[2], 256), np.int64)
        for images_BHWC in self.parts():
            for channel, counts_V in enumerate(counts_CV):
                counts_V += np.bincount(images_BHWC[..., channel].ravel(), minlength=256)
        return counts_CV

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the exact mean and standard deviation of each channel over all pixels, in units of pixel / 255."""
        values_V = np.arange(256) / 255
        means = [float(counts @ values_V / counts.sum()) for counts in self.counts_CV]
        variances = [
            float(counts @ (values_V - mean) ** 2 / counts.sum())
            for counts, mean in zip(self.counts_CV, means, strict=True)
        ]
        return tuple(means), tuple(max(variance, 1e-6) ** 0.5 for variance in variances)


class Details(Protocol):
    """What a run keeps about the files of the user's own data."""

    def files(self, split: SplitName) -> list[tuple[str, str]]:
        """The name and class of each image of a split, in order."""
        ...

    def unreadable(self, split: SplitName) -> list[tuple[str, str]]:
        """The name of each image of a split that cannot be read, and the reason."""
        ...

    def hashes(self, split: SplitName) -> list[str]:
        """A hash of the pixels of each image of a split, in order."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A data set that exists; each split is read on request."""

    name: str
    classes: tuple[str, ...]
    read: Callable[[SplitName], Split]
    splits: tuple[SplitName, ...] = ("train", "test")
    """The splits that it has: always train, and validation or test or both."""
    fit: Fit = "crop"
    """How its images became those of one size."""
    record: DataRecord | None = None
    """Where the images are, if they are the user's own."""
    details: Details | None = None
    """The files behind each split, if they are the user's own."""

    @property
    def scored_split(self) -> SplitName:
        """The split that scores are measured on: test, or validation if there is no test split."""
        return "test" if "test" in self.splits else "validation"

    def split(self, name: SplitName) -> Split:
        """Read one whole split. Raises DataError when its files are missing or not in their format."""
        return self.read(name)

    def scored(self) -> Split:
        """Read the split that scores are measured on."""
        return self.split(self.scored_split)


def open_named(name: str, *, data_dir: Path | None = None) -> Dataset:
    """Open one of DATASETS. `data_dir`: folder of the official files; None: RTK_DATA_DIR or the user's cache."""
    match name:
        case "cifar10":
            return Dataset(name, CIFAR10_CLASSES, lambda split: _cifar10(data_dir or default_data_dir(), split))
        case "fashion-mnist":
            return Dataset(
                name, FASHION_MNIST_CLASSES, lambda split: _fashion_mnist(data_dir or default_data_dir(), split)
            )
        case "shapes":
            return Dataset(name, SHAPES_CLASSES, _shapes)
    raise UnknownNameError("data set", name, DATASETS)


def _shapes(split: SplitName) -> Split:
    images_NHWC, labels_N = _drawn_shapes(split)
    return Split(images_NHWC.copy(), labels_N.copy())  # the caller's own, as those that are read from files


@functools.cache
def _drawn_shapes(split: SplitName) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw a split once per process: an export in int8 with the parity gate asks for each several times."""
    return draw_shapes(SHAPES_SIZES[split], seed=SHAPES_SEEDS[split])


# CIFAR-10, binary version: each row is one label byte, then the red, green and blue planes of 32 x 32.


def _cifar10(data_dir: Path, split: SplitName) -> Split:
    folder = data_dir / CIFAR10_FOLDER
    if not folder.is_dir() and (found := cifar_set(data_dir, CIFAR10_PYTHON)):  # as torchvision keeps it
        return Split(*found.read(split))
    missing = [name for name in CIFAR10_FILES[split] if not (folder / name).is_file()]
    if missing:
        if folder.is_dir() and any((folder / name).is_file() for names in CIFAR10_FILES.values() for name in names):
            raise DataError(
                f"{folder}: incomplete: {', '.join(missing)} missing; remove the folder to download it again"
            )
        _fetch_cifar10(data_dir, folder)
    for name in CIFAR10_FILES[split] if _in_cache(folder) else ():
        if problem := unpacked_problem(folder / name):
            raise DataError(f"{folder / name}: {problem}")
    parts = [Split(*cifar10_rows(folder / name)) for name in CIFAR10_FILES[split]]
    for name, part in zip(CIFAR10_FILES[split], parts, strict=True):
        if len(part) != CIFAR10_ROWS:
            raise DataError(
                f"{folder / name}: found {len(part):,} images, expected {CIFAR10_ROWS:,}; "
                "remove the folder to download it again"
            )
    return Split(
        np.concatenate([part.images_NHWC for part in parts]), np.concatenate([part.labels_N for part in parts])
    )


def _fetch_cifar10(data_dir: Path, folder: Path) -> None:
    """Download and unpack the archive; other processes wait. Raises DataError or OutputError."""
    archive = data_dir / CIFAR10_ARCHIVE
    try:
        with made_by_one(folder):
            if any(not (folder / name).is_file() for names in CIFAR10_FILES.values() for name in names):
                if not archive.is_file():
                    _download(CIFAR10_URL + CIFAR10_ARCHIVE, f"sha256:{CIFAR10_SHA256}", archive)
                elif _in_cache(archive):
                    check_download(archive, checksum=f"sha256:{CIFAR10_SHA256}", error=DataError)
                _unpack(archive, folder)
    except OutputError as error:
        raise OutputError(str(error) if ELSEWHERE in str(error) else f"{error}; {ELSEWHERE}") from error


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack aside, so that other processes see the folder with all of its files. Raises DataError or OutputError."""
    with temporary_folder(archive.parent) as aside:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(aside, filter="data")
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno and error.filename != str(archive):  # not the archive's fault
                raise OutputError(f"{archive.parent}: cannot be written: {error.strerror}") from error
            raise DataError(f"{archive}: cannot be unpacked ({error}); remove it to download it again") from error
        unpacked = aside / folder.name
        if not unpacked.is_dir():
            raise DataError(f"{archive}: has no folder {folder.name}; expected the binary version of CIFAR-10")
        if _in_cache(folder):
            hashes = {path.name: sha256_of(path) for path in sorted(unpacked.glob("*.bin"))}
            write_whole(unpacked / UNPACKED_SHA256, json_text(hashes, indent=1) + "\n")
        try:
            shutil.copytree(unpacked, folder, dirs_exist_ok=True) if folder.exists() else unpacked.rename(folder)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error


def unpacked_problem(path: Path) -> str:
    """The reason why a file in the cache is not what was unpacked; empty if it is, or if rtk did not unpack it."""
    try:
        expected = json.loads((path.parent / UNPACKED_SHA256).read_bytes())[path.name]
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, TypeError, KeyError):
        return f"{UNPACKED_SHA256} beside it is damaged; remove the folder to unpack it again"
    return "" if sha256_of(path) == expected else "altered or truncated; remove its folder to unpack it again"


def _in_cache(path: Path) -> bool:
    """Whether rtk keeps this file for itself; in the user's own folders the files may be others."""
    return any(path.absolute().is_relative_to(folder.absolute()) for folder in cache_dirs())


# Fashion-MNIST: idx files, gzip.


def _fashion_mnist(data_dir: Path, split: SplitName) -> Split:
    folder = data_dir / FASHION_MNIST_FOLDER
    prefix = FASHION_MNIST_PREFIX[split]
    paths = [folder / f"{prefix}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    torchvision = data_dir / TORCHVISION_FASHION_MNIST
    if not any(path.is_file() for path in paths) and torchvision.is_dir() and (found := idx_set(torchvision)):
        return Split(*found.read(split))
    for path in paths:
        if not path.is_file():
            _download(FASHION_MNIST_URL + path.name, f"md5:{FASHION_MNIST_MD5[path.name]}", path)
        elif _in_cache(path):
            check_download(path, checksum=f"md5:{FASHION_MNIST_MD5[path.name]}", error=DataError)
    images_NHW, labels_N = (read_idx(path) for path in paths)
    if images_NHW.ndim != 3 or images_NHW.shape[1:] != (28, 28) or labels_N.shape != images_NHW.shape[:1]:
        raise DataError(
            f"{folder}: found images {images_NHW.shape} and labels {labels_N.shape}, expected N x 28 x 28 and N"
        )
    if labels_N.max() >= len(FASHION_MNIST_CLASSES):
        raise DataError(f"{paths[1]}: label {labels_N.max()} found, expected 0 to 9")
    return Split(images_NHW[..., None], labels_N.astype(np.int64))


def _download(url: str, checksum: str, target: Path) -> None:
    download(url, target, checksum=checksum, error=DataError, otherwise=ELSEWHERE)
