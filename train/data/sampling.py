"""Sampler: which images an epoch sees, and the weight of each."""

import torch
from torch import Generator, Tensor

ALL_FROM = 0.875
"""From this share of the training on, every image is seen: the last eighth, as in InfoBatch."""


class Sampler:
    """Draws random orders that leave out some easy images; the remaining easy images get a higher weight.

    The expected gradient stays that of the whole split (InfoBatch, arXiv 2303.04947).
    """

    def __init__(self, count: int, *, pruning: float, device: torch.device) -> None:
        self.pruning = pruning
        self.losses_N = torch.full((count,), torch.inf, device=device)
        """Each image's loss when it was last seen; infinite before the first time."""

    def draw(self, progress: float, generator: Generator) -> tuple[Tensor, Tensor]:
        """Indices in random order, and the weight of every image of the split (1, or 1 / (1 - pruning))."""
        count, device = len(self.losses_N), self.losses_N.device
        weights_N = torch.ones(count, device=device)
        order = torch.randperm(count, generator=generator, device=device)
        if self.pruning == 0 or progress >= ALL_FROM:
            return order, weights_N
        seen = torch.isfinite(self.losses_N)
        easy = seen & (self.losses_N < self.losses_N[seen].mean())
        left_out = easy & (torch.rand(count, generator=generator, device=device) < self.pruning)
        weights_N[easy] = 1 / (1 - self.pruning)
        return order[~left_out[order]], weights_N

    def record(self, index_B: Tensor, losses_B: Tensor) -> None:
        """Store the losses of a batch."""
        self.losses_N[index_B] = losses_B
