"""Without shortcuts a deep network does worse on its training images than a shallow one or one with shortcuts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rtk.core.data.datasets import Split
from rtk.core.data.open_dataset import open_dataset
from rtk.core.errors import UsageError
from rtk.tools.plot_degradation import picture, plot_degradation, training_errors


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.data
def test_fifty_six_plain_layers_learn_less_than_twenty(real_data: Path) -> None:
    """CIFAR-10 at half its size: 57, 89 and 73 % wrong were measured after eight epochs on 5,000 images."""
    split = open_dataset("cifar10", data_dir=real_data).split("train").head(4_000)
    halves = split.images_NHWC.reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4)).round().astype(np.uint8)
    small = Split(halves, split.labels_N)
    shallow, deep, residual = (
        training_errors(arch, small, epochs=8, device="cpu") for arch in ("plain20", "plain56", "resnet56v1")
    )
    assert len(deep) == 8
    assert shallow[-1] < 0.7
    assert deep[-1] > shallow[-1] + 0.1
    assert deep[-1] > residual[-1] + 0.05


def test_images_of_a_folder_are_drawn_from_all_its_classes(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Split] = []

    def recorded(arch: str, split: Split, **options: object) -> list[float]:
        seen.append(split)
        return [0.5]

    monkeypatch.setattr("rtk.tools.plot_degradation.training_errors", recorded)
    plot_degradation(str(class_folders), epochs=1, train_images=12, device="cpu", out=tmp_path / "a.png")
    assert [len(split) for split in seen] == [12] * 4
    assert len(np.unique(seen[0].labels_N)) > 1
    with pytest.raises(UsageError, match=r"^--train-images 1000000: .* has only \d+ training images$"):
        plot_degradation(str(class_folders), epochs=1, train_images=1_000_000, device="cpu", out=tmp_path / "a.png")


def test_the_picture_shows_every_network(tmp_path: Path) -> None:
    errors = {"plain20": [0.9, 0.5], "plain56": [0.9, 0.8], "resnet56v1": [0.8, 0.4]}
    picture(errors, tmp_path / "docs" / "a.png", title="shapes")
    with Image.open(tmp_path / "docs" / "a.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 400
