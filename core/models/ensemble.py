"""Several networks combined into one by the mean of their probabilities."""

import torch
from torch import Tensor, nn

SEPARATOR = "+"
"""Separates the architectures in the name of an ensemble."""
LEAST_PROBABILITY = 1e-30
"""Lower limit of a probability, near the end of float32: the logarithm of 0 is not finite."""


class Ensemble(nn.Module):
    """Float N x C x H x W to log-probabilities N x K: the logarithm of the mean of the members' softmax, in fp32."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        probabilities = [member(x_NCHW).float().softmax(dim=1) for member in self.members]
        mean_NK = torch.stack(probabilities).mean(dim=0)
        return mean_NK.clamp_min(LEAST_PROBABILITY).log()
