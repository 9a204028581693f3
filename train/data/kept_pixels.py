"""The pixels that initial weights expect: the preprocessing that they were trained with becomes the new model's own.

Weights that get other pixels than those they were trained with have to learn the difference first. A checkpoint of rtk
has its preprocessing on its card, and torchvision's files have that of `--preprocess imagenet`.
"""

from dataclasses import replace

from ...core.card import Input, Preprocessing
from ...core.errors import UsageError
from ...core.models.normalise import Normalise
from ..recipes import Recipe
from ..weights import InitialWeights
from .preprocessing import IMAGENET_DEVIATION, IMAGENET_MEAN


def kept_preprocessing(weights: InitialWeights, recipe: Recipe, size: Input) -> Preprocessing | None:
    """The preprocessing that the weights expect, for a model of images of this size; None if the file does not say.

    Grey images are repeated for weights that expect colours, as --rgb does; with --no-rgb the kernel is summed over the
    colours, and the constants are averaged. Another height or width makes no difference to the networks. But a mean
    image and a whitening matrix belong to one size: raises UsageError if the images have another.
    """
    expected = _expected(weights)
    if expected is None:
        return None
    into = 3 if size.channels == 3 or recipe.rgb else 1
    trained = weights.card.input if weights.card else size
    if expected.per_pixel and (trained != size or expected.channels != into):
        raise UsageError(
            f"{weights.path.name}: its preprocessing is for images of {_shape(trained)}, found {_shape(size)}; "
            "add another: --preprocess standard"
        )
    return replace(
        expected,
        mean=_for_channels(expected.mean, into),
        deviation=_for_channels(expected.deviation, into),
        resize=(recipe.resize, recipe.resize) if recipe.resize else expected.resize,
    )


def keep_maps(normalise: Normalise, weights: InitialWeights, kept: Preprocessing) -> None:
    """Set the mean image and the whitening matrix, which the card does not hold, to those of the weights."""
    if kept.per_pixel:
        normalise.load_state_dict(weights.maps)


def kept_pixels_text(weights: InitialWeights, kept: Preprocessing | None, size: Input) -> str:
    """Which pixels the new model gives to the weights, in words for the log."""
    if kept is None:
        return f"standardised by the training images; {weights.path.name} does not say what its weights expect"
    text = f"as {weights.path.name} expects: {kept.to_text()}"
    trained = weights.card.input if weights.card else size
    if (trained.height, trained.width) != (size.height, size.width):
        text += f"; trained on {trained.height} x {trained.width}, now {size.height} x {size.width}"
    return text


def _expected(weights: InitialWeights) -> Preprocessing | None:
    if weights.card is not None:
        return weights.card.preprocessing
    return Preprocessing(IMAGENET_MEAN, IMAGENET_DEVIATION) if weights.of_imagenet else None


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """The values for that many channels: repeated, or averaged to one."""
    if len(values) == channels:
        return values
    return values * channels if len(values) == 1 else (sum(values) / len(values),)


def _shape(size: Input) -> str:
    return " x ".join(map(str, size.shape))
