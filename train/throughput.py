"""Training as an endless sequence of single steps, to measure its speed."""

from collections.abc import Iterator
from dataclasses import replace

from ..core.card import Input, ModelCard
from ..core.data.datasets import Split
from .config import TrainConfig
from .data.statistics import learn_maps, preprocessing_of
from .device import Arithmetic, choose_arithmetic, compile_network, make_deterministic
from .recorded_steps import CudaGraphRecorder
from .trainer import Trainer, new_model


def endless_steps(config: TrainConfig, split: Split) -> tuple[ModelCard, Arithmetic, str, Iterator[int]]:
    """The card, the arithmetic, a description of it, and an iterator that performs one training step per item.

    An item is the number of images in the step. Nothing is written or evaluated; every epoch sees every image, in its
    own size.
    """
    classes = tuple(str(k) for k in range(int(split.labels_N.max()) + 1))
    size = Input(*split.image_shape)
    card = ModelCard(
        config.arch, config.arch, config.dataset, classes, size, preprocessing_of(config.resolved_recipe, split)
    )
    arithmetic = choose_arithmetic(config.device, config.precision)
    make_deterministic(arithmetic, strict=config.deterministic)
    model = new_model(card, config.seed, arithmetic)
    learn_maps(model.normalise, card.preprocessing, split)
    recipe = replace(config.resolved_recipe, resizing=(), pruning=0.0, steps=0)
    trainer = Trainer(model, recipe, arithmetic, split, seed=config.seed)
    compilation = compile_network(model.network, arithmetic, config.compile)
    if compilation.records_steps:
        trainer.record_steps(CudaGraphRecorder())

    def steps() -> Iterator[int]:
        while True:
            yield from map(len, trainer.steps())
            trainer.under_way = None

    return card, arithmetic, f"{arithmetic.device}, {arithmetic.precision}, {compilation.description}", steps()
