"""Training loops without rtk: eager PyTorch in fp32 on tensors in memory, with the optimiser of the rtk recipe.

The plain loop is what a user would write: it augments with batched crops and mirroring. The bare loop is its upper
bound: forward pass, backward pass and one optimiser step, again and again on the same batch.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.card import ModelCard
from ...core.models.initialise import initialise
from ...core.models.model import build_network
from ...core.models.own_code import logits_of

PADDING = 4

Steps = Iterator[int]
"""Makes one training step per item; the item is the number of images in the step."""


def plain_loop(card: ModelCard, images_NHWC: Tensor, labels_N: Tensor, *, batch: int) -> Steps:
    """Train without end over shuffled epochs, on the device of the images. `images_NHWC`: uint8."""
    device = images_NHWC.device
    network, optimiser = _new_network(card, device)
    mean_C11 = torch.tensor(card.preprocessing.mean, device=device)[:, None, None]
    deviation_C11 = torch.tensor(card.preprocessing.deviation, device=device)[:, None, None]
    images_NCHW = (images_NHWC.permute(0, 3, 1, 2).float() / 255 - mean_C11) / deviation_C11
    padded_NCHW = F.pad(images_NCHW, (PADDING,) * 4)
    while True:
        for index_B in torch.randperm(len(labels_N), device=device).split(batch)[: len(labels_N) // batch]:
            loss = F.cross_entropy(logits_of(network(_cropped_and_mirrored(padded_NCHW, index_B))), labels_N[index_B])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield batch


def bare_loop(card: ModelCard, device: torch.device, *, batch: int) -> Steps:
    """Train without end on one batch of random numbers."""
    network, optimiser = _new_network(card, device)
    size = card.input
    images_BCHW = torch.randn(batch, size.channels, size.height, size.width, device=device)
    labels_B = torch.randint(len(card.classes), (batch,), device=device)
    while True:
        loss = F.cross_entropy(logits_of(network(images_BCHW)), labels_B)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield batch


def _new_network(card: ModelCard, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    size = (card.input.height, card.input.width)
    network = build_network(card.arch, in_channels=card.input.channels, classes=len(card.classes), size=size)
    initialise(network, torch.Generator().manual_seed(0))
    network.to(device).train()
    return network, torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)


def _cropped_and_mirrored(padded_NCHW: Tensor, index_B: Tensor) -> Tensor:
    """A random crop of each of these images, half of them mirrored: the same views as rtk's augmentation."""
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
