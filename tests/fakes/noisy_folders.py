"""A data set on disk that no model answers all right: images of three colours, three tenths with a random label."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")
SIDE = 12


def noisy_folders(root: Path, *, seed: int = 5, **counts: int) -> Path:
    """Write a folder for each split with that many images, such as train=120, and return `root`."""
    random = np.random.default_rng(seed)
    for split, count in counts.items():
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
        for number in range(count):
            shown = number % len(CLASSES)
            label = int(random.integers(len(CLASSES))) if random.random() < 0.3 else shown
            pixels = random.integers(0, 160, (SIDE, SIDE, 3), dtype=np.uint8)
            pixels[..., 2 - shown] += 60
            Image.fromarray(pixels).save(root / split / CLASSES[label] / f"{number}.png")
    return root
