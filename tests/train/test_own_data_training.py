"""A training on own data: which files it used, what it left out, which split it was scored on, and resuming."""

import csv
import shutil
from pathlib import Path

import pytest
from fakes.log import logged
from fakes.train_runs import tiny
from PIL import Image
from rtk.core.errors import ArtifactError, DataError, UsageError
from rtk.train.config import image_size_of
from rtk.train.run import resume, train
from rtk.train.run_folder import RunFolder


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plotting takes longer than training here."""
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


@pytest.fixture
def folders(class_folders: Path, tmp_path: Path) -> Path:
    """A copy of the class folders that a test may change."""
    return Path(shutil.copytree(class_folders, tmp_path / "colours"))


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_folder_lists_the_images_of_every_split(folders: Path, tmp_path: Path) -> None:
    trained = train(tiny(folders, tmp_path / "run", epochs=1, holdout=6))
    used = {name: rows(tmp_path / "run" / "data" / f"{name}.csv") for name in ("train", "holdout", "test")}
    assert {name: len(some) for name, some in used.items()} == {"train": 18, "holdout": 6, "test": 12}
    files = [row["file"] for some in used.values() for row in some]
    assert sorted(files) == sorted(str(path.relative_to(folders)) for path in folders.rglob("*.png"))
    assert all(f"/{row['label']}/" in row["file"] for some in used.values() for row in some)
    assert trained.card.data is not None
    assert (trained.card.data.path, trained.card.data.images) == (str(folders), {"train": 24, "test": 12})
    assert not (tmp_path / "run" / "data" / "unreadable.csv").exists()


def test_unreadable_images_are_listed_counted_and_left_out(folders: Path, tmp_path: Path) -> None:
    (folders / "train" / "red" / "3.png").write_bytes(b"no image")
    lines = list[str]()
    config = tiny(folders, tmp_path / "run", epochs=1, max_unreadable=0.05)
    logged(lines.append, train, config)
    assert rows(tmp_path / "run" / "data" / "unreadable.csv") == [
        {"split": "train", "file": "train/red/3.png", "reason": "not an image that Pillow reads"}
    ]
    assert len(rows(tmp_path / "run" / "data" / "train.csv")) == 23
    said = " ".join(" ".join(lines).split())
    assert f"unreadable images, left out: 1, listed in {tmp_path / 'run' / 'data' / 'unreadable.csv'}" in said
    for options in ({}, {"strict": True}):
        with pytest.raises(DataError, match="1 of 24 images cannot be read"):
            train(tiny(folders, tmp_path / "other", epochs=1, **options))


def test_the_same_image_in_training_and_test_is_reported(folders: Path, tmp_path: Path) -> None:
    with Image.open(folders / "train" / "blue" / "2.png") as image:
        image.save(folders / "test" / "blue" / "copy.bmp")  # another file with the same pixels
    lines = list[str]()
    logged(lines.append, train, tiny(folders, tmp_path / "run", epochs=1))
    assert rows(tmp_path / "run" / "data" / "repeated.csv") == [
        {"split": "test", "file": "test/blue/copy.bmp", "same_as": "train/blue/2.png"}
    ]
    assert "images with the same pixels as a training image: 1, listed in" in " ".join(" ".join(lines).split())


def test_without_a_test_split_scores_are_of_the_validation_split(folders: Path, tmp_path: Path) -> None:
    (folders / "test").rename(folders / "val")
    lines = list[str]()
    trained = logged(lines.append, train, tiny(folders, tmp_path / "run", epochs=2))
    score, training = trained.card.score, trained.card.training
    assert score is not None
    assert training is not None
    assert (score.split, score.total) == ("validation", 12)
    assert training.selection == "moving average of the weights after the last epoch; nothing was selected"
    assert "images of the validation split" in " ".join(trained.card.to_text().split())
    said = " ".join(" ".join(lines).split())
    assert "no test split: scores are of the validation split" in said
    assert "validation" in lines[-1]
    assert "test" not in lines[-1]
    chosen = train(tiny(folders, tmp_path / "chosen", epochs=2, select="best")).card.training
    assert chosen is not None
    assert chosen.used_test_split
    assert "weights of the epoch with the highest accuracy on the validation split itself" in chosen.selection


def test_a_validation_split_beside_a_test_split_chooses_the_epoch(folders: Path, tmp_path: Path) -> None:
    (folders / "val").mkdir()
    for name in ("red", "green", "blue"):
        (folders / "val" / name).mkdir()
        for number in (0, 1):
            (folders / "train" / name / f"{number}.png").rename(folders / "val" / name / f"{number}.png")
    card = train(tiny(folders, tmp_path / "run", epochs=2)).card
    assert card.training is not None
    assert card.score is not None
    assert card.training.selection.endswith("weights of the epoch with the highest accuracy on 6 validation images")
    assert (card.training.selected_on, card.score.split, card.score.total) == ("validation", "test", 12)
    assert not card.training.used_test_split


def test_early_stopping_uses_the_validation_split_and_needs_one(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--patience needs held-out images; add --validation-split 0\.1$"):
        train(tiny(folders, tmp_path / "run", patience=1))
    (folders / "test").rename(folders / "val")
    trained = train(tiny(folders, tmp_path / "run", epochs=20, lr=1e-6, patience=1))
    assert len(trained.history) < 20
    assert trained.history[-1]["stopped_early"]


def test_a_drawn_split_follows_the_seed_and_is_on_the_card(class_folders: Path, tmp_path: Path) -> None:
    config = tiny(class_folders / "train", tmp_path / "run", epochs=1, split_seed=7, test_share=0.25)
    data = train(config).card.data
    assert data is not None
    assert (data.layout, data.images) == ("class folders, test split drawn", {"train": 18, "test": 6})
    assert (data.seed, data.test_share) == (7, 0.25)


def test_a_run_resumes_on_data_that_have_moved_if_they_are_named(folders: Path, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        if line.startswith("epoch   1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logged(stop, train, tiny(folders, tmp_path / "run", epochs=2))
    folders.rename(tmp_path / "moved")
    with pytest.raises(DataError) as caught:
        resume(tmp_path / "run")
    assert str(caught.value) == (
        f"{folders}: the data set of the run is not there any more; if it has moved, name it: "
        f"rtk train --resume {tmp_path / 'run'} --dataset DIR"
    )
    other = Path(shutil.copytree(tmp_path / "moved", tmp_path / "other"))
    (other / "train" / "red" / "0.png").unlink()
    with pytest.raises(ArtifactError, match="the images have changed since the run began"):
        resume(tmp_path / "run", given={"dataset": str(other)})
    assert RunFolder(tmp_path / "run").read_config().dataset == str(folders)  # a wrong folder leaves the run as it is
    resume(tmp_path / "run", given={"dataset": str(tmp_path / "moved")})
    config = RunFolder(tmp_path / "run").read_config()
    assert config.dataset == str(tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved")
    assert len(resume(tmp_path / "run").history) == 2  # a finished run needs no data


def test_size_and_fit_are_those_of_the_model(folders: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 10)).save(folders / "train" / "red" / "wide.png")
    card = train(tiny(folders, tmp_path / "run", epochs=1, image_size="16x20", fit="letterbox")).card
    assert (card.input.shape, card.fit) == ((16, 20, 3), "letterbox")
    assert "letterbox: the whole image, with black bars" in card.to_text()


@pytest.mark.parametrize("text", ["", "0", "7", "64x", "x64", "64X64", "1025", "64x4096", "a"])
def test_an_image_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(
        UsageError, match="^--image-size .*: expected N or HxW, such as 224 or 96x128, of 8 to 1,024 pixels$"
    ):
        image_size_of(text)
    assert image_size_of("64") == (64, 64)
    assert image_size_of("96x128") == (96, 128)
