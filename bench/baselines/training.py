"""How fast rtk trains, as a ratio to the plain loop, in one run. rtk's own step is an argument: bench imports no train.

The two baselines are eager PyTorch in fp32 on tensors in memory, with the optimiser of the rtk recipe. The plain loop
is what a user would write: it augments with batched crops and mirroring. The bare loop bounds it from above: forward,
backward and one step, again and again on the same batch.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.card import ModelCard
from ...core.data.datasets import Split
from ...core.errors import UsageError
from ...core.models.initialise import initialise
from ...core.models.model import build_network
from ..config import BenchConfig
from ..measure.cell import Cell
from ..measure.timing import Measured, one_by_one, take_turns

PADDING = 4

Steps = Iterator[int]
"""Each item is the images of one step that was made."""


@dataclass(frozen=True)
class TrainingLoop:
    """A way to train, as an endless iterator that makes one step an item."""

    name: str
    steps: Iterator[int]
    batch: int


def measure_training(
    card: ModelCard,
    split: Split,
    loops: list[TrainingLoop],
    config: BenchConfig,
    *,
    device: str,
    batch: int,
    advance: Callable[[int], None],
) -> Measured:
    """Steps of the plain loop, of the bare one, and of these loops, in turns; the plain loop comes first.

    `batch`: of the first two. Raises UsageError when the split does not fill a batch of every one of them.
    """
    largest = max([batch, *(one.batch for one in loops)])
    if len(split) < largest:
        raise UsageError(f"{card.dataset} has {len(split):,} training images; expected {largest} or more, a batch")
    where = torch.device(device)
    images_NHWC = torch.from_numpy(split.images_NHWC).to(where)
    labels_N = torch.from_numpy(split.labels_N).to(where)
    everyone = [
        TrainingLoop("plain loop", plain_loop(card, images_NHWC, labels_N, batch=batch), batch),
        TrainingLoop("bare loop", bare_loop(card, where, batch=batch), batch),
        *loops,
    ]
    cells = [Cell(one.name, one.batch) for one in everyone]
    runners = [one_by_one(timed_step(one.steps, where)) for one in everyone]
    return take_turns(cells, runners, config, told=lambda cell: advance(1))


def plain_loop(card: ModelCard, images_NHWC: Tensor, labels_N: Tensor, *, batch: int) -> Steps:
    """Train over shuffled epochs for ever, one step an item, where the images are. `images_NHWC`: uint8."""
    device = images_NHWC.device
    network, optimiser = _fresh(card, device)
    mean_C11 = torch.tensor(card.preprocessing.mean, device=device)[:, None, None]
    deviation_C11 = torch.tensor(card.preprocessing.deviation, device=device)[:, None, None]
    images_NCHW = (images_NHWC.permute(0, 3, 1, 2).float() / 255 - mean_C11) / deviation_C11
    padded_NCHW = F.pad(images_NCHW, (PADDING,) * 4)
    while True:
        for index_B in torch.randperm(len(labels_N), device=device).split(batch)[: len(labels_N) // batch]:
            loss = F.cross_entropy(network(_cropped_and_mirrored(padded_NCHW, index_B)), labels_N[index_B])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield batch


def bare_loop(card: ModelCard, device: torch.device, *, batch: int) -> Steps:
    """Forward, backward, step on one batch of random numbers, for ever."""
    network, optimiser = _fresh(card, device)
    size = card.input
    images_BCHW = torch.randn(batch, size.channels, size.height, size.width, device=device)
    labels_B = torch.randint(len(card.classes), (batch,), device=device)
    while True:
        loss = F.cross_entropy(network(images_BCHW), labels_B)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield batch


def timed_step(steps: Steps, device: torch.device) -> Callable[[], float]:
    """A runner for `measure.take_turns`: makes one step, waits until the device has done it, returns its seconds."""

    def run() -> float:
        started_at = time.perf_counter()
        next(steps)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started_at

    return run


def _fresh(card: ModelCard, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = build_network(card.arch, in_channels=card.input.channels, classes=len(card.classes))
    initialise(network, torch.Generator().manual_seed(0))
    network.to(device).train()
    return network, torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)


def _cropped_and_mirrored(padded_NCHW: Tensor, index_B: Tensor) -> Tensor:
    """A random crop of each of these images, every second one mirrored: the same views as rtk's augmentation takes."""
    device, count = index_B.device, len(index_B)
    _, channels, height, width = padded_NCHW.shape
    height, width = height - 2 * PADDING, width - 2 * PADDING
    rows_BH = torch.randint(2 * PADDING + 1, (count, 1), device=device) + torch.arange(height, device=device)
    columns_BW = torch.randint(2 * PADDING + 1, (count, 1), device=device) + torch.arange(width, device=device)
    mirrored_B1 = torch.randint(2, (count, 1), device=device).bool()
    columns_BW = torch.where(mirrored_B1, columns_BW.flip(1), columns_BW)
    channels_C11 = torch.arange(channels, device=device)[:, None, None]
    return padded_NCHW[
        index_B[:, None, None, None], channels_C11, rows_BH[:, None, :, None], columns_BW[:, None, None, :]
    ]
