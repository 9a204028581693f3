"""A sequence of residual blocks, and gradient checkpointing to train a long sequence in little memory.

A training step keeps the output of every layer until its gradient is computed. With `recompute` it keeps only the input
of each segment of blocks and computes the segment a second time for its gradients: a third more arithmetic. For n
blocks of equal size, segments of sqrt(n / 3) blocks need the least memory (a block keeps about three times its input),
so memory grows with the square root of the depth (arXiv 1604.06174).
"""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class Blocks(nn.Sequential):
    """A sequence of modules; with `recompute`, the activations inside each segment are computed a second time."""

    recompute = False

    def forward(self, x: Tensor) -> Tensor:
        again = self.recompute and self.training and torch.is_grad_enabled()
        length = max(1, round(math.sqrt(len(self) / 3))) if again else len(self)
        for start in range(0, len(self), length):
            segment = list(self)[start : start + length]
            x = _recomputed(segment, x) if again else _forward(segment, x)
        return x


def recompute_activations(network: nn.Module) -> None:
    """Make training of the network use less memory; gradients and statistics stay the same, bit by bit."""
    for module in network.modules():
        if isinstance(module, Blocks):
            module.recompute = True


def _forward(segment: list[nn.Module], x: Tensor) -> Tensor:
    for block in segment:
        x = block(x)
    return x


def _recomputed(segment: list[nn.Module], x: Tensor) -> Tensor:
    y: Tensor = checkpoint(
        _forward,
        segment,
        x,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing inside is random
        context_fn=lambda: (contextlib.nullcontext(), _frozen_statistics(segment)),
    )
    return y


@contextlib.contextmanager
def _frozen_statistics(segment: list[nn.Module]) -> Iterator[None]:
    """Freeze batch norm's running statistics during the second computation: they already include this batch."""
    norms = [layer for block in segment for layer in block.modules() if isinstance(layer, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
