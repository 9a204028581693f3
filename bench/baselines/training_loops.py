"""What a user would write, kept to be beaten: the plain training loop, and the bare one that bounds it from above.

Both are eager PyTorch in fp32 on tensors that lie in memory, with the optimiser of the rtk recipe. The plain loop
augments with batched crops and mirroring; the bare one only goes forward, backward and one step on, over and over on
the same batch.
"""

import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.card import ModelCard
from ...core.models.initialise import initialise
from ...core.models.model import build_network

PADDING = 4

Steps = Iterator[int]
"""Each item is the images of one step that was made."""


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
