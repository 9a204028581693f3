"""The recipe finetune makes a good model of few pictures, from a model of the zoo that has never seen such pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rtk.core.data.synthetic_shapes import SHAPES_CLASSES, draw_shapes
from rtk.train.config import TrainConfig
from rtk.train.run import train

CLASSES = ("circle", "cross", "ring", "star", "triangle")


def draw_pictures(folder: Path, *, per_class: int, seed: int) -> None:
    """Draw pictures of five shapes; colours, sizes, turns, backgrounds and noise vary."""
    images_NHWC, labels_N = draw_shapes(len(SHAPES_CLASSES) * per_class, seed=seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in np.flatnonzero(labels_N == SHAPES_CLASSES.index(name)):
            Image.fromarray(images_NHWC[number]).save(folder / name / f"{number}.png")


@pytest.mark.slow
def test_few_pictures_are_enough_from_a_model_of_the_zoo(tmp_path: Path) -> None:
    """60 pictures of each class, 108 steps. 92 % of the held-out pictures were right, by chance it would be 20 %."""
    draw_pictures(tmp_path / "shapes" / "train", per_class=60, seed=1)
    draw_pictures(tmp_path / "shapes" / "test", per_class=30, seed=2)
    config = TrainConfig(
        "resnet20v1",
        dataset=str(tmp_path / "shapes"),
        recipe="finetune",
        weights="resnet20v1-cifar10",
        epochs=12,
        eval_every=12,
        precision="fp32",
        compile="off",
        out=tmp_path / "run",
    )
    score = train(config).card.score
    assert score is not None
    assert score.total == 150
    assert score.accuracy > 0.8  # five standard errors below
