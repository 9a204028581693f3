"""The choices of `rtk train --preprocess`, as rows of a table. Nothing heavy is imported here."""

from dataclasses import dataclass
from typing import Literal

from ...core.errors import UnknownNameError


@dataclass(frozen=True)
class Preprocess:
    """Steps applied to pixels after division by 255. Statistics come from the training images only."""

    name: str
    mean: Literal["none", "channel", "pixel", "imagenet"]
    """What is subtracted: nothing, one number per channel, the mean image, or ImageNet's mean."""
    deviation: Literal["none", "channel", "imagenet"] = "none"
    """The divisor after that."""
    image_mean: bool = False
    """Whether each image's own mean is subtracted."""
    image_deviation: bool = False
    """Whether each image is divided by its own standard deviation."""
    whitening: bool = False
    """Whether pixels are decorrelated (ZCA)."""

    @property
    def fixed_size(self) -> bool:
        """Whether it holds a number for every pixel, so that all images must have the same size."""
        return self.mean == "pixel" or self.whitening


PREPROCESSES = {
    row.name: row
    for row in (
        Preprocess("standard", "channel", "channel"),  # Keras: featurewise_center, featurewise_std_normalization
        Preprocess("center", "channel"),  # Keras: featurewise_center
        Preprocess("unit", "none"),
        Preprocess("mean-image", "pixel"),
        Preprocess("samplewise", "none", image_mean=True, image_deviation=True),
        Preprocess("samplewise-center", "none", image_mean=True),
        Preprocess("zca", "pixel", whitening=True),
        Preprocess("imagenet", "imagenet", "imagenet"),  # what torchvision's weights were trained with
        Preprocess("weights", "channel", "channel"),  # what the initial weights expect; else as standard
    )
}

OF_WEIGHTS = "weights"
"""The row that keeps the preprocessing of the initial weights."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def find_preprocess(name: str) -> Preprocess:
    """The row of that name. Raises UnknownNameError, which lists the known names."""
    if name not in PREPROCESSES:
        raise UnknownNameError("--preprocess", name, PREPROCESSES)
    return PREPROCESSES[name]
