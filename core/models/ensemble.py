"""Several networks as one, by the mean of their probabilities."""

import torch
from torch import Tensor, nn

SEPARATOR = "+"
"""Between the architectures in an ensemble's name."""
LEAST_PROBABILITY = 1e-30
"""Below it float32 ends; a probability of 0 would have no logarithm."""


class Ensemble(nn.Module):
    """Float N x C x H x W to log-probabilities N x K: the logarithm of the mean of the members' softmax, in fp32."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        probabilities = [member(x_NCHW).float().softmax(dim=1) for member in self.members]
        mean_NK = torch.stack(probabilities).mean(dim=0)
        return mean_NK.clamp_min(LEAST_PROBABILITY).log()
