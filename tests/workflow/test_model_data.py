"""The data set of a model: found from any folder, missed, moved, changed, or another one that the user names."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rtk.core.card import Input, ModelCard, Preprocessing, Score
from rtk.core.data.datasets import Dataset
from rtk.core.data.open_dataset import open_dataset
from rtk.core.data.options import DataOptions
from rtk.core.errors import DataError, UnknownNameError
from rtk.workflow.model_data import dataset_of, report_other_score


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Catch lines of information too."""
    caplog.set_level(logging.INFO)


@pytest.fixture
def folders(class_folders: Path, tmp_path: Path) -> Path:
    """The training images of the class folders, in a folder `colours` that a test may change."""
    return Path(shutil.copytree(class_folders / "train", tmp_path / "here" / "colours"))


@pytest.fixture
def card(folders: Path) -> ModelCard:
    """The card of a model that was trained on them, with a test split that seed 3 has drawn, at 16 x 10 pixels."""
    options = DataOptions(image_size=(16, 10), fit="stretch", split_seed=3, test_share=0.5)
    dataset = open_dataset(str(folders), options=options)
    return ModelCard(
        "resnet8v1-colours-s3", "resnet8v1", dataset.name, dataset.classes, Input(16, 10, 3),
        Preprocessing((0.0,) * 3, (1.0,) * 3), score=Score("test", 11, 12, 0.1), fit="stretch", data=dataset.record,
    )  # fmt: skip


def names(dataset: Dataset) -> list[str]:
    """The names of the test images."""
    assert dataset.details is not None
    return [name for name, _ in dataset.details.files("test")]


def said(caplog: pytest.LogCaptureFixture) -> str:
    """What was logged, with single spaces."""
    return " ".join(" ".join(record.getMessage() for record in caplog.records).split())


def test_the_same_images_are_found_from_any_folder(
    card: ModelCard, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(open_dataset(str(folders), options=DataOptions(split_seed=3, test_share=0.5)))
    monkeypatch.chdir(tmp_path)
    dataset = dataset_of(card)
    assert names(dataset) == before
    assert dataset.split("test").images_NHWC.shape == (12, 16, 10, 3)
    assert dataset.fit == "stretch"


def test_a_card_is_read_back_with_its_data(card: ModelCard) -> None:
    assert ModelCard.from_json(card.to_json(), source="x") == card


def test_another_folder_of_that_name_is_not_used_without_a_word(
    card: ModelCard, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    other = Path(shutil.copytree(folders, tmp_path / "colours"))
    Image.new("RGB", (12, 12)).save(other / "red" / "0.png")
    assert dataset_of(card).record == card.data
    caplog.clear()
    named = dataset_of(card, "colours")
    assert named.record is not None
    assert named.record.path == str(other)
    assert f"colours: other images than resnet8v1-colours-s3 was trained on ({folders})" in said(caplog)


def test_a_data_set_that_has_moved_must_be_named(
    card: ModelCard, folders: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders.rename(tmp_path / "moved")
    with pytest.raises(DataError) as caught:
        dataset_of(card)
    assert str(caught.value) == (
        f"{folders}: the data set of resnet8v1-colours-s3 is not there any more; if it has moved, name it: "
        "--dataset DIR"
    )
    caplog.clear()
    assert len(names(dataset_of(card, str(tmp_path / "moved")))) == 12
    assert "other images" not in said(caplog)


def test_changed_images_are_used_only_if_they_are_named(
    card: ModelCard, folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folders / "red" / "0.png").unlink()
    with pytest.raises(DataError) as caught:
        dataset_of(card)
    assert str(caught.value) == (
        f"{folders}: its images have changed since resnet8v1-colours-s3 was trained; to use them as they are: "
        f"--dataset {folders}"
    )
    dataset_of(card, str(folders))
    assert "they are used because you named them" in said(caplog)


def test_the_card_of_an_earlier_model_names_no_place(
    card: ModelCard, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders.parent)  # a folder of that name is here
    with pytest.raises(DataError) as caught:
        dataset_of(replace(card, data=None))
    assert str(caught.value) == (
        "resnet8v1-colours-s3: its card does not say where its data set 'colours' is; name it: --dataset DIR"
    )
    assert len(names(dataset_of(replace(card, data=None), "./colours"))) > 0
    with pytest.raises(UnknownNameError):
        dataset_of(card, "pets")


@pytest.mark.parametrize(("correct", "reported"), [(11, False), (10, True), (12, True)])
def test_a_reference_with_another_score_is_reported(
    card: ModelCard, correct: int, reported: bool, caplog: pytest.LogCaptureFixture
) -> None:
    report_other_score(card, dataset_of(card), correct=correct, total=12)
    expected = f"resnet8v1-colours-s3: {correct} of 12 right here, but its card says 11 of 12; check that these are"
    assert (expected in said(caplog)) == reported


def test_the_score_on_other_images_is_no_reason_for_a_report(
    card: ModelCard, folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folders / "red" / "0.png").unlink()
    report_other_score(card, dataset_of(card, str(folders)), correct=3, total=12)
    assert "its card says" not in said(caplog)
