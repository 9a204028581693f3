"""How the user's own data are split and read. Nothing heavy is imported here: `rtk --help` needs the defaults."""

from dataclasses import dataclass
from typing import Literal

from . import DATASETS

Fit = Literal["crop", "letterbox", "stretch"]
"""How an image of other proportions becomes one of the model's size."""

RESIZE_FILTER, ANTIALIAS, CROP_SHARE = "bilinear", True, 1.0
"""How an image of another size becomes one of the model's size: images.py does it, and every card says it. Pillow's
filters are antialiased, and the crop keeps all of the shorter side."""

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded, unless an option sets another limit; 64 million pixels decode to
256 MB at most."""
LARGEST_MEGAPIXELS = 2_000
"""The largest limit that options accept, in million pixels."""
TEST_SHARE, MAX_UNREADABLE = 0.2, 0.01
SMALL_SIDE, IMAGENET_SIDE = 64, 224
"""Sides in pixels that images of different sizes are read with, by the kind of network."""


@dataclass(frozen=True)
class DataOptions:
    """How the user's own images are split and read."""

    image_size: tuple[int, int] | None = None
    """Height and width; None: chosen by the images."""
    channels: int | None = None
    """1 or 3; None: chosen by the images."""
    fit: Fit = "crop"
    split_seed: int = 0
    """For a test split that is drawn. It is not the seed of the training, so that several trainings can be compared."""
    test_share: float = TEST_SHARE
    """Share of each class in a test split that is drawn."""
    max_unreadable: float = MAX_UNREADABLE
    """The largest share of unreadable images that are left out."""
    max_pixels: int = MAX_PIXELS
    default_side: int = SMALL_SIDE
    """The size of images that are large or differ."""
    classes: tuple[str, ...] = ()
    """The classes in the order of a model that is there already; empty: in their own order."""
    evaluation: bool = False
    """Whether the images are only evaluated by a model of `classes`: they need no training split, and no image of some
    of these classes. If they have no splits, all of them are the test split."""
    trained_on: str = ""
    """With `evaluation`: the fingerprint of the model's own data, whose test split is the one of the training."""


def is_named(name: str) -> bool:
    """Whether a name is that of one of DATASETS. `./cifar10` and `cifar10/` are paths."""
    return name in DATASETS
