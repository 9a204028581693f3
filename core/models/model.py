"""Model: preprocessing and network in one module, from uint8 N x H x W x C pixels to float32 N x K logits."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ..card import ModelCard, Preprocessing
from .ensemble import SEPARATOR, Ensemble
from .names import parse_architecture
from .resnet_cifar import ResNetV1, ResNetV2
from .resnet_imagenet import ResNet

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "v1": ResNetV1,
    "v2": ResNetV2,
    "plain": partial(ResNetV1, shortcut=False),
    "imagenet": ResNet,
    "d2l": partial(ResNet, d2l=True),
}
"""How a member of each family is built: depth, in_channels=, classes=."""


class Normalise(nn.Module):
    """uint8 N x H x W x C to float32 N x C x H x W, scaled, centred, divided by the deviation.

    The cast comes first: TensorRT's parser refuses any other operation on uint8. Stepping from NHWC to NCHW moves no
    byte: the result is an NCHW tensor in channels_last order, the layout that convolutions are fastest in.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean_CHW: Tensor, deviation_CHW: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean_CHW)
        self.register_buffer("deviation", deviation_CHW)

    def forward(self, images_NHWC: Tensor) -> Tensor:
        x_NCHW = images_NHWC.to(torch.float32).permute(0, 3, 1, 2)
        return (x_NCHW / 255 - self.mean) / self.deviation


class Model(nn.Module):
    """What is trained, saved, exported and served: `normalise`, then `network`."""

    def __init__(self, normalise: Normalise, network: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.network = network

    def forward(self, images_NHWC: Tensor) -> Tensor:
        logits_NK: Tensor = self.network(self.normalise(images_NHWC))
        return logits_NK


def build_network(arch: str, *, in_channels: int, classes: int) -> nn.Module:
    """The bare network of that name, float N x C x H x W to logits N x K. Raises UsageError for an unknown name.

    Several names joined by "+" are an ensemble, whose logits are log-probabilities.
    """
    if SEPARATOR in arch:
        members = arch.split(SEPARATOR)
        return Ensemble([build_network(member, in_channels=in_channels, classes=classes) for member in members])
    architecture = parse_architecture(arch)
    return NETWORKS[architecture.family.name](architecture.depth, in_channels=in_channels, classes=classes)


def build_model(card: ModelCard) -> Model:
    """The model that the card describes, with fresh weights; in channels_last order, the faster one."""
    network = build_network(card.arch, in_channels=card.input.channels, classes=len(card.classes))
    model = Model(_normalise(card.preprocessing, card), network)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it
    return model


def _normalise(preprocessing: Preprocessing, card: ModelCard) -> Normalise:
    mean_C11 = torch.tensor(preprocessing.mean, dtype=torch.float32)[:, None, None]
    deviation_C11 = torch.tensor(preprocessing.deviation, dtype=torch.float32)[:, None, None]
    if preprocessing.per_pixel:
        mean_C11 = mean_C11.expand(-1, card.input.height, card.input.width).clone()
    return Normalise(mean_C11, deviation_C11)
