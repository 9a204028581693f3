"""Which images a model is evaluated on, with which labels, and what makes its score on them too optimistic."""

import shutil
from pathlib import Path

import pytest
from fakes.own_data import CLASSES, LAYOUTS, TEST_IMAGES
from rtk.core.card import Input, ModelCard, Preprocessing, Training
from rtk.core.data.open_dataset import open_dataset
from rtk.core.data.options import DataOptions
from rtk.core.errors import DataError, UnknownNameError, UsageError
from rtk.workflow.eval_request import Wanted
from rtk.workflow.evaluation_data import (
    CHANGED_SINCE,
    OTHER_SPLIT,
    SELECTED_ON,
    TRAINED_ON,
    labelled_images,
)


@pytest.fixture
def folders(class_folders: Path, tmp_path: Path) -> Path:
    """24 images of three colours in class folders, which a test may change."""
    return Path(shutil.copytree(class_folders / "train", tmp_path / "colours"))


def trained_on(path: Path, *, seed: int = 3, size: Input | None = None, selection: str = "") -> ModelCard:
    """The card of a model that was trained on this folder, with a test split that the seed has drawn."""
    size = size or Input(12, 10, 3)
    options = DataOptions(image_size=(size.height, size.width), split_seed=seed, test_share=0.25)
    dataset = open_dataset(str(path), options=options)
    return ModelCard(
        "resnet8v1-colours", "resnet8v1", dataset.name, dataset.classes, size, Preprocessing((0.0,) * 3, (1.0,) * 3),
        data=dataset.record, training=Training("rtk", 1, 0, 1.0, selection, "a machine", ""),
    )  # fmt: skip


def test_the_drawn_split_of_the_training_counts_here_and_where_the_folder_has_moved(
    folders: Path, tmp_path: Path
) -> None:
    card = trained_on(folders)
    moved = shutil.copytree(folders, tmp_path / "moved")
    found = [labelled_images(card, Wanted(name)) for name in (None, str(folders), str(moved))]
    assert len({one.names for one in found}) == 1
    for one in found:
        assert (one.data.split, one.data.images, one.data.note) == ("test", 6, "")
        assert one.split.images_NHWC.shape == (6, 12, 10, 3)
        assert [name.split("/")[0] for name in one.names] == [card.classes[label] for label in one.split.labels_N]


def test_all_images_of_other_folders_count(folders: Path, class_folders: Path) -> None:
    found = labelled_images(trained_on(folders), Wanted(str(class_folders / "test")))
    assert (found.data.split, found.data.images, found.data.note) == ("all", 12, "")


def test_a_note_says_why_a_score_is_too_optimistic(folders: Path) -> None:
    card = trained_on(folders)
    assert labelled_images(card, Wanted(split="train")).data.note == TRAINED_ON
    assert labelled_images(card, Wanted(split="all")).data.note == TRAINED_ON
    chosen = trained_on(folders, selection="best epoch on the test split, so its score is too optimistic")
    assert labelled_images(chosen, Wanted()).data.note == SELECTED_ON
    other = trained_on(folders, seed=4)
    assert labelled_images(other, Wanted(), splits_of=card).data.note == OTHER_SPLIT
    shutil.copy(folders / "red" / "0.png", folders / "red" / "99.png")
    changed = labelled_images(card, Wanted(str(folders)))
    assert (changed.data.split, changed.data.images, changed.data.note) == ("all", 25, CHANGED_SINCE)


def test_images_that_have_changed_are_not_used_unless_they_are_named(folders: Path) -> None:
    card = trained_on(folders)
    shutil.copy(folders / "red" / "0.png", folders / "red" / "99.png")
    with pytest.raises(DataError, match="its images have changed since resnet8v1-colours was trained"):
        labelled_images(card, Wanted())


def test_a_second_model_reads_the_images_of_the_first_at_its_own_size(folders: Path) -> None:
    first, second = trained_on(folders), trained_on(folders, size=Input(20, 24, 3))
    one, other = labelled_images(first, Wanted()), labelled_images(second, Wanted(), splits_of=first)
    assert one.names == other.names
    assert other.split.image_shape == (20, 24, 3)
    assert one.split.labels_N.tolist() == other.split.labels_N.tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_of_every_layout_are_indices_of_the_models_classes(layout: str, tmp_path: Path) -> None:
    root = LAYOUTS[layout](tmp_path / "pets")
    classes = tuple(map(str, range(3))) if layout == "idx files" else CLASSES
    card = ModelCard(
        "model",
        "resnet8v1",
        "else",
        ("another", *classes[::-1]),
        Input(16, 16, 3),
        Preprocessing((0.0,) * 3, (1.0,) * 3),
    )
    found = labelled_images(card, Wanted(str(root)))
    labels = [card.classes[label] for label in found.split.labels_N]
    count = 32 if layout == "class folders" else TEST_IMAGES
    assert {name: labels.count(name) for name in card.classes} == {"another": 0, **dict.fromkeys(classes, count)}
    if found.names and layout in ("split folders", "class folders"):
        assert all(label in name.split("/") for name, label in zip(found.names, labels, strict=True))


def test_a_split_that_does_not_exist_is_one_clear_error(class_folders: Path, folders: Path) -> None:
    card = trained_on(folders)
    with pytest.raises(DataError, match="has no validation split; it has only train, test"):
        labelled_images(card, Wanted(str(class_folders), "validation"))
    with pytest.raises(UnknownNameError, match="split 'tests' is unknown; did you mean test?"):
        Wanted(split="tests")
    with pytest.raises(UsageError, match="expected a share from 0 to below 1"):
        Wanted("pets", max_unreadable=1.5)
