"""A deep network without shortcuts does worse on its own training images than a shallow one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rtk.core.datasets import Split
from rtk.core.shapes import draw_shapes
from rtk.degradation import picture, training_errors


@pytest.mark.slow
def test_fifty_six_plain_layers_learn_less_than_twenty() -> None:
    images_NHWC, labels_N = draw_shapes(3_072, seed=11)
    small = Split(np.ascontiguousarray(images_NHWC[:, ::2, ::2]), labels_N)
    shallow, deep = (training_errors(arch, small, epochs=20, device="cpu") for arch in ("plain20", "plain56"))
    assert len(shallow) == len(deep) == 20
    assert shallow[-1] < 0.85  # of ten classes: it has learnt something
    assert deep[-1] > shallow[-1] + 0.05


def test_the_picture_shows_every_network(tmp_path: Path) -> None:
    errors = {"plain20": [0.9, 0.5], "plain56": [0.9, 0.8], "resnet56v1": [0.8, 0.4]}
    picture(errors, tmp_path / "docs" / "a.png", title="shapes")
    with Image.open(tmp_path / "docs" / "a.png") as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 400
