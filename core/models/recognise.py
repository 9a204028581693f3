"""Recognise an architecture of rtk by the names and shapes of its weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .model import build_network
from .names import FAMILIES

FAMILY_NAMES = ("imagenet", "d2l")
"""Families whose weight files people have from elsewhere; the names of their layers are torchvision's."""
HEAD = "fc.weight"
STEM = "conv1.weight"
NOT_COMPARED = "num_batches_tracked"


def architecture_of(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the architecture that has exactly these layers, or None.

    The number of classes and of channels may be any: ResNeXt and wide ResNets have the names of a ResNet, but not the
    shapes, and are not taken for one.
    """
    head, stem = weights.get(HEAD), weights.get(STEM)
    if head is None or stem is None or head.ndim != 2 or stem.ndim != 4:
        return None
    found = _shapes(weights)
    for name in FAMILY_NAMES:
        family = FAMILIES[name]
        for arch in map(family.named, family.depths):
            with torch.device("meta"):
                network = build_network(arch, in_channels=stem.shape[1], classes=len(head))
            if _shapes(network.state_dict()) == found:
                return arch
    return None


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items() if not name.endswith(NOT_COMPARED)}
