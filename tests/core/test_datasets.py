"""Data sets: reading, refusals with their reasons, and synthetic images."""

import errno
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rtk.core.cache_contents import checked_files
from rtk.core.data import datasets
from rtk.core.data.datasets import Split, read_idx
from rtk.core.data.open_dataset import open_dataset
from rtk.core.data.synthetic_shapes import SHAPES_CLASSES, draw_shapes
from rtk.core.errors import DataError, OutputError, UnknownNameError
from rtk.core.paths import cache_dir, default_data_dir

NOBODY = "http://127.0.0.1:9/"
"""An address of this machine without a server: connections fail at once, without a network."""


def write_cifar10(data_dir: Path, *, rows: int = 4) -> Path:
    """Write all six files of the binary version with a few rows each; every image has one colour."""
    folder = data_dir / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        content = b""
        for row in range(rows):
            red, green, blue = 10 * number + row, 100, 200
            content += bytes([row % 10]) + bytes([red] * 1024 + [green] * 1024 + [blue] * 1024)
        (folder / name).write_bytes(content)
    return folder


def write_idx(path: Path, array: NDArray[np.uint8], *, compress: bool = True) -> None:
    content = b"\0\0\x08" + bytes([array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    content += array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if compress else content)


@pytest.fixture
def four_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 files of 4 images instead of 10,000."""
    monkeypatch.setattr(datasets, "CIFAR10_ROWS", 4)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(datasets, "CIFAR10_URL", NOBODY)
    monkeypatch.setattr(datasets, "FASHION_MNIST_URL", NOBODY)


# Names and folders.


def test_an_unknown_data_set_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError) as caught:
        open_dataset("cifar100")
    assert str(caught.value) == (
        "data set 'cifar100' is unknown; did you mean cifar10? "
        "known: cifar10, fashion-mnist, shapes, or the path of a folder or archive of images"
    )
    assert caught.value.exit_code == 2


def test_the_environment_sets_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTK_DATA_DIR", "/data")
    assert default_data_dir() == Path("/data")
    monkeypatch.delenv("RTK_DATA_DIR")
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))
    assert default_data_dir() == tmp_path / "cache" / "data"
    monkeypatch.delenv("RTK_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/a/.cache")
    assert cache_dir() == Path("/home/a/.cache/rtk")


@pytest.mark.parametrize("name", ["cifar10", "fashion-mnist"])
def test_a_data_folder_that_cannot_be_written_is_one_line_that_names_the_variable(name: str) -> None:
    with pytest.raises(OutputError) as caught:
        open_dataset(name, data_dir=Path("/dev/null/x")).split("train")
    assert str(caught.value).startswith("/dev/null/x")
    assert str(caught.value).count("set --data-dir or RTK_DATA_DIR to the folder that has it") == 1


# Splits.


def test_statistics_match_numpy() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 7, 5, 3), dtype=np.uint8)
    images[..., 1] //= 3
    mean, deviation = Split(images, np.zeros(20, np.int64)).statistics()
    assert mean == pytest.approx((images / 255).mean(axis=(0, 1, 2)), abs=1e-12)
    assert deviation == pytest.approx((images / 255).std(axis=(0, 1, 2)), abs=1e-12)


def test_flat_images_have_a_deviation_above_zero() -> None:
    mean, deviation = Split(np.full((3, 4, 4, 1), 51, np.uint8), np.zeros(3, np.int64)).statistics()
    assert mean == pytest.approx((0.2,))
    assert deviation == (0.001,)


def test_head_and_take_keep_images_and_labels_together() -> None:
    split = Split(np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1), np.arange(5))
    assert split.head(2).labels_N.tolist() == [0, 1]
    taken = split.take(np.array([4, 0, 4]))
    assert taken.labels_N.tolist() == taken.images_NHWC.ravel().tolist() == [4, 0, 4]
    assert len(taken) == 3


# CIFAR-10.


@pytest.mark.usefixtures("four_rows")
def test_cifar10_planes_become_pixels_and_files_are_joined_in_order(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    train = open_dataset("cifar10", data_dir=tmp_path).split("train")
    assert train.images_NHWC.shape == (20, 32, 32, 3)
    assert train.labels_N.tolist() == [0, 1, 2, 3] * 5
    assert train.images_NHWC[6, 31, 0].tolist() == [12, 100, 200]
    test = open_dataset("cifar10", data_dir=tmp_path).split("test")
    assert test.images_NHWC[3, 0, 31].tolist() == [53, 100, 200]


@pytest.mark.usefixtures("four_rows")
def test_the_error_for_an_incomplete_cifar10_names_the_missing_files(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path)
    (folder / "data_batch_3.bin").unlink()
    (folder / "data_batch_5.bin").unlink()
    with pytest.raises(DataError) as caught:
        open_dataset("cifar10", data_dir=tmp_path).split("train")
    assert str(caught.value) == (
        f"{folder}: incomplete: data_batch_3.bin, data_batch_5.bin missing; remove the folder to download it again"
    )
    assert len(open_dataset("cifar10", data_dir=tmp_path).split("test")) == 4


@pytest.mark.usefixtures("four_rows")
def test_a_truncated_cifar10_file_is_named(tmp_path: Path) -> None:
    path = write_cifar10(tmp_path) / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError) as caught:
        open_dataset("cifar10", data_dir=tmp_path).split("train")
    assert str(caught.value) == (f"{path}: 12,192 bytes are not rows of 3,073: truncated, or not CIFAR-10 binary")


@pytest.mark.usefixtures("four_rows")
def test_a_cifar10_file_with_missing_rows_is_named(tmp_path: Path) -> None:
    path = write_cifar10(tmp_path) / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:3073])
    with pytest.raises(
        DataError, match=r"test_batch\.bin: found 1 images, expected 4; remove the folder to download it again$"
    ):
        open_dataset("cifar10", data_dir=tmp_path).split("test")


@pytest.mark.usefixtures("four_rows")
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "0 bytes are not rows of 3,073"), (b"\x0b" * 3073, "label 11 found, expected 0 to 9; not CIFAR-10 binary")],
)
def test_another_file_is_not_read_as_cifar10(tmp_path: Path, content: bytes, message: str) -> None:
    path = write_cifar10(tmp_path) / "test_batch.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"test_batch.bin: {message}"):
        open_dataset("cifar10", data_dir=tmp_path).split("test")


def test_without_a_network_the_error_names_the_file_and_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset("cifar10", data_dir=tmp_path / "data").split("train")
    target = tmp_path / "data" / "cifar-10-binary.tar.gz"
    assert str(caught.value) == (
        f"{target}: missing, and the download failed (no connection); download {NOBODY}cifar-10-binary.tar.gz "
        "and put it there, or set --data-dir or RTK_DATA_DIR to the folder that has it"
    )
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: missing, and the download failed \(no connec"):
        open_dataset("fashion-mnist", data_dir=tmp_path / "data").split("train")


def test_a_missing_file_on_the_server_is_not_reported_as_a_missing_network(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "CIFAR10_URL", server[0])
    with pytest.raises(DataError, match=r"the download failed \(404 Client Error: File not found"):
        open_dataset("cifar10", data_dir=tmp_path).split("train")


def cifar10_archive(folder: Path, path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)


@pytest.mark.usefixtures("four_rows")
def test_cifar10_is_downloaded_verified_and_unpacked(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    archive = served / "cifar-10-binary.tar.gz"
    cifar10_archive(write_cifar10(tmp_path / "original"), archive)
    monkeypatch.setattr(datasets, "CIFAR10_URL", url)
    monkeypatch.setattr(datasets, "CIFAR10_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    assert len(open_dataset("cifar10", data_dir=tmp_path / "data").split("train")) == 20
    archive.unlink()
    assert len(open_dataset("cifar10", data_dir=tmp_path / "data").split("test")) == 4


@pytest.mark.usefixtures("four_rows")
def test_what_rtk_keeps_in_its_cache_is_verified_whenever_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RTK_DATA_DIR", raising=False)
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))
    data = tmp_path / "cache" / "data"
    data.mkdir(parents=True)
    archive, folder = data / "cifar-10-binary.tar.gz", data / "cifar-10-batches-bin"
    cifar10_archive(write_cifar10(tmp_path / "original"), archive)
    with pytest.raises(DataError, match="altered or truncated: its sha256 is .*; remove it to download it again$"):
        open_dataset("cifar10").split("train")
    assert not folder.exists()
    monkeypatch.setattr(datasets, "CIFAR10_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    assert len(open_dataset("cifar10").split("train")) == 20
    (folder / "data_batch_2.bin").write_bytes((folder / "data_batch_3.bin").read_bytes())
    with pytest.raises(
        DataError, match=r"data_batch_2\.bin: altered or truncated; remove its folder to unpack it again"
    ):
        open_dataset("cifar10").split("train")
    assert len(open_dataset("cifar10").split("test")) == 4
    write_fashion_mnist(data, images=np.zeros((3, 28, 28), np.uint8), labels=np.zeros(3, np.uint8))
    with pytest.raises(DataError, match=r"images-idx3-ubyte\.gz: altered or truncated: its md5 is "):
        open_dataset("fashion-mnist").split("train")
    problems = {path.name: problem for path, problem in checked_files()}
    assert {name for name, problem in problems.items() if problem} == {
        "data_batch_2.bin",
        "cifar-10-binary.tar.gz",  # it is not the official one
        *datasets.FASHION_MNIST_MD5,
    }


@pytest.mark.usefixtures("four_rows")
def test_a_download_with_another_checksum_is_refused_and_not_kept(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    cifar10_archive(write_cifar10(tmp_path / "original"), served / "cifar-10-binary.tar.gz")
    monkeypatch.setattr(datasets, "CIFAR10_URL", url)
    with pytest.raises(DataError, match=r"the download failed \(the checksum does not match\)"):
        open_dataset("cifar10", data_dir=tmp_path / "data").split("train")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.usefixtures("four_rows")
def test_an_archive_in_the_data_folder_is_unpacked(tmp_path: Path) -> None:
    cifar10_archive(write_cifar10(tmp_path / "original"), tmp_path / "cifar-10-binary.tar.gz")
    assert len(open_dataset("cifar10", data_dir=tmp_path).split("train")) == 20


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    cifar10_archive(write_cifar10(tmp_path / "original"), archive)
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(DataError, match=r"binary\.tar\.gz: cannot be unpacked .*; remove it to download it again$"):
        open_dataset("cifar10", data_dir=tmp_path).split("train")


def test_a_full_disk_is_not_blamed_on_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar10_archive(write_cifar10(tmp_path / "original"), tmp_path / "cifar-10-binary.tar.gz")

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(OutputError, match=rf"^{tmp_path}: cannot be written: No space left on device; set --data-dir "):
        open_dataset("cifar10", data_dir=tmp_path).split("train")


def test_another_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    cifar10_archive(tmp_path / "other", tmp_path / "cifar-10-binary.tar.gz")
    with pytest.raises(DataError, match="has no folder cifar-10-batches-bin; expected the binary version"):
        open_dataset("cifar10", data_dir=tmp_path).split("train")


def test_an_archive_cannot_write_outside_the_data_folder(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with tarfile.open(data_dir / "cifar-10-binary.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("../escaped")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"out"))
    with pytest.raises(DataError, match="cannot be unpacked"):
        open_dataset("cifar10", data_dir=data_dir).split("train")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.data
def test_the_real_cifar10_has_its_known_statistics(real_data: Path) -> None:
    dataset = open_dataset("cifar10", data_dir=real_data)
    train, test = dataset.split("train"), dataset.split("test")
    assert train.images_NHWC.shape == (50_000, 32, 32, 3)
    assert np.bincount(train.labels_N).tolist() == [5_000] * 10
    assert np.bincount(test.labels_N).tolist() == [1_000] * 10
    mean, deviation = train.statistics()
    assert mean == pytest.approx((0.49139968, 0.48215841, 0.44653091), abs=1e-8)
    assert deviation == pytest.approx((0.24703223, 0.24348513, 0.26158784), abs=1e-8)


# Fashion-MNIST and idx.


def write_fashion_mnist(data_dir: Path, *, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    for prefix in ("train", "t10k"):
        write_idx(data_dir / "fashion-mnist" / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(data_dir / "fashion-mnist" / f"{prefix}-labels-idx1-ubyte.gz", labels)


def test_fashion_mnist_has_one_channel_and_is_writable(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    write_fashion_mnist(tmp_path, images=images, labels=np.array([9, 8, 7, 0, 1, 2], np.uint8))
    for split in ("train", "test"):
        read = open_dataset("fashion-mnist", data_dir=tmp_path).split(split)  # type: ignore[arg-type]
        assert np.array_equal(read.images_NHWC, images[..., None])
        assert read.labels_N.tolist() == [9, 8, 7, 0, 1, 2]
        assert read.images_NHWC.flags.writeable  # torch warns about arrays that are not writable


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((6, 28, 27), [0] * 6, r"found images \(6, 28, 27\) and labels \(6,\), expected N x 28 x 28 and N"),
        ((6, 28, 28), [0] * 5, r"found images \(6, 28, 28\) and labels \(5,\), expected N x 28 x 28 and N"),
        ((6, 28, 28), [0, 1, 2, 3, 4, 10], r"labels-idx1-ubyte\.gz: label 10 found, expected 0 to 9"),
    ],
)
def test_fashion_mnist_files_that_do_not_match_are_named(
    tmp_path: Path, images: tuple[int, ...], labels: list[int], message: str
) -> None:
    write_fashion_mnist(tmp_path, images=np.zeros(images, np.uint8), labels=np.array(labels, np.uint8))
    with pytest.raises(DataError, match=message):
        open_dataset("fashion-mnist", data_dir=tmp_path).split("train")


def test_idx_files_are_read_compressed_or_not(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for compress in (True, False):
        write_idx(tmp_path / "a", array, compress=compress)
        assert np.array_equal(read_idx(tmp_path / "a"), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file of unsigned bytes"),
        (b"\0\0\x0d\x01\0\0\0\1abcd", "not an idx file of unsigned bytes"),  # 0x0d: floats
        (b"\x89PNG\r\n\x1a\n", "not an idx file of unsigned bytes"),
        (b"\0\0\x08\x00", "its header of 4 bytes is truncated or has no dimensions"),
        (b"\0\0\x08\x03\0\0", "its header of 16 bytes is truncated or has no dimensions"),
        (b"\0\0\x08\x01\0\0\0\5abcd", r"its header says \(5,\), but 4 bytes follow"),
        (b"\0\0\x08\x01\0\0\0\3abcd", r"its header says \(3,\), but 4 bytes follow"),
        (b"\0\0\x08\x01\0\0\0\0", r"its header says \(0,\), but 0 bytes follow"),
        (b"\0\0\x08\x04" + b"\x01\0\0\0" * 4, r"its header says \(16777216, .*\), but 0 bytes follow"),  # 2 ** 96
        (
            gzip.compress(b"\0\0\x08\x01\0\0\0\4abcd", mtime=0)[:-9],
            r"cannot be read .*; remove it to download it again",
        ),
        (b"\x1f\x8bgarbage", r"cannot be read .*; remove it to download it again"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.gz: {message}"):
        read_idx(tmp_path / "a.gz")


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: cannot be read"):
        read_idx(tmp_path / "none")


@pytest.mark.data
def test_the_real_fashion_mnist_has_its_known_statistics(real_data: Path) -> None:
    dataset = open_dataset("fashion-mnist", data_dir=real_data)
    train, test = dataset.split("train"), dataset.split("test")
    assert train.images_NHWC.shape == (60_000, 28, 28, 1)
    assert np.bincount(train.labels_N).tolist() == [6_000] * 10
    assert np.bincount(test.labels_N).tolist() == [1_000] * 10
    mean, deviation = train.statistics()
    assert mean == pytest.approx((0.2860,), abs=1e-4)  # from the benchmarks of the data set
    assert deviation == pytest.approx((0.3530,), abs=1e-4)


# Class folders; all layouts are tested in test_own_data.py.


def test_class_folders_are_a_data_set(class_folders: Path) -> None:
    dataset = open_dataset(str(class_folders))
    assert dataset.name == "colours"
    assert dataset.classes == ("blue", "green", "red")
    train = dataset.split("train")
    assert train.images_NHWC.shape == (24, 12, 12, 3)
    assert train.labels_N.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    strongest = train.images_NHWC.mean(axis=(1, 2)).argmax(axis=1)
    assert strongest.tolist() == [2] * 8 + [1] * 8 + [0] * 8
    assert dataset.split("test").labels_N.tolist() == [0] * 4 + [1] * 4 + [2] * 4


# Shapes.


@pytest.fixture(scope="module")
def shapes() -> tuple[Split, Split]:
    dataset = open_dataset("shapes")
    return dataset.split("train"), dataset.split("test")


def test_the_images_of_shapes_belong_to_the_caller() -> None:
    first = open_dataset("shapes").split("test")
    first.stored_NHWC[:], first.labels_N[:] = 0, 0
    second = open_dataset("shapes").split("test")
    images_NHWC, labels_N = draw_shapes(len(second), seed=datasets.SHAPES_SEEDS["test"])
    assert np.array_equal(second.images_NHWC, images_NHWC)
    assert np.array_equal(second.labels_N, labels_N)


def test_shapes_has_ten_equally_frequent_classes(shapes: tuple[Split, Split]) -> None:
    train, test = shapes
    assert len(SHAPES_CLASSES) == len(set(SHAPES_CLASSES)) == 10
    assert train.images_NHWC.shape == (10_000, 32, 32, 3)
    assert np.bincount(train.labels_N).tolist() == [1_000] * 10
    assert np.bincount(test.labels_N).tolist() == [200] * 10


def test_the_seed_determines_the_synthetic_images() -> None:
    first, second, other = draw_shapes(50, seed=5), draw_shapes(50, seed=5), draw_shapes(50, seed=6)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], other[0])


def test_no_test_image_is_a_training_image(shapes: tuple[Split, Split]) -> None:
    train, test = ({image.tobytes() for image in split.images_NHWC} for split in shapes)
    assert len(train) == 10_000
    assert not train & test


def nearest_mean_accuracy(train: NDArray[np.float64], train_labels: NDArray[np.int64],
                          test: NDArray[np.float64], test_labels: NDArray[np.int64]) -> float:  # fmt: skip
    """Return the accuracy of a classifier that chooses the class with the nearest mean."""
    means_KD = np.stack([train[train_labels == label].mean(axis=0) for label in range(10)])
    distances_NK = ((test[:, None] - means_KD) ** 2).sum(axis=2)
    return float((distances_NK.argmin(axis=1) == test_labels).mean())


def test_neither_pixels_nor_colours_show_the_class(shapes: tuple[Split, Split]) -> None:
    train, test = shapes
    train_ND, test_ND = (split.images_NHWC.reshape(len(split), -1) / 255 for split in shapes)
    assert nearest_mean_accuracy(train_ND, train.labels_N, test_ND[:500], test.labels_N[:500]) < 0.30
    colours = [np.concatenate([x.mean(axis=(1, 2)), x.std(axis=(1, 2))], axis=1) for x in (
        train.images_NHWC / 255, test.images_NHWC / 255)]  # fmt: skip
    assert nearest_mean_accuracy(colours[0], train.labels_N, colours[1], test.labels_N) < 0.30
