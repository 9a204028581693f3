"""NanGuard: detect and undo steps with a NaN or infinite loss or gradient, without the host waiting for the device.

The device holds one number that says whether the step is finite. If it is not, the fused optimiser leaves weights and
moments unchanged (`found_inf`, made for scaled gradients), and the guard restores batch norm's statistics by selecting
between the old and the new ones. The host reads the number some steps later (see deferred_read.py).
"""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...core.errors import TrainingError


class NotFinite(TrainingError):
    """The loss or its gradient is no longer finite."""

    def __init__(self, where: str, evidence: dict[str, Any]) -> None:
        super().__init__(f"the loss or its gradient is no longer finite {where}")
        self.evidence = evidence
        """What reproduces the step: images, labels, the weights before it, and its position in the training."""


def has_statistics(layer: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether this is a batch norm layer that keeps running statistics."""
    return isinstance(layer, _BatchNorm) and layer.running_mean is not None


class RunningStatistics:
    """The running statistics of all batch norm layers of a model, as one vector; empty for a model without them."""

    def __init__(self, model: nn.Module) -> None:
        layers = [layer for layer in model.modules() if has_statistics(layer)]
        self.tensors = [layer.get_buffer(name) for layer in layers for name in ("running_mean", "running_var")]
        self.counters = [layer.get_buffer("num_batches_tracked") for layer in layers]
        self.device = next((tensor.device for tensor in self.tensors), next(model.parameters()).device)

    def read(self) -> Tensor:
        """A copy of the statistics."""
        return torch.cat([torch.empty(0, device=self.device), *(tensor.flatten() for tensor in self.tensors)])

    def write(self, values: Tensor) -> None:
        """Set the statistics from a vector of the shape that `read` returns."""
        if self.tensors:
            torch._foreach_copy_(self.tensors, list(values.split([tensor.numel() for tensor in self.tensors])))

    def read_counts(self) -> Tensor:
        """A copy of the layers' counters of batches."""
        return torch.stack(self.counters) if self.counters else torch.empty(0, device=self.device)

    def write_counts(self, counts: Tensor) -> None:
        """Set the counters to what `read_counts` returned."""
        if self.counters:
            torch._foreach_copy_(self.counters, list(counts.unbind()))


class NanGuard:
    """Prevents a step that is not finite from changing anything.

    With `skip`, training continues after such a step. Without it, no later step changes anything either: when the host
    reads the report, the weights are still those before the first such step.
    """

    def __init__(self, model: nn.Module, optimiser: torch.optim.Optimizer, *, skip: bool, device: torch.device) -> None:
        self.optimiser, self.skip = optimiser, skip
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.statistics = RunningStatistics(model)
        self.not_finite = torch.zeros((), device=device)
        """1 if the last step (without `skip`: any step so far) was not finite, else 0."""
        self.host_may_look = device.type == "cpu"
        """Whether the host reads the number at once, which costs nothing on a CPU; a recorded step cannot."""
        self.before_forward()

    def before_forward(self) -> None:
        """Remember what the forward pass changes."""
        self._before = self.statistics.read()
        self._counts = self.statistics.read_counts()

    def before_step(self, losses_B: Tensor) -> None:
        """Check losses and gradients, and pass the result to the optimiser."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        total = losses_B.sum() + torch.nn.utils.get_total_norm(gradients)
        not_finite = (~torch.isfinite(total)).float()
        # In place: a recorded step finds the number of the step before it in the same tensor.
        self.not_finite.copy_(not_finite if self.skip else torch.maximum(self.not_finite, not_finite))
        self.optimiser.found_inf = self.not_finite  # type: ignore[attr-defined] # documented as GradScaler's interface

    def after_step(self) -> None:
        """Restore batch norm's statistics if the step was not finite."""
        if self.host_may_look and not self.not_finite:
            return
        finite = self.not_finite == 0
        self.statistics.write(torch.where(finite, self.statistics.read(), self._before))
        self.statistics.write_counts(torch.where(finite, self.statistics.read_counts(), self._counts))
