"""The first epoch of every recipe equals that of a hand-written loop, from the order of the images to the weights.

The loops share with the code under test only the network, PyTorch's layers and the order of random draws. Recipe,
schedule, augmentation, preprocessing, optimiser and averaging are written a second time, partly image by image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rtk.core.card import Input, ModelCard
from rtk.core.data.datasets import Split
from rtk.core.models.model import build_network
from rtk.train.config import TrainConfig
from rtk.train.data.statistics import learn_maps, preprocessing_of
from rtk.train.device import Arithmetic
from rtk.train.trainer import Trainer, new_model, random_generator
from torch import Tensor, nn

CPU = torch.device("cpu")
SEED, SIDE, BATCH = 5, 8, 4
Step = Callable[[str, Tensor, Tensor, float], Tensor]
"""The new value of a weight, from its name, value, gradient and learning rate."""


def split_of(count: int, channels: int) -> Split:
    random = np.random.default_rng(count)
    images = random.integers(0, 256, (count, SIDE, SIDE, channels), dtype=np.uint8)
    return Split(images, random.integers(0, 3, count))


def by_rtk(recipe: str, split: Split) -> Trainer:
    """A trainer with that recipe before its first step, with batches of four."""
    weights = "a.pt" if recipe.endswith("finetune") else None  # never read
    config = TrainConfig("resnet8v1", recipe=recipe, batch_size=BATCH, weights=weights)
    values = config.resolved_recipe.for_images(len(split))
    preprocessing = preprocessing_of(values, split)
    size = Input(*split.images_NHWC.shape[1:])
    arithmetic = Arithmetic(CPU, None)
    model = new_model(ModelCard("a", "resnet8v1", "b", ("c", "d", "e"), size, preprocessing), SEED, arithmetic)
    learn_maps(model.normalise, preprocessing, split)
    return Trainer(model, values, arithmetic, split, seed=SEED)


@dataclass
class Sgd:
    momentum: float
    nesterov: bool
    decay: float
    decays: Callable[[Tensor], bool]
    velocity: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, name: str, weight: Tensor, gradient: Tensor, rate: float) -> Tensor:
        if self.decays(weight):
            gradient = gradient + self.decay * weight
        velocity = self.momentum * self.velocity[name] + gradient if name in self.velocity else gradient
        self.velocity[name] = velocity
        return weight - rate * (gradient + self.momentum * velocity if self.nesterov else velocity)


@dataclass
class Adam:
    epsilon: float
    moments: dict[str, tuple[Tensor, Tensor, int]] = field(default_factory=dict)

    def __call__(self, name: str, weight: Tensor, gradient: Tensor, rate: float) -> Tensor:
        first, second, step = self.moments.get(name, (torch.zeros_like(weight), torch.zeros_like(weight), 0))
        first, second, step = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2, step + 1
        self.moments[name] = first, second, step
        root = (second / (1 - 0.999**step)).sqrt()
        return weight - rate / (1 - 0.9**step) * first / (root + self.epsilon)


CANCELLED = ("conv1.bias", "conv2.bias", "stem.0.bias")
"""Batch norm cancels these biases: their gradients are rounding errors, which Adam enlarges to full steps."""


def assert_same(
    trainer: Trainer,
    batches: list[tuple[Tensor, Tensor, float]],
    step: Step,
    *,
    norm_momentum: float,
    l2: float = 0.0,
) -> list[dict[str, Tensor]]:
    """Train one epoch; the losses and weights of each step must equal those of the hand-written step.

    `batches`: images N x C x H x W, labels and learning rate of each step. Each hand-written step starts at the
    trainer's weights before it. Otherwise the rounding errors of one step would grow in the next ones, by how much
    depends on the processor and on the number of threads. Returns the weights after each hand-written step.
    """
    network = build_network("resnet8v1", in_channels=batches[0][0].shape[1], classes=3)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = norm_momentum
    adam = trainer.recipe.optimiser == "adam"
    before, after = weights_of(trainer), []
    for losses_B, (x_NCHW, labels, rate) in zip(trainer.steps(), batches, strict=True):
        network.load_state_dict(before)
        loss = F.cross_entropy(network(x_NCHW), labels)
        assert float(losses_B.mean()) == pytest.approx(loss.item(), rel=1e-5)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                loss = loss + l2 * (layer.weight**2).sum()
        names, parameters = zip(*network.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
                parameter.copy_(step(name, parameter, gradient, rate))
        before = weights_of(trainer)
        after.append({name: value.clone() for name, value in network.state_dict().items()})
        for name, value in after[-1].items():
            if name.endswith("num_batches_tracked") or (adam and name.endswith(CANCELLED)):
                continue
            differences = (before[name] - value).abs()
            # Adam moves a weight by up to the rate however small its gradient is, and rounding changes small gradients.
            assert float((differences > 1e-5).float().mean()) <= (1e-3 if adam else 0), name
            assert float(differences.max()) <= (rate if adam else 1e-5), name
    return after


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.network.state_dict().items()}


def crop(image_HWC: np.ndarray, border: np.ndarray, down: int, right: int) -> np.ndarray:
    """A window of the image with a border of one pixel in this colour."""
    padded = np.broadcast_to(border, (SIDE + 2, SIDE + 2, image_HWC.shape[2])).copy()
    padded[1:-1, 1:-1] = image_HWC
    return padded[down : down + SIDE, right : right + SIDE]


def nearest_bilinear(image_HWC: np.ndarray, point: Callable[[int, int], tuple[float, float]]) -> np.ndarray:
    """The image sampled at `point(row, column)`; outside it, the nearest pixel."""
    seen = np.empty(image_HWC.shape, np.float64)
    for row in range(SIDE):
        for column in range(SIDE):
            y, x = point(row, column)
            top, left = math.floor(y), math.floor(x)
            seen[row, column] = sum(
                (1 - abs(y - r)) * (1 - abs(x - c)) * image_HWC[min(max(r, 0), SIDE - 1), min(max(c, 0), SIDE - 1)]
                for r in (top, top + 1)
                for c in (left, left + 1)
            )
    return seen


def erased(views: list[np.ndarray], random: torch.Generator) -> list[np.ndarray]:
    """Half of the views, with a rectangle of noise: 2 to 40 % of the area, 0.3 to 3.3 times as high as wide."""
    drawn = [torch.rand(len(views), generator=random).tolist() for _ in range(5)]  # one after the other, as rtk draws
    noise = torch.randint(256, (len(views), *views[0].shape), generator=random, dtype=torch.uint8).numpy()
    seen = []
    for view, filling, area, aspect, down, right, chance in zip(views, noise, *drawn, strict=True):
        pixels, ratio = (0.02 + 0.38 * area) * SIDE**2, (0.3 ** (1 - 2 * aspect))
        tall, wide = (min(max(round(math.sqrt(side)), 1), SIDE - 1) for side in (pixels * ratio, pixels / ratio))
        top, left = math.floor(down * (SIDE - tall + 1)), math.floor(right * (SIDE - wide + 1))
        changed = view.copy()
        if chance < 0.5:
            changed[top : top + tall, left : left + wide] = filling[top : top + tall, left : left + wide]
        seen.append(changed)
    return seen


def nchw(views: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(views).astype(np.float32)).permute(0, 3, 1, 2)


def standardised(views_NCHW: Tensor, split: Split) -> Tensor:
    """Each channel minus the split's mean, divided by the split's standard deviation."""
    pixels = split.images_NHWC / 255
    mean_C11, deviation_C11 = (
        torch.from_numpy(value).float()[:, None, None] for value in (pixels.mean((0, 1, 2)), pixels.std((0, 1, 2)))
    )
    return (views_NCHW / 255 - mean_C11) / deviation_C11


def integers(most: int, random: torch.Generator, shape: tuple[int, ...] = (BATCH, 1)) -> list[int]:
    return torch.randint(most, shape, generator=random).flatten().tolist()


def test_recipe_rtk_trains_like_the_steps_written_by_hand() -> None:
    """Warm-up to 0.2 over 8 of 160 epochs, Nesterov SGD, decay of matrices, half size, alternate flips, erasing."""
    split = split_of(24, 3)
    trainer = by_rtk("rtk", split)
    random = random_generator(SEED, 0, CPU)
    first_flip = torch.randint(2, (24,), generator=random_generator(SEED, -2, CPU)).tolist()
    order = torch.randperm(24, generator=random)
    torch.rand(24, generator=random)  # decides which images are left out once losses are known
    colour = np.round(split.images_NHWC.mean(axis=(0, 1, 2)))
    batches = []
    for step, index in enumerate(order.split(4)):
        down, right = integers(3, random), integers(3, random)
        views = [crop(split.images_NHWC[i], colour, d, r) for i, d, r in zip(index.tolist(), down, right, strict=True)]
        views = [v[:, ::-1] if first_flip[i] else v for v, i in zip(views, index.tolist(), strict=True)]
        views = erased(views, random)
        half = F.interpolate(nchw(views), (4, 4), mode="bilinear", antialias=True).round()
        x = standardised(half, split)
        rate = 0.2 * (step + 0.5) / 6 / 8  # six steps an epoch
        batches.append((x.float(), torch.from_numpy(split.labels_N)[index], rate))
    sgd = Sgd(0.9, True, 5e-4, lambda weight: weight.ndim > 1)
    before = {name: value.clone() for name, value in trainer.average.weights.items()}
    by_hand = assert_same(trainer, batches, sgd, norm_momentum=0.1)
    # The average moves once, with the fifth step, by 1 - min(1 - 5 / 24, 2 / 11): the horizon is 0.025 * 960 steps.
    for name, _ in trainer.model.network.named_parameters():
        expected = 2 / 11 * before[f"network.{name}"] + 9 / 11 * by_hand[4][name]
        torch.testing.assert_close(trainer.average.current()[f"network.{name}"], expected, atol=1e-4, rtol=0)


def test_recipe_quick_trains_like_the_steps_written_by_hand() -> None:
    """Warm-up to 0.1 over 0.75 of 5 epochs, Nesterov SGD, images in their own size, random flips."""
    split = split_of(24, 1)
    trainer = by_rtk("quick", split)
    random = random_generator(SEED, 0, CPU)
    order = torch.randperm(24, generator=random)
    batches = []
    for step, index in enumerate(order.split(4)):
        integers(1, random)
        mirrored = integers(2, random, (4,))
        integers(1, random)
        views = [split.images_NHWC[i] for i in index.tolist()]
        views = [view[:, ::-1] if turned else view for view, turned in zip(views, mirrored, strict=True)]
        x = standardised(nchw(views), split)
        progress = (step + 0.5) / 6 / 5
        rate = 0.1 * progress / 0.15 if progress < 0.15 else 0.05 * (1 + math.cos(math.pi * (progress - 0.15) / 0.85))
        batches.append((x.float(), torch.from_numpy(split.labels_N)[index], rate))
    sgd = Sgd(0.9, True, 5e-4, lambda weight: weight.ndim > 1)
    assert_same(trainer, batches, sgd, norm_momentum=0.1)


def test_recipe_paper_trains_like_the_steps_written_by_hand() -> None:
    """SGD at 0.1, momentum 0.9, decay 1e-4 of everything, crops and flips."""
    split = split_of(12, 3)
    trainer = by_rtk("paper", split)
    random = random_generator(SEED, 0, CPU)
    order = torch.randperm(12, generator=random)
    colour = np.round(split.images_NHWC.mean(axis=(0, 1, 2)))
    batches = []
    for index in order.split(4):
        down, mirrored, right = integers(3, random), integers(2, random, (4,)), integers(3, random)
        views = [crop(split.images_NHWC[i], colour, d, r) for i, d, r in zip(index.tolist(), down, right, strict=True)]
        views = [view[:, ::-1] if turned else view for view, turned in zip(views, mirrored, strict=True)]
        x = standardised(nchw(views), split)
        batches.append((x.float(), torch.from_numpy(split.labels_N)[index], 0.1))
    sgd = Sgd(0.9, False, 1e-4, lambda weight: True)
    assert_same(trainer, batches, sgd, norm_momentum=0.01)


def test_recipe_keras_trains_like_the_steps_written_by_hand() -> None:
    """Adam at 1e-3, 1e-4 times the sum of squares in the loss, shifts of up to 0.8 pixels, all ten images."""
    split = split_of(10, 3)
    trainer = by_rtk("keras", split)
    random = random_generator(SEED, 0, CPU)
    order = torch.randperm(10, generator=random)
    mean_CHW = torch.from_numpy((split.images_NHWC / 255).mean(axis=0).transpose(2, 0, 1))
    batches = []
    for index in order.split(4):
        size = len(index)
        integers(1, random, (size, 1))
        mirrored = integers(2, random, (size,))
        integers(1, random, (size, 1))
        down, right = ((0.8 * (2 * torch.rand(size, generator=random) - 1)).tolist() for _ in range(2))
        views = [split.images_NHWC[i] for i in index.tolist()]
        views = [view[:, ::-1] if turned else view for view, turned in zip(views, mirrored, strict=True)]
        views = [
            nearest_bilinear(view, lambda row, column, d=d, r=r: (row + d, column + r))
            for view, d, r in zip(views, down, right, strict=True)
        ]
        batches.append((nchw(views) / 255 - mean_CHW.float(), torch.from_numpy(split.labels_N)[index], 1e-3))
    assert [len(labels) for _, labels, _ in batches] == [4, 4, 2]
    assert_same(trainer, batches, Adam(1e-7), norm_momentum=0.01, l2=1e-4)


def test_recipe_d2l_trains_like_the_steps_written_by_hand() -> None:
    """Adam at 1e-3 on grey images of 0 to 1, scaled to 96 x 96."""
    split = split_of(10, 1)
    trainer = by_rtk("d2l", split)
    order = torch.randperm(10, generator=random_generator(SEED, 0, CPU))
    batches = []
    for index in order.split(4):
        x = F.interpolate(nchw([split.images_NHWC[i] / 255 for i in index.tolist()]), (96, 96), mode="bilinear")
        batches.append((x, torch.from_numpy(split.labels_N)[index], 1e-3))
    assert_same(trainer, batches, Adam(1e-8), norm_momentum=0.1)


def test_recipe_finetune_trains_like_the_steps_written_by_hand() -> None:
    """Warm-up to 0.05 over a fifth of 200 epochs; the last layer alone at first; crops, flips, grey as three channels.

    The pixels are standardised here because the weights are random.
    """
    split = split_of(10, 1)
    trainer = by_rtk("finetune", split)
    assert trainer.recipe.epochs == 200  # 400 steps of two batches of four images
    random = random_generator(SEED, 0, CPU)
    order = torch.randperm(10, generator=random)
    colour = np.round(split.images_NHWC.mean(axis=(0, 1, 2)))
    batches = []
    for step, index in enumerate(order[:8].split(4)):
        down, mirrored, right = integers(3, random), integers(2, random, (4,)), integers(3, random)
        views = [crop(split.images_NHWC[i], colour, d, r) for i, d, r in zip(index.tolist(), down, right, strict=True)]
        views = [view[:, ::-1] if turned else view for view, turned in zip(views, mirrored, strict=True)]
        x = standardised(nchw(views), split).repeat(1, 3, 1, 1)
        batches.append((x.float(), torch.from_numpy(split.labels_N)[index], 0.05 * (step + 0.5) / 80))
    sgd = Sgd(0.9, True, 5e-4, lambda weight: weight.ndim > 1)

    def step_of(name: str, weight: Tensor, gradient: Tensor, rate: float) -> Tensor:
        return sgd(name, weight, gradient, rate if name.startswith("head.dense.") else 0.0)

    assert_same(trainer, batches, step_of, norm_momentum=0.1)


def test_other_layers_than_the_last_learn_after_their_share_of_the_training() -> None:
    """The last layer learns alone in the first of two epochs, by recipe finetune with momentum in all layers."""
    split = split_of(8, 3)
    config = TrainConfig("resnet8v1", recipe="finetune", batch_size=BATCH, epochs=2, weights="a.pt")
    recipe = replace(config.resolved_recipe, head_first=0.5)
    card = ModelCard("a", "resnet8v1", "b", ("c", "d", "e"), Input(SIDE, SIDE, 3), preprocessing_of(recipe, split))
    trainer = Trainer(new_model(card, SEED, Arithmetic(CPU, None)), recipe, Arithmetic(CPU, None), split, seed=SEED)

    def learned() -> set[str]:
        before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
        trainer.run_epoch(lambda images: None)
        return {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}

    assert learned() == {"network.head.dense.weight", "network.head.dense.bias"}
    assert {name for name, _ in trainer.model.named_parameters()} - learned() == set()


def test_recipe_keras_finetune_trains_like_the_steps_written_by_hand() -> None:
    """SGD at 1e-3 without momentum on grey images of 0 to 1 in three channels, zoomed, sheared and flipped."""
    split = split_of(10, 1)
    trainer = by_rtk("keras-finetune", split)
    random = random_generator(SEED, 0, CPU)
    order = torch.randperm(10, generator=random)
    batches = []
    for index in order.split(4):
        size = len(index)
        integers(1, random, (size, 1))
        mirrored = integers(2, random, (size,))
        integers(1, random, (size, 1))
        lean, tall, wide = ((2 * torch.rand(size, generator=random) - 1).tolist() for _ in range(3))
        views = []
        for number, i in enumerate(index.tolist()):
            view = split.images_NHWC[i][:, ::-1] if mirrored[number] else split.images_NHWC[i]
            angle, zy, zx = math.radians(0.2 * lean[number]), 1 + 0.2 * tall[number], 1 + 0.2 * wide[number]

            def point(
                row: int, column: int, angle: float = angle, zy: float = zy, zx: float = zx
            ) -> tuple[float, float]:
                y, x = zy * (row - 3.5), zx * (column - 3.5)
                return y - math.sin(angle) * x + 3.5, math.cos(angle) * x + 3.5

            views.append(nearest_bilinear(view, point))
        x = (nchw(views) / 255).repeat(1, 3, 1, 1)
        batches.append((x, torch.from_numpy(split.labels_N)[index], 1e-3))
    sgd = Sgd(0.0, False, 0.0, lambda weight: False)
    assert_same(trainer, batches, sgd, norm_momentum=0.01)
