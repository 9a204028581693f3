"""Which images a temperature may be fitted on: those that the training held out, or others that it did not see."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.noisy_folders import SIDE, noisy_folders
from rtk.core.card import Input, ModelCard, Preprocessing, Training
from rtk.core.data.open_dataset import open_dataset
from rtk.core.data.options import DataOptions
from rtk.core.errors import DataError, UsageError
from rtk.core.zoo import zoo_card
from rtk.train.config import TrainConfig
from rtk.train.data.splits import held_out_images, splits_of
from rtk.workflow.held_out import check_unseen, held_out_count, held_out_of
from rtk.workflow.model_data import dataset_of

TRAINING = Training(
    "rtk", 3, 7, 1.0, "weights of the epoch with the highest accuracy on 6 held-out training images", "a machine", "c",
    selected_on="holdout", held_out=6, trained_images=18,
)  # fmt: skip


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def card_for(tmp_path: Path) -> Callable[..., ModelCard]:
    """A function that makes a data set with these splits and returns the card of a model that was trained on it."""

    def make(training: Training | None = TRAINING, **counts: int) -> ModelCard:
        root = noisy_folders(tmp_path / "colours", **counts)
        dataset = open_dataset(str(root), options=DataOptions(image_size=(SIDE, SIDE), channels=3))
        return ModelCard(
            "mine", "resnet8v1", dataset.name, dataset.classes, Input(SIDE, SIDE, 3),
            Preprocessing((0.0,) * 3, (1.0,) * 3), training=training, data=dataset.record,
        )  # fmt: skip

    return make


def said(caplog: pytest.LogCaptureFixture) -> str:
    return " ".join(" ".join(record.getMessage() for record in caplog.records).split())


@pytest.mark.parametrize("train_images", [None, 9_000])
@pytest.mark.parametrize(("option", "count"), [({"holdout": 500}, 500), ({"validation_split": 0.1}, 1_000)])
def test_the_images_held_out_by_every_option_are_found_again(
    option: dict[str, float], count: int, train_images: int | None
) -> None:
    config = TrainConfig("resnet8v1", dataset="shapes", seed=3, train_images=train_images, **option)  # type: ignore[arg-type]
    dataset = open_dataset("shapes")
    splits = splits_of(config, dataset)
    held_out = splits.evaluated["holdout"]
    assert len(held_out) == (count if "holdout" in option or train_images is None else 900)
    again = held_out_images(dataset, count=len(held_out), seed=3)
    assert (again.images_NHWC == held_out.images_NHWC).all()
    assert (again.labels_N == held_out.labels_N).all()
    trained = {image_HWC.tobytes() for image_HWC in splits.train.images_NHWC}
    assert not trained & {image_HWC.tobytes() for image_HWC in again.images_NHWC}


def test_a_training_that_held_nothing_out_is_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError) as error:
        held_out_of(zoo_card("resnet20v1-cifar10"))
    assert str(error.value) == (
        "resnet20v1-cifar10: its training held nothing out, so no images are left to fit a temperature on; name "
        "labelled images that it was not trained on: --held-out DIR, or train with --validation-split 0.1"
    )


def test_a_model_without_a_training_such_as_an_ensemble_is_refused(card_for: Callable[..., ModelCard]) -> None:
    with pytest.raises(UsageError, match="^mine: its card has no training, so nothing says which images it has seen; "):
        held_out_of(card_for(None, train=24, test=6))


def test_the_validation_split_of_a_folder_is_used_if_a_test_split_is_scored(card_for: Callable[..., ModelCard]) -> None:
    nothing = replace(TRAINING, held_out=0, selected_on="")
    card = card_for(nothing, train=24, val=9, test=6)
    held_out = held_out_of(card)
    assert (held_out.split, len(held_out.images), held_out.chose_epoch) == ("validation", 9, False)
    assert held_out_of(replace(card, training=replace(nothing, selected_on="validation"))).chose_epoch
    plateau = replace(nothing, settings={"schedule": "plateau"})
    assert held_out_of(replace(card, training=plateau)).chose_epoch


def test_a_validation_split_that_is_scored_is_not_fitted_on(card_for: Callable[..., ModelCard]) -> None:
    with pytest.raises(UsageError, match="its training held nothing but the validation split, on which it is scored, "):
        held_out_of(card_for(replace(TRAINING, held_out=0, selected_on=""), train=24, val=9))


def test_held_out_training_images_are_preferred_to_a_validation_split(card_for: Callable[..., ModelCard]) -> None:
    held_out = held_out_of(card_for(train=24, val=9, test=6))
    assert (held_out.split, len(held_out.images)) == ("holdout", 6)


def test_the_number_of_held_out_images_of_an_earlier_card_is_in_its_text() -> None:
    assert held_out_count(replace(TRAINING, held_out=0)) == 6
    assert held_out_count(replace(TRAINING, held_out=0, selected_on="")) == 0
    assert held_out_count(replace(TRAINING, held_out=0, selection="weights after the last epoch")) == 0


def test_a_start_from_other_weights_is_a_warning(
    card_for: Callable[..., ModelCard], caplog: pytest.LogCaptureFixture
) -> None:
    held_out_of(card_for(replace(TRAINING, start="start.pt, sha256 ab"), train=24, test=6))
    assert "mine: started from start.pt, sha256 ab; if that was trained on the images held out here, " in said(caplog)


def test_data_that_moved_are_named_and_other_data_are_refused(
    card_for: Callable[..., ModelCard], tmp_path: Path
) -> None:
    card = card_for(train=24, test=6)
    before = held_out_of(card).images.images_NHWC
    shutil.move(tmp_path / "colours", tmp_path / "moved")
    with pytest.raises(DataError, match="the data set of mine is not there any more; if it has moved, name it: --data"):
        held_out_of(card)
    assert (held_out_of(card, dataset=str(tmp_path / "moved")).images.images_NHWC == before).all()
    others = noisy_folders(tmp_path / "others", seed=6, train=24, test=6)
    assert (tmp_path / "others").is_dir()
    with pytest.raises(UsageError, match="others: not the data that mine was trained on, so the images that its train"):
        held_out_of(card, dataset=str(others))


def test_a_record_that_does_not_fit_the_data_is_refused(card_for: Callable[..., ModelCard]) -> None:
    card = card_for(replace(TRAINING, trained_images=20), train=24, test=6)
    with pytest.raises(DataError, match="the training used 20 and held out 6 training images, but there are only 24; "):
        held_out_of(card)


def test_other_images_are_those_of_a_folder_without_splits_or_of_its_validation_split(
    card_for: Callable[..., ModelCard], tmp_path: Path
) -> None:
    card = card_for(train=24, test=6)
    flat = noisy_folders(tmp_path / "others", seed=6, flat=12)
    found = held_out_of(card, requested=str(flat / "flat"))
    assert (found.dataset, len(found.images), found.chose_epoch) == ("flat", 12, False)
    split = noisy_folders(tmp_path / "split", seed=7, train=24, val=9, test=6)
    assert held_out_of(card, requested=str(split)).split == "validation"
    with pytest.raises(UsageError, match="mine was trained on these images or is scored on them; expected others: "):
        held_out_of(card, requested=str(tmp_path / "colours"))


def test_images_that_were_trained_on_or_are_scored_are_refused_under_any_name(
    card_for: Callable[..., ModelCard], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = card_for(train=24, test=6)
    scored = dataset_of(card).scored()
    for split, what in (("train", "24 of 24"), ("test", "6 of 6")):
        copied = shutil.copytree(tmp_path / "colours" / split, tmp_path / f"copied-{split}")
        named = held_out_of(card, requested=str(copied))
        words = "are training images of the model" if split == "train" else "are images of the scored split"
        with pytest.raises(UsageError, match=rf"{what} images \(.*\) {words}; a temperature is fitted on oth"):
            check_unseen(named, scored, card)
    others = noisy_folders(tmp_path / "others", seed=6, flat=300) / "flat"
    one = next((tmp_path / "colours" / "train" / "red").iterdir())
    shutil.copy(one, others / "red" / "again.png")
    check_unseen(held_out_of(card, requested=str(others)), scored, card)
    assert "1 of 301 images (all images) are training images of the model" in said(caplog)
    shutil.rmtree(tmp_path / "colours")
    check_unseen(held_out_of(card, requested=str(others)), scored, card)
    assert "flat: whether the model was trained on these images is not known: " in said(caplog)


def test_the_held_out_images_are_checked_against_the_scored_ones(card_for: Callable[..., ModelCard]) -> None:
    card = card_for(train=24, test=6)
    held_out = held_out_of(card)
    check_unseen(held_out, dataset_of(card).scored(), card)
    with pytest.raises(UsageError, match=r"6 of 6 images \(holdout split\) are images of the scored split; "):
        check_unseen(held_out, held_out.images.take(np.arange(6)), card)
