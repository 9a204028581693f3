"""Residual blocks one after another, and how to train many of them in little memory.

A training step keeps what every layer gave out until its gradient is taken. With `recompute` only what enters a run
of blocks is kept, and the run is computed a second time when its gradients are due: a third more arithmetic. For n
blocks of equal size, runs of sqrt(n / 3) blocks need least (a block keeps about three times its input), so that memory
grows with the root of the depth (arXiv 1604.06174).
"""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class Blocks(nn.Sequential):
    """Modules one after another; with `recompute`, activations inside of runs of them are computed again."""

    recompute = False

    def forward(self, x: Tensor) -> Tensor:
        again = self.recompute and self.training and torch.is_grad_enabled()
        length = max(1, round(math.sqrt(len(self) / 3))) if again else len(self)
        for start in range(0, len(self), length):
            run = list(self)[start : start + length]
            x = _recomputed(run, x) if again else _passed(run, x)
        return x


def recompute_activations(network: nn.Module) -> None:
    """Train the network in little memory from now on; gradients and statistics stay the same, bit by bit."""
    for module in network.modules():
        if isinstance(module, Blocks):
            module.recompute = True


def _passed(run: list[nn.Module], x: Tensor) -> Tensor:
    for block in run:
        x = block(x)
    return x


def _recomputed(run: list[nn.Module], x: Tensor) -> Tensor:
    y: Tensor = checkpoint(
        _passed,
        run,
        x,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing inside is random
        context_fn=lambda: (contextlib.nullcontext(), _statistics_kept(run)),
    )
    return y


@contextlib.contextmanager
def _statistics_kept(run: list[nn.Module]) -> Iterator[None]:
    """Let batch norm's running statistics be while the run is computed again: they have seen this batch."""
    norms = [layer for block in run for layer in block.modules() if isinstance(layer, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
