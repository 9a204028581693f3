"""Draws small data sets of pictures, and writes them in every layout that rtk reads."""

import csv
import gzip
import io
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("bird", "cat", "dog")
TRAIN_IMAGES, TEST_IMAGES = 24, 8
"""Of each class."""


@dataclass(frozen=True)
class Picture:
    """One picture of a class."""

    split: str
    label: str
    number: int
    pixels: NDArray[np.uint8]

    @property
    def name(self) -> str:
        """A file name that is unique within the split."""
        return f"{self.label}-{self.number:03}.png"


def picture(label: int, random: np.random.Generator, *, height: int = 40, width: int = 48) -> NDArray[np.uint8]:
    """A bright disc, a square or a cross of random place, colour and size on a dark noisy ground."""
    rows, columns = np.mgrid[:height, :width]
    size = random.uniform(0.2, 0.35) * min(height, width)
    y, x = rows - random.uniform(size, height - size), columns - random.uniform(size, width - size)
    inside = {
        0: np.hypot(x, y) < size,
        1: np.maximum(abs(x), abs(y)) < size * 0.9,
        2: (np.minimum(abs(x), abs(y)) < size * 0.3) & (np.maximum(abs(x), abs(y)) < size),
    }[label % 3]
    pixels = random.integers(0, 60, (height, width, 3))
    pixels[inside] = random.integers(160, 256, 3)
    return pixels.astype(np.uint8)


def pictures(*, sizes: tuple[tuple[int, int], ...] = ((40, 48),), seed: int = 0) -> Iterator[Picture]:
    """All pictures of the data set; `sizes`: heights and widths, which take turns."""
    random = np.random.default_rng(seed)
    for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                height, width = sizes[number % len(sizes)]
                yield Picture(split, name, number, picture(label, random, height=height, width=width))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_picture(folder: Path, one: Picture) -> None:
    """Write one picture into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / one.name).write_bytes(png(one.pixels))


def split_folders(root: Path, *, test: str = "test", train: str = "train") -> Path:
    """train/<class>/*, and test/<class>/* or another name for it."""
    for one in pictures():
        write_picture(root / (train if one.split == "train" else test) / one.label, one)
    return root


def three_splits(root: Path) -> Path:
    """Train/, Valid/ and TEST/; every fourth training picture is for validation."""
    for one in pictures():
        split = "TEST" if one.split == "test" else "Valid" if one.number % 4 == 0 else "Train"
        write_picture(root / split / one.label, one)
    return root


def validation_only(root: Path) -> Path:
    """train/ and val/, without a test split."""
    return split_folders(root, test="val")


def class_folders(root: Path) -> Path:
    """<class>/* alone."""
    for one in pictures():
        write_picture(root / one.label / one.split, one)
    return root


def one_table(root: Path) -> Path:
    """labels.csv with a column for the split, beside a folder `images`."""
    rows = []
    for one in pictures():
        write_picture(root / "images" / one.split, one)
        rows.append((f"{one.split}/{one.name}", one.label, one.split))
    write_table(root / "labels.csv", ("file", "label", "split"), rows)
    return root


def two_tables(root: Path) -> Path:
    """train.csv and test.csv beside train/ and test/."""
    rows: dict[str, list[tuple[str, ...]]] = {"train": [], "test": []}
    for one in pictures():
        write_picture(root / one.split, one)
        rows[one.split].append((one.name, one.label))
    for split, some in rows.items():
        write_table(root / f"{split}.csv", ("filename", "class"), some)
    return root


def write_table(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]], **options: str) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding=options.get("encoding", "utf-8")) as file:
        writer = csv.writer(file, delimiter=options.get("delimiter", ","))
        writer.writerow(columns)
        writer.writerows(rows)


def shards(root: Path) -> Path:
    """A folder of WebDataset shards: train-000.tar, train-001.tar, test-000.tar."""
    root.mkdir(parents=True)
    for shard, split, part in (("train-000", "train", 0), ("train-001", "train", 1), ("test-000", "test", None)):
        with tarfile.open(root / f"{shard}.tar", "w") as tar:
            for one in pictures():
                if one.split == split and part in (None, one.number % 2):
                    add_member(tar, f"{one.label}-{one.number:03}.png", png(one.pixels))
                    add_member(tar, f"{one.label}-{one.number:03}.cls", one.label.encode())
    return root


def zip_of_folders(root: Path) -> Path:
    """A zip of a folder with split folders, and what macOS puts beside it."""
    split_folders(root / "pets")
    (root / "__MACOSX" / "pets" / "train" / "cat").mkdir(parents=True)
    (root / "__MACOSX" / "pets" / "train" / "cat" / "._cat-000.png").write_bytes(b"\0\5\x16\7")
    return Path(shutil.make_archive(str(root), "zip", root))


def idx_files(root: Path) -> Path:
    """Grey pictures in the four files of MNIST, in FashionMNIST/raw as torchvision keeps them."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        chosen = [one for one in pictures(sizes=((28, 28),)) if one.split == split]
        images = np.stack([one.pixels.mean(axis=2).astype(np.uint8) for one in chosen])
        labels = np.array([CLASSES.index(one.label) for one in chosen], np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return root


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """An idx file of unsigned bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write an idx file of unsigned bytes."""
    path.write_bytes(idx_bytes(array))


def cifar_pickles(root: Path, *, as_archive: bool = False) -> Path:
    """CIFAR-10's Python version, in its folder or in its archive, as torchvision keeps both."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    chosen = list(pictures(sizes=((32, 32),)))
    train, test = ([one for one in chosen if one.split == split] for split in ("train", "test"))
    parts = {f"data_batch_{i + 1}": train[i::5] for i in range(5)} | {"test_batch": test}
    for name, some in parts.items():
        data = np.stack([one.pixels.transpose(2, 0, 1).reshape(-1) for one in some])
        labels = [CLASSES.index(one.label) for one in some]
        (folder / name).write_bytes(pickle.dumps({b"data": data, b"labels": labels}, protocol=2))
    (folder / "batches.meta").write_bytes(
        pickle.dumps({b"label_names": [name.encode() for name in CLASSES]}, protocol=2)
    )
    if as_archive:
        with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as tar:
            tar.add(folder, folder.name)
        shutil.rmtree(folder)
    return root


def cifar_archive(root: Path) -> Path:
    """CIFAR-10's Python version in its archive."""
    return cifar_pickles(root, as_archive=True)


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "split folders": split_folders,
    "three splits": three_splits,
    "validation only": validation_only,
    "class folders": class_folders,
    "one table": one_table,
    "two tables": two_tables,
    "shards": shards,
    "zip": zip_of_folders,
    "idx files": idx_files,
    "CIFAR pickles": cifar_pickles,
    "CIFAR archive": cifar_archive,
}
"""Each writes the data set below a folder that does not exist yet, and returns what `--dataset` takes."""
