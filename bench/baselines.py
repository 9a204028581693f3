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

from ..core.card import ModelCard
from ..core.models.model import build_network
from ..core.models.resnet_cifar import initialise

PADDING = 4

Steps = Iterator[int]
"""Each item is the images of one step that was made."""


def plain_loop(card: ModelCard, images_NHWC: Tensor, labels_N: Tensor, *, batch: int) -> Steps:
    """Train over shuffled epochs for ever, one step an item. `images_NHWC`: uint8."""
    network, optimiser = _fresh(card)
    mean_C11 = torch.tensor(card.preprocessing.mean)[:, None, None]
    deviation_C11 = torch.tensor(card.preprocessing.deviation)[:, None, None]
    images_NCHW = (images_NHWC.permute(0, 3, 1, 2).float() / 255 - mean_C11) / deviation_C11
    padded_NCHW = F.pad(images_NCHW, (PADDING,) * 4)
    while True:
        for index_B in torch.randperm(len(labels_N)).split(batch)[: len(labels_N) // batch]:
            loss = F.cross_entropy(network(_cropped_and_mirrored(padded_NCHW[index_B])), labels_N[index_B])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield batch


def bare_loop(card: ModelCard, *, batch: int) -> Steps:
    """Forward, backward, step on one batch of random numbers, for ever."""
    network, optimiser = _fresh(card)
    size = card.input
    images_BCHW = torch.randn(batch, size.channels, size.height, size.width)
    labels_B = torch.randint(len(card.classes), (batch,))
    while True:
        loss = F.cross_entropy(network(images_BCHW), labels_B)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield batch


def timed_step(steps: Steps) -> Callable[[], float]:
    """A runner for `measure.take_turns`: makes one step, returns its seconds."""

    def run() -> float:
        started_at = time.perf_counter()
        next(steps)
        return time.perf_counter() - started_at

    return run


def _fresh(card: ModelCard) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = build_network(card.arch, in_channels=card.input.channels, classes=len(card.classes))
    initialise(network, torch.Generator().manual_seed(0))
    network.train()
    return network, torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)


def _cropped_and_mirrored(padded_BCHW: Tensor) -> Tensor:
    """The same crops and mirroring as rtk's augmentation, as one would write them image by image."""
    count, _, height, width = padded_BCHW.shape
    height, width = height - 2 * PADDING, width - 2 * PADDING
    views = []
    top_B, left_B = torch.randint(2 * PADDING + 1, (2, count)).tolist()
    mirrored_B = torch.randint(2, (count,)).tolist()
    for image_CHW, top, left, mirrored in zip(padded_BCHW, top_B, left_B, mirrored_B, strict=True):
        view_CHW = image_CHW[:, top : top + height, left : left + width]
        views.append(view_CHW.flip(2) if mirrored else view_CHW)
    return torch.stack(views)
