"""Model: preprocessing and network in one module, from uint8 N x H x W x C pixels to float32 N x K logits."""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..card import ModelCard
from .code_names import members_of
from .names import parse_architecture
from .normalise import Normalise, build_normalise, network_size
from .own_code import code_network, logits_of
from .resnet_cifar import ResNetV1, ResNetV2
from .resnet_imagenet import ResNet

SEPARATOR = "+"
"""Separates the architectures in the name of an ensemble."""
MIN_PROBABILITY = 1e-30
"""Lower limit of a probability, near the end of float32: the logarithm of 0 is not finite."""

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
        self.takes_contiguous = False
        self.members = nn.ModuleList(members)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        probabilities = [_at_least_fp32(logits_of(member(x_NCHW))).softmax(dim=1) for member in self.members]
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
        self.takes_contiguous = bool(getattr(network, "takes_contiguous", False))
        """Whether the network needs images whose channels are contiguous planes, not pixels."""

    def forward(self, images_NHWC: Tensor) -> Tensor:
        return self.logits_of_pixels(self.normalise(images_NHWC))

    def logits_of_pixels(self, x_NCHW: Tensor) -> Tensor:
        """The logits N x K of normalised pixels."""
        return logits_of(self.network(x_NCHW.contiguous() if self.takes_contiguous else x_NCHW))


def tensor_from_images(images_NHWC: NDArray[np.uint8]) -> Tensor:
    """The images as a tensor: the same memory, or a copy of images that may only be read, as of a mapped file."""
    return torch.from_numpy(np.require(images_NHWC, requirements="W"))


def exact_logits(model: nn.Module, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute the logits N x K in fp64, on the device of the weights: the truth that fp32 arithmetic rounds."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        logits_NK: Tensor = copy.deepcopy(model).double().eval()(tensor_from_images(images_NHWC).to(device))
    return logits_NK.cpu().numpy()


def build_network(arch: str, *, in_channels: int, classes: int, size: tuple[int, int] | None = None) -> nn.Module:
    """Build the network alone, float N x C x H x W to logits N x K. Raises UsageError for an unknown name.

    Several names joined by "+" are an ensemble, whose logits are log-probabilities. `size`: height and width of the
    images, which some networks of the user's own need to know. These may return an object that holds the logits, and
    raise ArtifactError if their code is not allowed; see own_code.py.
    """
    members = members_of(arch, SEPARATOR)
    if len(members) > 1:
        built = [build_network(one, in_channels=in_channels, classes=classes, size=size) for one in members]
        ensemble = Ensemble(built)
        ensemble.takes_contiguous = any(getattr(one, "takes_contiguous", False) for one in built)
        return ensemble
    architecture = parse_architecture(arch)
    if architecture.code is not None:
        return code_network(architecture.code, in_channels=in_channels, classes=classes, size=size)
    return NETWORKS[architecture.family.name](architecture.depth, in_channels=in_channels, classes=classes)


def build_model(card: ModelCard) -> Model:
    """Build the model that the card describes, with new weights, in the faster memory format channels_last if it can.

    The random numbers of the process go on as if no weights had been drawn. Raises the errors of `build_network`.
    """
    size, channels = network_size(card.preprocessing, card.input), card.preprocessing.channels
    with torch.random.fork_rng(devices=[]):
        network = build_network(card.arch, in_channels=channels, classes=len(card.classes), size=size)
    model = Model(build_normalise(card.preprocessing, card.input), network)
    if not model.takes_contiguous:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it
    return model
