"""Number of parameters of an architecture, and the table of its layers with their output shapes."""

from typing import Any

import torch
from torch import Tensor, nn

from .code_names import members_of
from .model import SEPARATOR, build_network
from .names import parse_architecture
from .own_code import logits_of

SIDE, CHANNELS, CLASSES = 32, 3, 10  # the input of the published parameter counts


def parameter_count(arch: str, *, side: int = SIDE, in_channels: int = CHANNELS, classes: int = CLASSES) -> int:
    """Return the number of trainable parameters. `side`: of the images, on which it depends in some networks."""
    return _parameters(_network(arch, side=side, in_channels=in_channels, classes=classes))


def layer_table(
    arch: str, *, side: int = SIDE, in_channels: int = CHANNELS, classes: int = CLASSES
) -> list[dict[str, object]]:
    """Return one row for each layer in the order of execution: name, type, output shape, parameters.

    Raises the errors of `build_network`.
    """
    network = _network(arch, side=side, in_channels=in_channels, classes=classes).eval()
    rows: list[dict[str, object]] = []

    def add_row(name: str, layer: nn.Module, output: Any) -> None:
        shape = " x ".join(map(str, output.shape[1:])) if isinstance(output, Tensor) else type(output).__name__
        rows.append({"layer": name, "type": type(layer).__name__, "output": shape, "parameters": _parameters(layer)})

    for name, layer in network.named_modules():
        if not any(layer.children()) and not isinstance(layer, nn.Identity):
            layer.register_forward_hook(lambda layer, _, output, name=name: add_row(name, layer, output))
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    with torch.no_grad():
        logits_of(network(torch.empty(1, in_channels, side, side, device=device)))
    rows.append({"layer": "all", "type": "", "output": "", "parameters": _parameters(network)})
    return rows


def _network(arch: str, *, side: int, in_channels: int, classes: int) -> nn.Module:
    """The network without memory for weights, if it is rtk's: code of others may look at their values."""
    own = any(parse_architecture(member).code for member in members_of(arch, SEPARATOR))
    with torch.device("cpu" if own else "meta"), torch.random.fork_rng(devices=[]):
        return build_network(arch, in_channels=in_channels, classes=classes, size=(side, side))


def _parameters(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())
