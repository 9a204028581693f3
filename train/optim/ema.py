"""A moving average of the weights: the weights that are evaluated, saved and deployed."""

from functools import partial

import torch
from torch import Tensor, nn

EVERY_STEPS = 5  # more frequent updates only cost time


def share_kept(decay: float, steps: int) -> float:
    """The share of the average that an update after `steps` steps keeps: less than `decay` in its first steps."""
    updates = steps // EVERY_STEPS
    return min(decay, (1 + updates) / (10 + updates))


class MovingAverage:
    """Exponential moving average of the parameters and batch norm statistics of a model in training."""

    def __init__(self, model: nn.Module, *, horizon_steps: float) -> None:
        """`horizon_steps`: about how many steps the average looks back; with 0 it equals the weights."""
        self.model = model
        self.decay = max(0.0, 1 - EVERY_STEPS / horizon_steps) if horizon_steps else 0.0
        self.steps = 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def step(self) -> None:
        """Count a step of the optimiser, and update the average when it is due. Call it after each step."""
        self.steps += 1
        if self.decay and self.steps % EVERY_STEPS == 0:
            self._update(share_kept(self.decay, self.steps))

    def current(self) -> dict[str, Tensor]:
        """The averaged weights by name, as in the model's state dict; the average owns the tensors."""
        if not self.decay:
            self._update(0.0)
        return self.weights

    @torch.no_grad()
    def _update(self, decay: float) -> None:
        """Move the average in a few operations for all tensors: on a GPU, starting one takes longer than its work."""
        values = self.model.state_dict()
        floats = [name for name, value in values.items() if value.is_floating_point()]
        counts = [name for name in values if name not in set(floats)]
        for names, move in ((floats, partial(torch._foreach_lerp_, weight=1 - decay)), (counts, torch._foreach_copy_)):
            if names:
                move([self.weights[name] for name in names], [values[name] for name in names])
