"""Number of parameters of an architecture, and the table of its layers with their output shapes."""

import torch
from torch import Tensor, nn

from .model import build_network

SIDE, CHANNELS, CLASSES = 32, 3, 10  # the input of the published parameter counts


def parameter_count(arch: str, *, in_channels: int = CHANNELS, classes: int = CLASSES) -> int:
    """Return the number of trainable parameters."""
    with torch.device("meta"):
        network = build_network(arch, in_channels=in_channels, classes=classes)
    return sum(parameter.numel() for parameter in network.parameters())


def layer_table(
    arch: str, *, side: int = SIDE, in_channels: int = CHANNELS, classes: int = CLASSES
) -> list[dict[str, object]]:
    """Return one row for each layer in the order of execution: name, type, output shape, parameters."""
    with torch.device("meta"):
        network = build_network(arch, in_channels=in_channels, classes=classes).eval()
        rows: list[dict[str, object]] = []

        def add_row(name: str, layer: nn.Module, output: Tensor) -> None:
            parameters = sum(parameter.numel() for parameter in layer.parameters())
            shape = " x ".join(map(str, output.shape[1:]))
            rows.append({"layer": name, "type": type(layer).__name__, "output": shape, "parameters": parameters})

        for name, layer in network.named_modules():
            if not any(layer.children()) and not isinstance(layer, nn.Identity):
                layer.register_forward_hook(lambda layer, _, output, name=name: add_row(name, layer, output))
        network(torch.empty(1, in_channels, side, side))
    total = parameter_count(arch, in_channels=in_channels, classes=classes)
    rows.append({"layer": "all", "type": "", "output": "", "parameters": total})
    return rows
