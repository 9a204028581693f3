"""The images of a dry run of `make gpu`: noise in class folders, named as in CIFAR-10."""

from pathlib import Path

import numpy as np
from PIL import Image

from ..core.data.official import CIFAR10_CLASSES

SETS = {"images": (32, {"train": 1, "test": 2}), "tiny": (8, {"train": 13, "test": 1})}
"""Edge, and images of each class: `images` in the size of the zoo's default model; `tiny` for training, which takes a
batch of 128 or more."""


def draw_images(out: Path) -> None:
    """Write both data sets below `out`."""
    random = np.random.default_rng(0)
    for name, (edge, counts) in SETS.items():
        for split, count in counts.items():
            for label in CIFAR10_CLASSES:
                folder = out / name / split / label
                folder.mkdir(parents=True, exist_ok=True)
                for index in range(count):
                    pixels = random.integers(0, 256, (edge, edge, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{index}.png")
