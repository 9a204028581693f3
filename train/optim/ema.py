"""A moving average of the weights: what is evaluated, saved and deployed."""

import torch
from torch import Tensor, nn

EVERY_STEPS = 5  # updating more often changes nothing but the time it takes


def share_kept(decay: float, steps: int) -> float:
    """What an update after so many steps leaves of the average: `decay`, and less while the average is young."""
    updates = steps // EVERY_STEPS
    return min(decay, (1 + updates) / (10 + updates))


class Average:
    """Exponential moving average over parameters and batch-norm statistics of a model that is being trained."""

    def __init__(self, model: nn.Module, *, horizon_steps: float) -> None:
        """`horizon_steps`: about how many steps the average looks back; 0 follows the weights exactly."""
        self.model = model
        self.decay = max(0.0, 1 - EVERY_STEPS / horizon_steps) if horizon_steps else 0.0
        self.steps = 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def step(self) -> None:
        """To be called after each step of the optimiser."""
        self.steps += 1
        if self.decay and self.steps % EVERY_STEPS == 0:
            self._update(share_kept(self.decay, self.steps))

    def current(self) -> dict[str, Tensor]:
        """The averaged weights, by the names of the model's state; owned by the average."""
        if not self.decay:
            self._update(0.0)
        return self.weights

    @torch.no_grad()
    def _update(self, decay: float) -> None:
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)
