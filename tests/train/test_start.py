"""A training from trained weights gives them the pixels that they expect, unless other ones are asked for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.log import logged
from PIL import Image
from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint
from rtk.core.card import Input, ModelCard, Preprocessing
from rtk.core.data.datasets import Split
from rtk.core.data.open_dataset import open_dataset
from rtk.core.errors import ArtifactError, UsageError
from rtk.core.models.model import build_model, build_network
from rtk.core.zoo import zoo_card
from rtk.train.config import TrainConfig
from rtk.train.run import Trained, resume, train
from rtk.train.run_folder import RunFolder
from rtk.train.start import start_of

MEAN, DEVIATION = (0.1, 0.2, 0.6), (0.5, 0.25, 0.125)
GREY = Split(np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8, 1), np.array([0, 1, 0, 1]))
COLOUR = Split(np.repeat(GREY.images_NHWC, 3, axis=3), GREY.labels_N)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


@pytest.fixture
def saved(card: ModelCard, tmp_path: Path, randomise: Callable[..., None]) -> Callable[..., str]:
    """Writes a checkpoint of resnet8v1 with this preprocessing for images of this size, and returns its path."""

    def save(preprocessing: Preprocessing, size: tuple[int, int, int] = (8, 8, 3)) -> str:
        start = replace(card, preprocessing=preprocessing, input=Input(*size))
        model = build_model(start)
        randomise(model.network, seed=3)
        if preprocessing.per_pixel:
            model.normalise.mean.copy_(torch.linspace(0, 1, model.normalise.mean.numel()).view_as(model.normalise.mean))
        save_checkpoint(tmp_path / "start.pt", start, model.state_dict())
        return str(tmp_path / "start.pt")

    return save


def started(split: Split, weights: str, arch: str = "resnet8v1", **options: Any) -> Preprocessing:
    config = TrainConfig(arch, weights=weights, **{"recipe": "finetune", **options})
    return start_of(config, config.resolved_recipe, split, None).preprocessing


@pytest.mark.parametrize("recipe", ["finetune", "quick", "rtk"])
def test_the_constants_of_the_checkpoint_become_those_of_the_model(saved: Callable[..., str], recipe: str) -> None:
    expected = Preprocessing(MEAN, DEVIATION)
    assert started(COLOUR, saved(expected, (32, 32, 3)), recipe=recipe) == expected


def test_all_steps_of_the_checkpoint_are_kept(saved: Callable[..., str]) -> None:
    expected = Preprocessing((0.0,) * 3, (1.0,) * 3, image_mean=True, image_deviation=True, resize=(16, 16))
    assert started(COLOUR, saved(expected)) == expected
    assert started(COLOUR, saved(expected), resize=24) == replace(expected, resize=(24, 24))


def test_an_option_and_the_tutorial_have_their_own_pixels(saved: Callable[..., str]) -> None:
    path = saved(Preprocessing(MEAN, DEVIATION))
    mean, deviation = (float(value) for value in (COLOUR.images_NHWC.mean() / 255, COLOUR.images_NHWC.std() / 255))
    standard = started(COLOUR, path, preprocess="standard")
    assert standard.mean == pytest.approx((mean,) * 3)
    assert standard.deviation == pytest.approx((deviation,) * 3)
    assert started(COLOUR, path, recipe="keras-finetune") == Preprocessing((0.0,) * 3, (1.0,) * 3)


def test_grey_images_are_repeated_for_weights_that_expect_colours(saved: Callable[..., str]) -> None:
    path = saved(Preprocessing(MEAN, DEVIATION))
    assert started(GREY, path) == Preprocessing(MEAN, DEVIATION)
    averaged = started(GREY, path, rgb=False)
    assert averaged.mean == pytest.approx((0.3,))
    assert averaged.deviation == pytest.approx((0.875 / 3,))
    assert started(GREY, path, recipe="quick") == averaged


def test_grey_weights_keep_grey_pixels_and_refuse_colours(saved: Callable[..., str], tmp_path: Path) -> None:
    path = saved(Preprocessing((0.25,), (0.5,)), (8, 8, 1))
    assert started(GREY, path) == Preprocessing((0.25,), (0.5,))
    config = TrainConfig("resnet8v1", weights=path, recipe="finetune")
    start = start_of(config, config.resolved_recipe, COLOUR, None)
    model = build_model(ModelCard("a", "resnet8v1", "b", ("c", "d"), Input(8, 8, 3), start.preprocessing))
    with pytest.raises(ArtifactError, match="wrong shape: stem.0.weight is 16 x 1 x 3 x 3 instead of 16 x 3 x 3 x 3"):
        start.fill(model, COLOUR)


@pytest.mark.parametrize("whitening", [False, True])
def test_a_mean_image_is_kept_for_images_of_its_size_only(saved: Callable[..., str], whitening: bool) -> None:
    kept = Preprocessing((0.5,) * 3, (1.0,) * 3, per_pixel=True, whitening=whitening)
    path = saved(kept)
    config = TrainConfig("resnet8v1", weights=path)
    start = start_of(config, config.resolved_recipe, COLOUR, None)
    assert start.preprocessing == kept
    assert start.recipe.resizing == ()
    model = build_model(ModelCard("a", "resnet8v1", "b", ("c", "d"), Input(8, 8, 3), kept))
    start.fill(model, COLOUR)
    for name, value in load_checkpoint(Path(path)).model().normalise.state_dict().items():
        assert torch.equal(model.normalise.state_dict()[name], value), name
    with pytest.raises(UsageError) as caught:
        started(COLOUR, saved(kept, (4, 4, 3)))
    assert str(caught.value) == (
        "start.pt: its preprocessing is for images of 4 x 4 x 3, found 8 x 8 x 3; add another: --preprocess standard"
    )


@pytest.mark.parametrize(("classes", "known"), [(1000, True), (7, False)])
def test_files_of_torchvision_get_the_pixels_of_imagenet(tmp_path: Path, classes: int, known: bool) -> None:
    torch.save(build_network("resnet18", in_channels=3, classes=classes).state_dict(), tmp_path / "a.pth")
    config = TrainConfig("resnet18", weights=str(tmp_path / "a.pth"), recipe="finetune")
    start = start_of(config, config.resolved_recipe, COLOUR, None)
    assert (start.preprocessing.mean == (0.485, 0.456, 0.406)) == known
    assert (start.preprocessing.deviation == (0.229, 0.224, 0.225)) == known
    model = build_model(ModelCard("a", "resnet18", "b", ("c", "d"), Input(8, 8, 3), start.preprocessing))
    assert start.fill(model, COLOUR)[1] == (
        "as a.pth expects: / 255, minus (0.4850, 0.4560, 0.4060), / (0.2290, 0.2240, 0.2250)"
        if known
        else "standardised by the training images; a.pth does not say what its weights expect"
    )


def test_a_run_from_the_zoo_says_its_pixels_in_a_line_and_resumes_with_them(
    class_folders: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        "resnet20v1", dataset=str(class_folders), recipe="finetune", weights="resnet20v1-cifar10", epochs=2,
        batch_size=8, precision="fp32", compile="off", out=tmp_path / "run",
    )  # fmt: skip
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch   1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logged(stop, train, config)
    trained: Trained = resume(config.run_dir)
    zoo = zoo_card("resnet20v1-cifar10")
    assert trained.card.preprocessing == zoo.preprocessing
    assert trained.card.training is not None
    assert trained.card.training.settings["preprocess"] == "weights"
    (said,) = (line for line in lines if line.startswith("pixels: "))
    assert " ".join(said.split()) == (
        "pixels: as resnet20v1-cifar10.pt expects: / 255, minus (0.4914, 0.4822, 0.4465), / (0.2470, 0.2435, 0.2616); "
        "trained on 32 x 32, now 12 x 12"
    )
    assert all(len(line) <= 80 for line in lines[1].splitlines())


def test_the_data_set_need_not_be_grey_or_coloured_throughout(tmp_path: Path, saved: Callable[..., str]) -> None:
    for split in ("train", "test"):
        for number, name in enumerate(("a", "b")):
            (tmp_path / "grey" / split / name).mkdir(parents=True)
            for index in range(4):
                Image.new("L", (8, 8), 60 * number + index).save(tmp_path / "grey" / split / name / f"{index}.png")
    trained = train(
        TrainConfig(
            "resnet8v1", dataset=str(tmp_path / "grey"), recipe="finetune", epochs=1, batch_size=4, precision="fp32",
            weights=saved(Preprocessing(MEAN, DEVIATION)), compile="off", out=tmp_path / "run",
        )
    )  # fmt: skip
    assert open_dataset(str(tmp_path / "grey")).split("train").images_NHWC.shape == (8, 8, 8, 1)
    assert trained.card.preprocessing == Preprocessing(MEAN, DEVIATION)
    assert load_checkpoint(trained.best).weights["network.stem.0.weight"].shape == (16, 3, 3, 3)
