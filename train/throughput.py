"""Training as an endless row of single steps, for measuring how fast they are."""

from collections.abc import Iterator
from dataclasses import replace

from ..core.card import Input, ModelCard
from ..core.data.datasets import Split
from .config import TrainConfig
from .data.statistics import learn_maps, preprocessing_of
from .device import Arithmetic, be_deterministic, choose_arithmetic, compiled
from .trainer import Trainer, new_model


def endless_steps(config: TrainConfig, split: Split) -> tuple[ModelCard, Arithmetic, str, Iterator[int]]:
    """The card, what was decided, the same in words, and an iterator that makes one step of rtk's training an item.

    The items are the images of the step. Nothing is written, nothing evaluated; every image is seen in every epoch, in
    its own size.
    """
    classes = tuple(str(k) for k in range(int(split.labels_N.max()) + 1))
    size = Input(*split.images_NHWC.shape[1:])
    card = ModelCard(config.arch, config.arch, config.dataset, classes, size, preprocessing_of(config.resolved_recipe, split))
    arithmetic = choose_arithmetic(config.device, config.precision)
    be_deterministic(arithmetic, everywhere=config.deterministic)
    model = new_model(card, config.seed, arithmetic)
    learn_maps(model.normalise, card.preprocessing, split)
    recipe = replace(config.resolved_recipe, resizing=(), pruning=0.0, steps=0)
    trainer = Trainer(model, recipe, arithmetic, split, seed=config.seed)
    compilation = compiled(model.network, arithmetic, config.compile)

    def steps() -> Iterator[int]:
        while True:
            yield from map(len, trainer.steps())
            trainer.under_way = None

    return card, arithmetic, f"{arithmetic.device}, {arithmetic.precision}, {compilation}", steps()
