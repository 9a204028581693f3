"""Every layout of own data: the right images, labels and splits; and bad input: one clear line."""

import csv
import gzip
import hashlib
import logging
import os
import pickle
import shutil
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import own_data
from fakes.own_data import CLASSES, LAYOUTS, pictures
from PIL import Image
from rtk.core.data.file_rules import dataset_name
from rtk.core.data.open_dataset import open_dataset
from rtk.core.data.options import DataOptions
from rtk.core.data.own import pixel_cache
from rtk.core.errors import DataError, UnknownNameError


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Catch lines of information too."""
    caplog.set_level(logging.INFO)


def solid(path: Path, value: int = 90, *, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
    """Write a small picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value,) * len(mode) if len(mode) > 1 else value).save(path, "PNG")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of two classes with ten pictures each, without splits."""
    root = tmp_path / "pets"
    for label, name in enumerate(("cat", "dog")):
        for number in range(10):
            solid(root / name / f"{number}.png", 10 * number + label)
    return root


def refusal(root: Path, **options: Any) -> str:
    """The error of opening a data set and reading its splits."""
    with pytest.raises(DataError) as caught:
        dataset = open_dataset(str(root), options=DataOptions(**options))
        for name in dataset.splits:
            dataset.split(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counts(root: Path, **options: Any) -> dict[str, list[int]]:
    """The number of images of each class by split."""
    dataset = open_dataset(str(root), options=DataOptions(**options))
    classes = len(dataset.classes)
    return {name: np.bincount(dataset.split(name).labels_N, minlength=classes).tolist() for name in dataset.splits}


def lines_of(caplog: pytest.LogCaptureFixture) -> str:
    """What was logged, with single spaces."""
    return " ".join(" ".join(record.getMessage() for record in caplog.records).split())


# Layouts.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images_with_their_labels(layout: str, tmp_path: Path) -> None:
    dataset = open_dataset(str(LAYOUTS[layout](tmp_path / "pets")))
    arrays = layout.startswith(("idx", "CIFAR"))
    side = {"idx files": (28, 28), "CIFAR pickles": (32, 32), "CIFAR archive": (32, 32)}.get(layout, (40, 48))
    drawn = list(pictures(sizes=(side,)))
    assert dataset.classes == (("0", "1", "2") if layout == "idx files" else CLASSES)
    found = {}
    for name in dataset.splits:
        split = dataset.split(name)
        for image_HWC, label in zip(split.images_NHWC, split.labels_N, strict=True):
            found[image_HWC.tobytes()] = (name, int(label))
    other = {"validation only": "validation"}.get(layout, "test")
    assert dataset.scored_split == other
    for one in drawn:
        pixels = one.pixels.mean(axis=2).astype(np.uint8) if layout == "idx files" else one.pixels
        split, label = found.pop(pixels.tobytes())
        assert label == CLASSES.index(one.label)
        if layout == "three splits" and one.split == "train":
            assert split == ("validation" if one.number % 4 == 0 else "train")
        elif layout != "class folders":
            assert split == ("train" if one.split == "train" else other)
    assert not found
    assert dataset.record is not None
    assert Path(dataset.record.path).exists()
    assert arrays or sum(dataset.record.images.values()) == len(drawn)


def test_a_drawn_test_split_is_stratified_and_depends_on_its_seed_only(folder: Path) -> None:
    for number in range(10, 20):
        solid(folder / "dog" / f"{number}.png", number)
    assert counts(folder) == {"train": [8, 16], "test": [2, 4]}
    assert counts(folder, test_share=0.5) == {"train": [5, 10], "test": [5, 10]}
    tests = {}
    for seed in (0, 0, 1):
        details = open_dataset(str(folder), options=DataOptions(split_seed=seed)).details
        assert details is not None
        tests.setdefault(seed, set()).add(tuple(details.files("test")))
    assert len(tests[0]) == 1
    assert tests[0] != tests[1]


def test_the_drawn_split_is_the_same_on_every_machine(folder: Path) -> None:
    details = open_dataset(str(folder)).details
    assert details is not None
    expected = {
        name: sorted(
            (f"{name}/{number}.png" for number in range(10)),
            key=lambda file: hashlib.sha256(b"0\0" + file.encode()).hexdigest(),
        )[:2]
        for name in ("cat", "dog")
    }
    assert sorted(file for file, _ in details.files("test")) == sorted(expected["cat"] + expected["dog"])


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "VAL"])
def test_a_validation_folder_may_have_many_names(tmp_path: Path, name: str) -> None:
    for split in ("train", name):
        for label in ("a", "b"):
            solid(tmp_path / split / label / "deep" / "deeper" / "0.png")
    assert counts(tmp_path) == {"train": [1, 1], "validation": [1, 1]}


def test_a_train_folder_alone_gets_a_drawn_test_split(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for number in range(5):
            solid(tmp_path / "train" / label / f"{number}.png", number)
    assert counts(tmp_path) == {"train": [4, 4], "test": [1, 1]}


def test_folders_around_the_data_are_looked_through(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outer" / "pets-main").mkdir(parents=True)
    folder.rename(tmp_path / "outer" / "pets-main" / "pets")
    assert counts(tmp_path / "outer") == {"train": [8, 8], "test": [2, 2]}


def test_numbers_are_classes_in_their_own_order(tmp_path: Path) -> None:
    for label in ("10", "9", "1"):
        solid(tmp_path / "train" / label / "0.png")
        solid(tmp_path / "test" / label / "0.png")
    assert open_dataset(str(tmp_path)).classes == ("1", "9", "10")


def test_links_to_images_and_folders_are_followed(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    for split, numbers in (("train", range(8)), ("test", range(8, 10))):
        for label in ("cat", "dog"):
            (linked / split / label).mkdir(parents=True)
            for number in numbers:
                (linked / split / label / f"{number}.png").symlink_to(folder / label / f"{number}.png")
    assert counts(linked) == {"train": [8, 8], "test": [2, 2]}
    (tmp_path / "again").symlink_to(linked)
    assert counts(tmp_path / "again") == {"train": [8, 8], "test": [2, 2]}


def test_the_classes_of_a_model_keep_their_order(folder: Path) -> None:
    dataset = open_dataset(str(folder), options=DataOptions(classes=("dog", "cat")))
    assert dataset.classes == ("dog", "cat")
    split, details = dataset.split("train"), dataset.details
    assert details is not None
    assert [dataset.classes[label] for label in split.labels_N] == [label for _, label in details.files("train")]


# Tables.


def table(root: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    """Write a table beside four pictures: a.png, b.png, c.png, d.png."""
    for value, letter in enumerate("abcd"):
        solid(root / f"{letter}.png", value)
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


@pytest.mark.parametrize(
    "text",
    [
        "file,label\na.png,x\nb.png,y\nc.png,x\nd.png,y\n",
        "a.png,x\nb.png,y\nc.png,x\nd.png,y\n",
        "\ufefflabel;filename\nx;a.png\ny;b.png\nx;c.png\ny;d.png\n",
        "id\tclass\n a\tx\nb\ty\nc\tx\n\nd\ty",
        'image_path,category\r\n".\\a.png","x"\r\n./b.png,y\r\nc.png,x\r\nd.png,y\r\n',
        "file,label\na.png,x\nb.png,y\nc.png,x\nd.png,y\n".encode("utf-16"),
    ],
    ids=["comma", "no header", "BOM and semicolons", "tab, no suffixes", "Windows", "UTF-16"],
)
def test_tables_are_read_as_programs_write_them(tmp_path: Path, text: str | bytes) -> None:
    assert counts(table(tmp_path, text), test_share=0.5) == {"train": [1, 1], "test": [1, 1]}


def test_a_table_in_another_encoding_is_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = table(tmp_path, "a.png,M\xfcnchen\nb.png,y\nc.png,M\xfcnchen\nd.png,y\n".encode("cp1252"))
    assert open_dataset(str(root)).classes == ("M\xfcnchen", "y")
    assert "labels.csv: not UTF-8; read as cp1252" in lines_of(caplog)


def test_rows_that_repeat_and_images_without_a_row_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = table(tmp_path, "a.png,x\nb.png,y\na.png,x\nc.png,x\n")
    assert counts(root, test_share=0.5) == {"train": [1, 1], "test": [1, 0]}
    said = lines_of(caplog)
    assert "rows that repeat an image: 1, the first: a.png; used once" in said
    assert "1 image is in no table, the first: d.png" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,x\na.png,y\n", "a.png has two labels: 'x' (labels.csv, row 1) and 'y' (labels.csv, row 2)"),
        ("file,label\na.png,x\nb.png,\n", "labels.csv, row 3: no label"),
        ("file,label\n,x\n", "labels.csv, row 2: no file"),
        (
            "file,label,split\na.png,x,holiday\n",
            "labels.csv, row 2: unknown split 'holiday'; expected train, validation or test",
        ),
        ("file\na.png\n", "labels.csv: one column only; expected the columns file and label"),
        (
            "file,size,label_id\na.png,3,x\n",
            "labels.csv: its columns are file, size, label_id; expected file and label",
        ),
        (
            "e.png,x\nf.png,y\n",
            "none of the 2 files of the train split in labels.csv exists, the first: e.png; expected names relative to "
            "the table",
        ),
    ],
)  # fmt: skip
def test_the_error_for_a_table_names_the_row(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(table(tmp_path, text)) == f"{tmp_path}: {message}"


def test_a_file_that_a_table_names_and_that_is_missing_counts_as_unreadable(tmp_path: Path) -> None:
    root = table(tmp_path, "a.png,x\nb.png,y\nc.png,x\nd.png,y\ne.png,x\n")
    assert refusal(root, test_share=0.5) == (
        f"{root}: the train split: 1 of 3 images cannot be read, the first: e.png: no such file; labels.csv, row 5; "
        "at most 1 % may be left out; remove them, or accept them: --max-unreadable 0.34"
    )
    assert counts(root, test_share=0.5, max_unreadable=0.34) == {"train": [1, 1], "test": [1, 1]}


# What is not data.


def spoil(folder: Path, path: Callable[[str], Path]) -> None:
    """Put what systems and programs leave beside images into a folder."""
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        path(f"cat/{name}").write_bytes(b"\0")
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".Trash-1000", "lost+found"):
        solid(path(f"{name}/0.png"))
        solid(path(f"cat/{name}/0.png"))


def test_what_systems_leave_behind_is_no_class_and_no_image(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    spoil(folder, lambda name: folder / name)
    assert open_dataset(str(folder)).classes == ("cat", "dog")
    assert counts(folder) == {"train": [8, 8], "test": [2, 2]}
    assert "left out: 14 passed over (.DS_Store, .Trash-1000, ._0.png, ...)" in lines_of(caplog)


def test_an_archive_is_read_by_the_same_rule(folder: Path, tmp_path: Path) -> None:
    spoil(folder, lambda name: folder / name)
    solid(folder / "cat" / "without-suffix", 200).rename(folder / "cat" / "without-suffix")
    for kind, count in (("zip", 11), ("gztar", 11)):
        archive = Path(shutil.make_archive(str(tmp_path / kind), kind, folder))
        dataset = open_dataset(str(archive))
        assert dataset.name == kind
        assert dataset.classes == ("cat", "dog")
        assert [len(dataset.split(name)) for name in dataset.splits] == [count + 10 - 4, 4]


def test_files_are_images_by_their_content_if_their_suffix_says_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (8, 8)).save(folder / "cat" / "a.jpe", "JPEG")
    Image.new("RGB", (8, 8)).save(folder / "cat" / "b.JFIF", "JPEG")
    Image.new("RGB", (8, 8)).save(folder / "cat" / "c", "WEBP")
    Image.new("RGB", (8, 8)).save(folder / "cat" / "d.download", "GIF")
    (folder / "cat" / "notes.txt").write_text("P1 is not a picture")
    assert counts(folder) == {"train": [11, 8], "test": [3, 2]}
    assert "left out: 1 file that is no image (cat/notes.txt)" in lines_of(caplog)


def test_images_outside_of_class_folders_are_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    solid(folder / "banner.png")
    assert counts(folder) == {"train": [8, 8], "test": [2, 2]}
    assert "1 image outside of class folders, the first: banner.png" in lines_of(caplog)


# Sizes and pixels.


def test_a_small_common_size_is_kept_and_others_become_64(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def shape() -> tuple[int, ...]:
        return open_dataset(str(folder)).split("train").images_NHWC.shape

    assert shape() == (16, 8, 8, 3)
    assert "the size of all images, 8 x 8, is kept; another size: --image-size" in lines_of(caplog)
    caplog.clear()
    solid(folder / "dog" / "3.png", size=(9, 8))
    assert shape() == (16, 64, 64, 3)
    expected = (
        "images are read at 64 x 64 pixels, because they are larger than 96 or differ; another size: --image-size"
    )
    assert expected in lines_of(caplog)
    for path in folder.rglob("*.png"):
        solid(path, size=(97, 97))
    assert shape() == (16, 64, 64, 3)


def test_a_requested_size_and_fit_are_those_of_classify(tmp_path: Path) -> None:
    from rtk.core.card import Input
    from rtk.core.data.images import model_image

    for label in ("a", "b"):
        for number in range(2):
            path = tmp_path / label / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(own_data.picture(number, np.random.default_rng(number), height=30, width=50)).save(path)
    for fit in ("crop", "letterbox", "stretch"):
        dataset = open_dataset(str(tmp_path), options=DataOptions(image_size=(16, 24), fit=fit))
        details = dataset.details
        assert details is not None
        for (name, _), image_HWC in zip(details.files("train"), dataset.split("train").images_NHWC, strict=True):
            assert np.array_equal(image_HWC, model_image(tmp_path / name, Input(16, 24, 3), fit=fit))


def test_grey_images_stay_grey_until_one_has_colours(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for number in range(3):
            solid(tmp_path / label / f"{number}.png", number, mode="L")
    assert open_dataset(str(tmp_path)).split("train").images_NHWC.shape == (4, 8, 8, 1)
    solid(tmp_path / "b" / "1.png", 9)
    assert open_dataset(str(tmp_path)).split("train").images_NHWC.shape == (4, 8, 8, 3)


def test_guessed_ranges_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(10):
        deep = np.full((8, 8), 4_095 - number, np.uint16)
        Image.fromarray(deep).save(folder / "cat" / f"{number}.png")
    split = open_dataset(str(folder)).split("train")
    assert split.images_NHWC[0].tolist() == [[[255 - 0] * 3] * 8] * 8
    assert "images of more than 8 bits; their range was guessed: 8 from 0 to 4,095" in lines_of(caplog)


# Unreadable images.


def damaged(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n")


def test_one_unreadable_image_of_a_hundred_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for label in ("a", "b"):
        for number in range(51):
            solid(tmp_path / "train" / label / f"{number:02}.png", number)
        solid(tmp_path / "test" / label / "0.png", 99)
    damaged(tmp_path / "train" / "a" / "07.png")
    dataset = open_dataset(str(tmp_path))
    assert len(dataset.split("train")) == 101
    assert dataset.split("train").labels_N.tolist() == [0] * 50 + [1] * 51
    assert dataset.split("train").images_NHWC[:9, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert dataset.details is not None
    assert [name for name, _ in dataset.details.unreadable("train")] == ["train/a/07.png"]
    assert f"{tmp_path}: the train split: 1 of 102 images cannot be read, the first: train/a/07.png: " in lines_of(
        caplog
    )
    assert refusal(tmp_path, max_unreadable=0.0).endswith(
        "at most 0 % may be left out; remove them, or accept them: --max-unreadable 0.01"
    )


def test_many_unreadable_images_are_an_error(folder: Path) -> None:
    for number in range(3):
        damaged(folder / "cat" / f"{number}.png")
    assert "--max-unreadable" in refusal(folder)
    assert sum(map(sum, counts(folder, max_unreadable=0.5).values())) == 17


@pytest.mark.parametrize(
    ("size", "reason"),
    [((1, 1), ""), ((1, 10_000), "too long and thin"), ((12_000, 9_000), "at most 64,000,000 are read")],
)
def test_images_of_extreme_sizes(folder: Path, size: tuple[int, int], reason: str) -> None:
    Image.new("L", size).save(folder / "cat" / "extreme.png")
    if not reason:
        assert sum(counts(folder)["train"] + counts(folder)["test"]) == 21
        return
    assert reason in refusal(folder)
    assert sum(map(sum, counts(folder, max_unreadable=0.5).values())) == 20


def test_the_limit_of_pixels_is_an_option(folder: Path) -> None:
    assert "at most 50 are read" in refusal(folder, max_pixels=50)


# Bad input.


def test_a_folder_without_images_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")

    assert refusal(tmp_path) == (
        f"{tmp_path}: holds no images, but 1 file that is no image (notes.txt); expected train/<class>/*, <class>/*, "
        "or a table labels.csv with the columns file and label; see docs/own-data.md"
    )


def test_images_without_classes_say_what_is_expected(tmp_path: Path) -> None:
    solid(tmp_path / "0.png")
    assert refusal(tmp_path).startswith(
        f"{tmp_path}: 1 image without a class, the first: 0.png; expected train/<class>/*"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root / "dog"), "the train split: found 1 class: 'cat'; expected two or more"),
        (lambda root: solid(root / "Cat" / "0.png"),
         "classes 'Cat' and 'cat' differ only in upper and lower case; merge them, or rename one"),
        (lambda root: (root / "bird").mkdir(), "bird: no images; every class needs at least one, or remove the folder"),
        (lambda root: [shutil.rmtree(root), solid(root / "test" / "a" / "0.png"), solid(root / "val" / "a" / "0.png")],
         "no train folder, only test, val; expected train/<class>/*"),
    ],
    ids=["one class", "case", "empty class", "no training images"],
)  # fmt: skip
def test_classes_that_cannot_be_used_are_named(
    folder: Path, change: Callable[[Path], Any], message: str | None
) -> None:
    change(folder)
    assert refusal(folder).removeprefix(str(folder))[1:].strip().startswith(message)


def test_a_class_that_only_the_test_split_has_is_an_error_and_the_reverse_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split, labels in (("train", "abc"), ("test", "ab")):
        for label in labels:
            solid(tmp_path / split / label / "0.png")
    assert counts(tmp_path) == {"train": [1, 1, 1], "test": [1, 1, 0]}
    assert "the test split has no images of c" in lines_of(caplog)
    solid(tmp_path / "test" / "d" / "0.png")
    assert refusal(tmp_path) == f"{tmp_path}: the test split: class 'd' is not a class of the training split"


def test_classes_with_one_image_are_for_training(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    solid(folder / "bird" / "0.png")
    assert counts(folder) == {"train": [1, 8, 8], "test": [0, 2, 2]}
    assert "one image only, which is for training: 'bird'" in lines_of(caplog)
    for label in ("cat", "dog"):
        for number in range(1, 10):
            (folder / label / f"{number}.png").unlink()
    assert refusal(folder) == (f"{folder}: every class has one image only; expected two or more, to draw a test split")


def test_two_unicode_forms_of_a_name_are_one_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    composed, decomposed = (unicodedata.normalize(form, "caf\xe9") for form in ("NFC", "NFD"))
    for split, name in (("train", composed), ("test", decomposed)):
        solid(tmp_path / split / name / "0.png")
        solid(tmp_path / split / "tea" / "0.png")
    if len(list((tmp_path / "train").iterdir())) == 2:
        assert open_dataset(str(tmp_path)).classes == (composed, "tea")
        assert counts(tmp_path) == {"train": [1, 1], "test": [1, 1]}
        assert f"class {composed!r} is written in 2 Unicode forms; it is one class" in lines_of(caplog)


def test_names_with_commas_quotes_and_newlines_are_names(tmp_path: Path) -> None:
    names = ('a, "b"', "new\nline", "'single'", "tab\there")
    for name in names:
        for number in range(3):
            solid(tmp_path / "odd" / name / f"{number}, {name[:1]}\n.png", number)
    dataset = open_dataset(str(tmp_path / "odd"))
    assert dataset.classes == tuple(sorted(names))
    assert [len(dataset.split(split)) for split in dataset.splits] == [8, 4]


def test_a_damaged_archive_is_one_line(folder: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "tar", folder))
    archive.write_bytes(archive.read_bytes()[:3_000])
    assert "pets.tar" in refusal(archive)
    (tmp_path / "text.zip").write_text("no zip")
    assert refusal(tmp_path / "text.zip").startswith(f"{tmp_path / 'text.zip'}: ")


def test_a_member_with_a_name_that_leads_out_of_the_archive_is_refused(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", folder))
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("../cat/10.png", b"x")
    assert "../cat/10.png: refused: its name leads out of the archive" in refusal(archive)
    assert counts(archive, max_unreadable=0.1) == {"train": [8, 8], "test": [2, 2]}
    assert "1 of 17 images cannot be read" in lines_of(caplog)


def test_a_file_is_no_data_set(tmp_path: Path) -> None:
    assert refusal(solid(tmp_path / "a.png")) == (
        f"{tmp_path / 'a.png'}: not a data set; expected a folder, or a zip or tar archive, of images"
    )


def test_a_folder_with_the_name_of_a_built_in_set_is_meant_by_its_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rename(tmp_path / "shapes")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("shapes").record is None
    for name in ("./shapes", "shapes/", str(tmp_path / "shapes")):
        record = open_dataset(name).record
        assert record is not None
        assert record.path == str(tmp_path / "shapes")
    with pytest.raises(UnknownNameError):
        open_dataset("pets")


# Arrays.


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "made"),)

    root = own_data.cifar_pickles(tmp_path / "set")
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps({b"data": Harmful(), b"labels": []}))
    assert refusal(root).endswith("test_batch: its pickle asks for posix.mkdir; only arrays are loaded")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02N.", b"text", pickle.dumps({b"data": [1], b"labels": [2]})])
def test_damaged_pickles_are_one_line(tmp_path: Path, content: bytes) -> None:
    root = own_data.cifar_pickles(tmp_path / "set")
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    assert "data_batch_3: " in refusal(root)


def test_the_archive_of_cifar_is_found_in_its_folder(tmp_path: Path) -> None:
    root = own_data.cifar_archive(tmp_path / "set")
    for place in (root, root / "cifar-10-python.tar.gz"):
        assert counts(place) == {"train": [24, 24, 24], "test": [8, 8, 8]}


def test_cifar10_and_fashion_mnist_are_also_found_as_torchvision_keeps_them(tmp_path: Path) -> None:
    own_data.cifar_pickles(tmp_path)
    assert len(open_dataset("cifar10", data_dir=tmp_path).split("test")) == 24
    own_data.idx_files(tmp_path / "other")
    (tmp_path / "FashionMNIST").mkdir()
    (tmp_path / "other" / "MNIST" / "raw").rename(tmp_path / "FashionMNIST" / "raw")
    assert open_dataset("fashion-mnist", data_dir=tmp_path).split("train").images_NHWC.shape == (72, 28, 28, 1)


def test_several_sets_of_idx_files_in_one_folder_are_named(tmp_path: Path) -> None:
    raw = own_data.idx_files(tmp_path) / "MNIST" / "raw"
    for path in list(raw.iterdir()):
        shutil.copy(path, raw / f"emnist-letters-{path.name.replace('t10k', 'test')}")
    assert refusal(tmp_path) == (
        f"{raw}: holds 2 sets of idx files: mnist, emnist-letters; expected one: put the four files of one set into a "
        "folder of their own"
    )


def test_labels_of_idx_files_may_begin_at_one(tmp_path: Path) -> None:
    images = np.zeros((4, 6, 6), np.uint8)
    for prefix in ("emnist-letters-train", "emnist-letters-test"):
        own_data.write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", images)
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(own_data.idx_bytes(np.array([1, 26, 26, 3], np.uint8)))
        )
    dataset = open_dataset(str(tmp_path))
    assert dataset.classes == ("1", "3", "26")
    assert dataset.split("train").labels_N.tolist() == [0, 2, 2, 1]


def test_arrays_are_resized_by_the_same_function(tmp_path: Path) -> None:
    root = own_data.cifar_pickles(tmp_path / "set")
    dataset = open_dataset(str(root), options=DataOptions(image_size=(16, 16), channels=1))
    assert dataset.split("test").images_NHWC.shape == (24, 16, 16, 1)


# The fingerprint and the cache.


def test_the_fingerprint_is_that_of_the_images_not_of_their_place(folder: Path, tmp_path: Path) -> None:
    def fingerprint(root: Path) -> str:
        record = open_dataset(str(root), options=DataOptions(split_seed=3)).record
        assert record is not None
        return record.fingerprint

    first = fingerprint(folder)
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert fingerprint(moved) == first
    solid(moved / "cat" / "3.png", 200)  # another content
    changed = fingerprint(moved)
    (moved / "cat" / "3.png").unlink()
    assert len({first, changed, fingerprint(moved)}) == 3


def test_a_second_start_decodes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_dataset(str(folder)).split("train")
    monkeypatch.setattr(pixel_cache, "Decoder", None)
    again = open_dataset(str(folder)).split("train")
    assert np.array_equal(first.images_NHWC, again.images_NHWC)
    assert np.array_equal(first.labels_N, again.labels_N)
    solid(folder / "cat" / "5.png", 201)  # a changed file is decoded again
    with pytest.raises(TypeError):
        open_dataset(str(folder)).split("train")


def test_a_large_split_is_a_map_of_the_cached_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_cache, "IN_MEMORY_BYTES", 100)
    split = open_dataset(str(folder)).split("train")
    assert isinstance(split.images_NHWC, np.memmap)
    assert not split.images_NHWC.flags.writeable
    assert sorted(split.images_NHWC[:, 0, 0, 0]) == sorted(
        value for value in [10 * n + label for n in range(10) for label in (0, 1)]
        if value in split.images_NHWC[:, 0, 0, 0]
    )  # fmt: skip


def test_images_are_decoded_into_memory_if_the_cache_does_not_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pixel_cache, "SPARE_BYTES", 1 << 62)
    assert counts(folder) == {"train": [8, 8], "test": [2, 2]}
    assert "do not fit on the disk; the images are decoded into memory, and again the next time" in lines_of(caplog)
    monkeypatch.setattr(pixel_cache, "usable_memory", lambda: 10)
    assert "do not fit into memory either; set RTK_CACHE_DIR to a folder with more space" in refusal(folder)


def test_a_damaged_cache_is_made_again(folder: Path) -> None:
    first = open_dataset(str(folder)).split("train").images_NHWC
    for path in Path(os.environ["RTK_CACHE_DIR"]).glob("datasets/*/pixels.bin"):
        path.write_bytes(path.read_bytes()[:-1])
    assert np.array_equal(open_dataset(str(folder)).split("train").images_NHWC, first)


def test_read_only_data_are_read(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555)
    try:
        assert counts(folder) == {"train": [8, 8], "test": [2, 2]}
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)


def test_the_lists_of_a_run_are_tables_that_are_read_again(folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(folder))
    assert dataset.details is not None
    for split in dataset.splits:
        with (folder / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("file", "label"), *dataset.details.files(split)])
    again = open_dataset(str(folder))
    assert again.details is not None
    for split in dataset.splits:
        assert sorted(again.details.files(split)) == sorted(dataset.details.files(split))


def test_shards_in_a_single_tar_are_split_by_drawing(tmp_path: Path) -> None:
    root = own_data.shards(tmp_path / "shards")
    assert counts(root / "train-000.tar") == {"train": [10, 10, 10], "test": [2, 2, 2]}


def test_labels_of_pairs_may_be_json(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        for number in range(6):
            own_data.add_member(tar, f"{number}.jpg", own_data.png(np.full((8, 8, 3), number, np.uint8)))
            own_data.add_member(tar, f"{number}.json", b'{"label": "%s", "x": 1}' % (b"cat", b"dog")[number % 2])
    assert open_dataset(str(tmp_path / "pets.tar")).classes == ("cat", "dog")
    assert dataset_name(str(tmp_path / "pets.tar")) == "pets"
