"""Random initial weights: one scheme for each origin of the architectures, which name theirs in INITIALISATION."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Layer = nn.Conv2d | nn.Linear
KERAS_TRUNCATION = 0.87962566103423978  # standard deviation of a normal truncated at +-2


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Fill every convolution and dense layer by the scheme that the network names; batch norm does not change.

    A network that names none keeps the weights that its own code drew.
    """
    if not hasattr(network, "INITIALISATION"):
        return
    fill = SCHEMES[str(network.INITIALISATION)]
    for layer in network.modules():
        if isinstance(layer, Layer):
            fill(layer, generator)


def _keras(layer: Layer, generator: torch.Generator) -> None:
    """He's normal initialisation (fan in), biases zero.

    It is truncated at two standard deviations and widened to keep the variance, as Keras' `he_normal` is.
    """
    deviation = (2.0 / _fan_in(layer)) ** 0.5 / KERAS_TRUNCATION
    nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _torchvision(layer: Layer, generator: torch.Generator) -> None:
    """He's normal initialisation (fan out) for convolutions; PyTorch's default for the dense layer."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    else:
        _uniform(layer.weight, layer, generator)
        _uniform(layer.bias, layer, generator)


def _d2l(layer: Layer, generator: torch.Generator) -> None:
    """Glorot's uniform initialisation (the book's `init_cnn`); PyTorch's default for biases."""
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    if layer.bias is not None:
        _uniform(layer.bias, layer, generator)


SCHEMES: dict[str, Callable[[Layer, torch.Generator], None]] = {
    "keras": _keras,
    "torchvision": _torchvision,
    "d2l": _d2l,
}


def _uniform(parameter: Tensor, layer: Layer, generator: torch.Generator) -> None:
    """PyTorch's default for weights and biases: uniform between -1 / sqrt(fan in) and 1 / sqrt(fan in)."""
    bound = _fan_in(layer) ** -0.5
    nn.init.uniform_(parameter, -bound, bound, generator=generator)


def _fan_in(layer: Layer) -> int:
    return layer.weight[0].numel()
