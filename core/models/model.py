"""Model: preprocessing and network in one module, from uint8 N x H x W x C pixels to float32 N x K logits."""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..card import ModelCard
from .names import parse_architecture
from .normalise import Normalise, build_normalise
from .resnet_cifar import ResNetV1, ResNetV2
from .resnet_imagenet import ResNet

SEPARATOR = "+"
"""Separates the architectures in the name of an ensemble."""
MIN_PROBABILITY = 1e-30
"""Lower limit of a probability, near the end of float32: the logarithm of 0 is not finite."""

ROUNDED_BATCH = 64
"""Images at a time in `rounded_logits`: every layer has its result twice."""

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "v1": ResNetV1,
    "v2": ResNetV2,
    "plain": partial(ResNetV1, shortcut=False),
    "imagenet": ResNet,
    "d2l": partial(ResNet, d2l=True),
}
"""Builds a member of each family: depth, in_channels=, classes=."""


class Ensemble(nn.Module):
    """Float N x C x H x W to log-probabilities N x K: the logarithm of the mean of the members' softmax.

    Its own arithmetic is at least fp32.
    """

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        probabilities = [_at_least_fp32(member(x_NCHW)).softmax(dim=1) for member in self.members]
        mean_NK = torch.stack(probabilities).mean(dim=0)
        return mean_NK.clamp_min(MIN_PROBABILITY).log()


def _at_least_fp32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


class Model(nn.Module):
    """The module that is trained, saved, exported and served: `normalise`, then `network`."""

    def __init__(self, normalise: Normalise, network: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.network = network

    def forward(self, images_NHWC: Tensor) -> Tensor:
        logits_NK: Tensor = self.network(self.normalise(images_NHWC))
        return logits_NK


def tensor_from_images(images_NHWC: NDArray[np.uint8]) -> Tensor:
    """The images as a tensor: the same memory, or a copy of images that may only be read, as of a mapped file."""
    return torch.from_numpy(np.require(images_NHWC, requirements="W"))


def exact_logits(model: nn.Module, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute the logits N x K in fp64, on the device of the weights: the truth that fp32 arithmetic rounds."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        logits_NK: Tensor = copy.deepcopy(model).double().eval()(tensor_from_images(images_NHWC).to(device))
    return logits_NK.cpu().numpy()


def rounded_logits(model: Model, images_NHWC: NDArray[np.uint8], dtype: torch.dtype) -> NDArray[np.float32]:
    """Compute the logits N x K in fp32 arithmetic with the weights and the result of every layer rounded to `dtype`.

    Normalised pixels are rounded too; residual additions are not. So this is what a 16-bit precision costs the network,
    whatever the processor can compute.
    """

    def rounded(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        del layer, inputs
        return output.to(dtype).to(output.dtype)

    copied = copy.deepcopy(model).eval()
    device = next(copied.parameters()).device
    for layer in copied.network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(rounded)
    copied.normalise.register_forward_hook(rounded)
    with torch.inference_mode():
        for weight in copied.network.parameters():
            weight.copy_(weight.to(dtype))
        batches = (images_NHWC[start : start + ROUNDED_BATCH] for start in range(0, len(images_NHWC), ROUNDED_BATCH))
        parts = [copied(tensor_from_images(images_BHWC).to(device)).cpu() for images_BHWC in batches]
    result: NDArray[np.float32] = torch.cat(parts).numpy()
    return result


def build_network(arch: str, *, in_channels: int, classes: int) -> nn.Module:
    """Build the network alone, float N x C x H x W to logits N x K. Raises UsageError for an unknown name.

    Several names joined by "+" are an ensemble, whose logits are log-probabilities.
    """
    if SEPARATOR in arch:
        members = arch.split(SEPARATOR)
        return Ensemble([build_network(member, in_channels=in_channels, classes=classes) for member in members])
    architecture = parse_architecture(arch)
    return NETWORKS[architecture.family.name](architecture.depth, in_channels=in_channels, classes=classes)


def build_model(card: ModelCard) -> Model:
    """Build the model that the card describes, with new weights, in the faster memory format channels_last.

    The random numbers of the process go on as if no weights had been drawn.
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(card.arch, in_channels=card.preprocessing.channels, classes=len(card.classes))
    model = Model(build_normalise(card.preprocessing, card.input), network)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it
    return model
