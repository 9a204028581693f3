"""Folders and archives that could be read in more than one way: the right one is taken, or one line says what to do."""

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import own_data
from rtk.core.data import images
from rtk.core.data.open_dataset import open_dataset
from rtk.core.data.options import DataOptions
from rtk.core.errors import DataError

Pictures = Callable[[Path, int], None]


def draw(folder: Path, count: int = 5, *, first: int = 0) -> None:
    """Write small pictures, each of another colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        (folder / f"{number}.png").write_bytes(own_data.png(np.full((8, 8, 3), number, np.uint8)))


def draw_classes(folder: Path, *names: str, count: int = 5) -> Path:
    """Write a folder of pictures for each class."""
    for place, name in enumerate(names or ("cat", "dog")):
        draw(folder / name, count, first=place * 40)
    return folder


def found(root: Path, **options: Any) -> dict[str, dict[str, int]]:
    """The number of images by split and class."""
    dataset = open_dataset(str(root), options=DataOptions(**options))
    splits = {name: dataset.split(name).labels_N for name in dataset.splits}
    return {
        name: {label: int((labels_N == number).sum()) for number, label in enumerate(dataset.classes)}
        for name, labels_N in splits.items()
    }


def refusal(root: Path, **options: Any) -> str:
    """The error of reading a data set."""
    with pytest.raises(DataError) as caught:
        found(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


BOTH = {"train": {"cat": 4, "dog": 4}, "test": {"cat": 1, "dog": 1}}
GIVEN = {"train": {"cat": 5, "dog": 5}, "test": {"cat": 2, "dog": 2}}


# Archives.


def test_archives_with_a_split_in_their_names_are_the_splits(tmp_path: Path) -> None:
    draw_classes(tmp_path / "a")
    draw_classes(tmp_path / "b", count=2)
    shutil.make_archive(str(tmp_path / "pets" / "pets-train"), "zip", tmp_path / "a")
    shutil.make_archive(str(tmp_path / "pets" / "TEST"), "zip", tmp_path / "b")
    assert found(tmp_path / "pets") == GIVEN
    (tmp_path / "pets" / "TEST.zip").rename(tmp_path / "pets" / "more.zip")
    assert refusal(tmp_path / "pets") == (
        f"{tmp_path / 'pets'}: no split in the name of more.zip, but in others; rename it"
    )


def test_an_archive_beside_folders_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    draw_classes(tmp_path / "pets" / "train")
    shutil.make_archive(str(tmp_path / "pets" / "test"), "zip", tmp_path / "pets" / "train")
    assert found(tmp_path / "pets") == BOTH
    said = " ".join(" ".join(caplog.messages).split())
    assert "archives beside other data, which are not read: test.zip; unpack them" in said


def test_texts_beside_images_in_class_folders_are_no_labels(tmp_path: Path) -> None:
    root = draw_classes(tmp_path / "pets")
    (root / "cat" / "3.txt").write_text("a note")
    for path in list((root / "dog").glob("*.png")):
        path.with_suffix(".txt").write_text("a caption of its own")
        path.with_suffix(".json").write_text('{"size": 3}')
    assert found(Path(shutil.make_archive(str(tmp_path / "pets"), "tar", root))) == BOTH
    assert found(root) == BOTH


def test_pairs_may_lie_in_folders_of_splits(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        for split, count in (("train", 6), ("test", 4)):
            for number in range(count):
                key = f"{split}/{number:03}"
                own_data.add_member(tar, f"{key}.png", own_data.png(np.full((8, 8, 3), number, np.uint8)))
                own_data.add_member(tar, f"{key}.cls", b"BMW X5" if number % 2 else b"Audi")
    assert found(tmp_path / "pets.tar") == {"train": {"Audi": 3, "BMW X5": 3}, "test": {"Audi": 2, "BMW X5": 2}}


def test_two_images_with_one_label_are_an_error(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        for name in ("scan.000.png", "scan.001.png"):
            own_data.add_member(tar, name, own_data.png(np.zeros((8, 8, 3), np.uint8)))
        own_data.add_member(tar, "scan.cls", b"cat")
    assert refusal(tmp_path / "pets.tar") == (
        f"{tmp_path / 'pets.tar'}: scan.000.png and scan.001.png have one label, because names count up to their first "
        "dot; rename them"
    )


def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = draw_classes(tmp_path / "pets")
    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "tar", root))
    with tarfile.open(archive, "a") as tar:
        own_data.add_member(tar, "./cat/0.png", own_data.png(np.full((8, 8, 3), 200, np.uint8)))
    dataset = open_dataset(str(archive), options=DataOptions(test_share=0.1))
    pixels = np.concatenate([dataset.split(name).images_NHWC for name in dataset.splits])[:, 0, 0, 0]
    assert sorted(pixels.tolist()) == [1, 2, 3, 4, 40, 41, 42, 43, 44, 200]
    assert "names that an archive holds more than once: 1, the first: cat/0.png" in " ".join(caplog.text.split())


def test_a_zip_made_on_a_system_with_backslashes_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for label in ("cat", "dog"):
            for number in range(5):
                member = zipfile.ZipInfo("x")
                member.filename = f"{label}\\{number}.png"
                archive.writestr(member, own_data.png(np.full((8, 8, 3), number, np.uint8)))
    assert found(tmp_path / "pets.zip") == BOTH


def test_a_truncated_archive_is_an_error_and_a_refused_member_is_unreadable(tmp_path: Path) -> None:
    root = draw_classes(tmp_path / "pets", count=10)
    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "tar", root))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert refusal(archive, max_unreadable=0.9).startswith(f"{archive}: ")
    archive.write_bytes(whole)
    with tarfile.open(archive, "a") as tar:
        link = tarfile.TarInfo("cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "cat/0.png"
        tar.addfile(link)
    assert "1 of 17 images cannot be read, the first: cat/link.png: refused: a link" in refusal(archive)
    dataset = open_dataset(str(archive), options=DataOptions(max_unreadable=0.1))
    assert dataset.details is not None
    assert dataset.details.unreadable("train") == [("cat/link.png", "refused: a link")]


def test_a_changed_archive_of_the_same_size_has_another_fingerprint(tmp_path: Path) -> None:
    prints = []
    for value in (1, 2):
        for label in ("cat", "dog"):
            for number in range(3):
                path = tmp_path / "pets" / label / f"{number}.bmp"
                path.parent.mkdir(parents=True, exist_ok=True)
                own_data.Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)
        archive = Path(shutil.make_archive(str(tmp_path / "pets"), "tar", tmp_path / "pets"))
        record = open_dataset(str(archive)).record
        assert record is not None
        prints.append(record.fingerprint)
    assert prints[0] != prints[1]


# Folders.


@pytest.mark.parametrize(
    ("train", "test"),
    [("seg_train/seg_train", "seg_test/seg_test"), ("training_set", "test_set"), ("train/train", "test")],
)
def test_folders_that_are_named_like_splits_are_splits(tmp_path: Path, train: str, test: str) -> None:
    draw_classes(tmp_path / "pets" / train)
    draw_classes(tmp_path / "pets" / test, count=2)
    assert found(tmp_path / "pets") == GIVEN


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    draw_classes(tmp_path / "pets", "bus", "car", "train")
    assert list(found(tmp_path / "pets")["train"]) == ["bus", "car", "train"]


def test_folders_beside_the_splits_are_said_with_their_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw_classes(tmp_path / "pets" / "train")
    draw_classes(tmp_path / "pets" / "unlabelled", "a")
    draw(tmp_path / "pets", 1)
    assert found(tmp_path / "pets") == BOTH
    said = " ".join(caplog.text.split())
    assert "folders that are no split, left out: unlabelled (5 images)" in said
    assert "1 image outside of class folders, the first: 0.png" in said


def test_a_table_in_a_folder_around_the_data_is_found(tmp_path: Path) -> None:
    root = tmp_path / "outer" / "pets"
    draw(root / "part1", 4)
    draw(root / "part2", 4, first=50)
    rows = [(f"part{1 + number % 2}/{number + 50 * (number % 2)}.png", "ab"[number % 2]) for number in range(4)]
    own_data.write_table(root / "labels.csv", ("file", "label"), [*rows])
    assert found(tmp_path / "outer", test_share=0.5) == {"train": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}}


def test_folders_may_be_links_to_folders_that_are_elsewhere_in_the_data(tmp_path: Path) -> None:
    root = draw_classes(tmp_path / "pets" / "train").parent
    (root / "val").symlink_to(root / "train")
    (root / "train" / "cat" / "again").symlink_to(root)  # a loop
    assert found(root) == {"train": {"cat": 5, "dog": 5}, "validation": {"cat": 5, "dog": 5}}


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    root = draw_classes(tmp_path / "pets")
    (root / "cat").chmod(0)
    try:
        if os.access(root / "cat", os.R_OK):
            return  # the superuser reads everything
        assert refusal(root, max_unreadable=0.9) == f"{root / 'cat'}: the folder cannot be read: Permission denied"
    finally:
        (root / "cat").chmod(0o755)


def test_names_of_classes_that_are_not_utf8_are_an_error_before_the_training(tmp_path: Path) -> None:
    root = draw_classes(tmp_path / "pets")
    try:
        (root / "cat").rename(root / os.fsdecode(b"caf\xe9"))
    except OSError:
        return  # not on this file system
    assert refusal(root) == f"{root}: the class 'caf\\\\xe9' is not UTF-8; rename its folder"


# Tables.


def test_columns_of_unknown_names_are_not_guessed(tmp_path: Path) -> None:
    draw(tmp_path, 4)
    own_data.write_table(
        tmp_path / "labels.csv", ("picture", "sex", "finding"), [("0.png", "f", "x"), ("1.png", "m", "y")]
    )
    assert (
        refusal(tmp_path) == f"{tmp_path}: labels.csv: its columns are picture, sex, finding; expected file and label"
    )
    rows = [(f"{number}.png", "xy"[number % 2]) for number in range(4)]
    own_data.write_table(tmp_path / "labels.csv", ("picture", "finding"), [*rows])
    assert found(tmp_path, test_share=0.5) == {"train": {"x": 1, "y": 1}, "test": {"x": 1, "y": 1}}


def test_an_image_in_two_splits_is_an_error(tmp_path: Path) -> None:
    draw(tmp_path, 4)
    rows = [(f"{number}.png", "xy"[number % 2]) for number in range(4)]
    own_data.write_table(tmp_path / "train.csv", ("file", "label"), [*rows])
    own_data.write_table(tmp_path / "test.csv", ("file", "label"), [*rows[2:]])
    assert (
        refusal(tmp_path) == f"{tmp_path}: 2.png is in two splits: test (test.csv, row 2) and train (train.csv, row 4)"
    )


def test_a_table_of_all_labels_does_not_undo_the_tables_of_the_splits(tmp_path: Path) -> None:
    draw(tmp_path, 6)
    rows = [(f"{number}.png", "xy"[number % 2]) for number in range(6)]
    own_data.write_table(tmp_path / "labels.csv", ("file", "label"), [*rows])
    own_data.write_table(tmp_path / "train.csv", ("file", "label"), [*rows[:4]])
    own_data.write_table(tmp_path / "test.csv", ("file", "label"), [*rows[4:]])
    assert found(tmp_path) == {"train": {"x": 2, "y": 2}, "test": {"x": 1, "y": 1}}


def test_a_table_whose_files_are_all_missing_is_an_error(tmp_path: Path) -> None:
    draw(tmp_path, 4)
    own_data.write_table(tmp_path / "train.csv", ("file", "label"), [(f"{n}.png", "xy"[n % 2]) for n in range(4)])
    own_data.write_table(tmp_path / "val.csv", ("file", "label"), [("8.png", "x"), ("9.png", "y")])
    assert refusal(tmp_path, max_unreadable=0.9) == (
        f"{tmp_path}: none of the 2 files of the validation split in val.csv exists, the first: 8.png; expected names "
        "relative to the table"
    )


@pytest.mark.parametrize("text", [",,\n", "\n\n", ""])
def test_an_empty_table_is_one_line(tmp_path: Path, text: str) -> None:
    draw(tmp_path, 2)
    (tmp_path / "labels.csv").write_text(text)
    assert refusal(tmp_path).startswith(f"{tmp_path}: labels.csv: ")


def test_what_excel_writes_before_the_header_is_skipped(tmp_path: Path) -> None:
    draw(tmp_path, 4)
    (tmp_path / "labels.csv").write_text("sep=;\nfile;label\n0.png;x\n1.png;y\n2.png;x\n3.png;y\n")
    assert found(tmp_path, test_share=0.5) == {"train": {"x": 1, "y": 1}, "test": {"x": 1, "y": 1}}


# The cache.


def test_an_image_that_can_be_read_again_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = draw_classes(tmp_path / "pets")
    with monkeypatch.context() as patch:
        patch.setattr(images, "MAX_ASPECT", 0)  # as if no image could be read
        assert "none of its 8 images can be read" in refusal(root, image_size=(8, 8))
    assert found(root, image_size=(8, 8)) == BOTH


def test_a_file_that_is_replaced_with_its_time_and_size_is_read_again(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for label in ("cat", "dog"):
        for number in range(3):
            (root / label).mkdir(parents=True, exist_ok=True)
            own_data.Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(root / label / f"{number}.bmp")
    path = root / "cat" / "0.bmp"
    before = path.stat()
    first = open_dataset(str(root)).split("train").images_NHWC
    own_data.Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    dataset = open_dataset(str(root))
    values = [dataset.split(name).images_NHWC[:, 0, 0, 0] for name in dataset.splits]
    assert 99 in np.concatenate(values)
    assert 99 not in first
