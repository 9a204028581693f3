"""Start: the preprocessing and the first weights of a run, which both may come from trained weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core.card import Input, Preprocessing
from ..core.data.datasets import Split
from ..core.models.model import Model
from .config import TrainConfig
from .data.kept_pixels import keep_maps, kept_pixels_text, kept_preprocessing
from .data.preprocessing import OF_WEIGHTS
from .data.statistics import learn_maps, preprocessing_of
from .log_lines import pixels_line, weights_line
from .recipes import Recipe
from .weights import InitialWeights, read_weights


@dataclass(frozen=True)
class Start:
    """What a run begins with besides random numbers."""

    recipe: Recipe
    """The recipe, without what these weights and this preprocessing exclude."""
    preprocessing: Preprocessing
    weights: InitialWeights | None = None
    kept: Preprocessing | None = None
    """The preprocessing of the weights, if the model keeps it."""

    def fill(self, model: Model, split: Split) -> list[str]:
        """Fill a new model with the initial weights, and its preprocessing with its maps; return descriptions to log.

        The first of them is that of the weights. Raises ArtifactError if the weights do not fit.
        """
        if self.weights is None or self.kept is None:
            learn_maps(model.normalise, self.preprocessing, split)
        else:
            keep_maps(model.normalise, self.weights, self.kept)
        if self.weights is None:
            return []
        described = [self.weights.load_into(model.network)]
        if self.recipe.preprocess == OF_WEIGHTS:
            described.append(kept_pixels_text(self.weights, self.kept, Input(*split.image_shape)))
        return described


def start_of(config: TrainConfig, recipe: Recipe, split: Split, state: Mapping[str, Any] | None) -> Start:
    """The start of a new run; or of one that continues from `state`, without reading the initial weights again.

    Raises UnknownNameError, ArtifactError, UsageError.
    """
    if state is not None:
        saved: Preprocessing | None = state.get("preprocessing") if config.weights is not None else None
        return _start(recipe, saved or preprocessing_of(recipe, split))
    if config.weights is None:
        return _start(recipe, preprocessing_of(recipe, split))
    weights = read_weights(config.arch, config.weights, data_dir=config.data_dir)
    if config.rgb is None and weights.channels == 1:  # grey images need no colours for these
        recipe = replace(recipe, rgb=False)
    kept = None
    if recipe.preprocess == OF_WEIGHTS:
        kept = kept_preprocessing(weights, recipe, Input(*split.image_shape))
    return _start(recipe, kept or preprocessing_of(recipe, split), weights, kept)


def _start(
    recipe: Recipe,
    preprocessing: Preprocessing,
    weights: InitialWeights | None = None,
    kept: Preprocessing | None = None,
) -> Start:
    """The start; a number for every pixel excludes images of other sizes."""
    if preprocessing.per_pixel:
        recipe = replace(recipe, resizing=())
    return Start(recipe, preprocessing, weights, kept)


def start_lines(described: list[str]) -> list[str]:
    """The lines to log about initial weights and the pixels that they get."""
    return [make(text) for make, text in zip((weights_line, pixels_line), described, strict=False)]
