"""Batch norm statistics measured over training images, for runs too short for their running averages.

A running average begins with values that have nothing to do with the images, and it remembers weights that the network
no longer has. In a long run neither matters at the end. In a run of a few steps the statistics can be so wrong that a
network that knows every image answers at random.

The images are augmented as in the training, because the weights fit such images: erasing, for example, changes the
statistics of a layer. The views are the same ones at every measurement, so nothing differs after a stop or between
processes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..distributed.process_group import ALONE, Processes
from ..recipes import Recipe
from .nan_guard import RunningStatistics, has_statistics

SHORT_HORIZONS = 20
"""A run is short if its steps are fewer than this many times the horizon of the running averages, 1 / norm_momentum.

In a longer run the averages look back over the last twentieth at most. There a cosine schedule is below 0.7 % of its
highest rate, so the weights hardly move, and the share of the first values is below 1e-8.
"""
MOST_IMAGES = 10_000
"""Enough for any layer: each image has at least one value of each channel, most have hundreds."""
MOST_AT_ONCE = 500
MOST_PIXELS_AT_ONCE = MOST_AT_ONCE * 64 * 64
"""The size of the batches, smaller for large images. Batches as small as in a training would still do."""
LEAST_AT_ONCE = 32

Views = Callable[[Tensor, int], Tensor]
"""Images, B x H x W x C, from their indices and the number of the batch."""


def too_short(recipe: Recipe, *, images: int) -> bool:
    """Whether a run by this recipe on this many images has too few steps for the running averages to be right."""
    return recipe.total_steps(images) * recipe.norm_momentum < SHORT_HORIZONS


@torch.no_grad()
def measure_statistics(
    model: nn.Module,
    views: Views,
    *,
    images: int,
    pixels: int,
    frozen: frozenset[str] = frozenset(),
    processes: Processes = ALONE,
) -> None:
    """Set the batch norm statistics of the model to those over `images` images; leave it in evaluation mode.

    An image has this number of `pixels`. Layers of the names `frozen` keep theirs. Several processes share the batches,
    and each of them gets exactly what one process alone gets.
    """
    norms = {name: layer for name, layer in model.named_modules() if has_statistics(layer)}
    measured = [layer for name, layer in norms.items() if name not in frozen]
    if not measured:
        return
    statistics = RunningStatistics(nn.ModuleList(measured))
    device = statistics.tensors[0].device
    batches = [batch.to(device) for batch in _batches(images, pixels)]
    found_MS = torch.zeros(len(batches), len(statistics.read()), dtype=torch.float64, device=device)
    with _statistics_of_each_batch(model, measured):
        for number in range(processes.rank, len(batches), processes.count):
            model(views(batches[number], number))
            found_MS[number] = statistics.read()
    share_M = torch.tensor([len(batch) for batch in batches], dtype=torch.float64, device=device)
    total_S = _of_all_batches(processes.summed(found_MS), share_M / share_M.sum(), statistics)
    statistics.write(total_S.float())


def _batches(images: int, pixels: int) -> tuple[Tensor, ...]:
    """Batches of about equal size, each with images of all classes; batch norm needs two images."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(0))[:MOST_IMAGES]  # sorted by class before
    size = min(MOST_AT_ONCE, max(LEAST_AT_ONCE, MOST_PIXELS_AT_ONCE // pixels))
    return order.tensor_split(-(-len(order) // size))


@contextmanager
def _statistics_of_each_batch(model: nn.Module, layers: list[_BatchNorm]) -> Iterator[None]:
    """In this block, a forward pass sets the statistics of these layers to those of its batch."""
    momentums = [layer.momentum for layer in layers]
    counters = [layer.get_buffer("num_batches_tracked").clone() for layer in layers]
    model.eval()
    for layer in layers:
        layer.train()
        layer.momentum = 1.0
    yield
    model.eval()
    for layer, momentum, counter in zip(layers, momentums, counters, strict=True):
        layer.momentum = momentum
        layer.get_buffer("num_batches_tracked").copy_(counter)


def _of_all_batches(found_MS: Tensor, share_M: Tensor, statistics: RunningStatistics) -> Tensor:
    """The statistics over all batches, from each batch's statistics and its share of the images.

    The variance is the mean of the batches' variances plus the variance of their means.
    """
    sizes = [tensor.numel() for tensor in statistics.tensors]  # the mean and the variance of each layer in turn
    average_S = share_M @ found_MS
    between_S = share_M @ (found_MS - average_S).square()
    averages, between = list(average_S.split(sizes)), between_S.split(sizes)
    for number in range(0, len(sizes), 2):
        averages[number + 1] = averages[number + 1] + between[number]
    return torch.cat(averages)
