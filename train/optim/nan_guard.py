"""Steps whose loss or gradient is not finite: noticed and undone on the device, without the host waiting for it.

Whether a step is finite is one number on the device. Where it is not, the fused optimiser itself leaves weights and
moments alone (`found_inf`, made for scaled gradients), and batch norm's statistics are put back by selecting between
the old and the new. The host reads the number some steps later (see lagged.py).
"""

from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import TrainingError


class NotFinite(TrainingError):
    """The loss or its gradient is no longer finite."""

    def __init__(self, where: str, evidence: dict[str, Any]) -> None:
        super().__init__(f"the loss or its gradient is no longer finite {where}")
        self.evidence = evidence
        """What makes the step happen again: images, labels, the weights before it, and where it was."""


class RunningStatistics:
    """The running statistics of all batch norms of a model, as one vector."""

    def __init__(self, model: nn.Module) -> None:
        layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
        self.tensors = [layer.get_buffer(name) for layer in layers for name in ("running_mean", "running_var")]
        self.counters = [layer.get_buffer("num_batches_tracked") for layer in layers]

    def read(self) -> Tensor:
        """A copy of them."""
        return torch.cat([tensor.flatten() for tensor in self.tensors])

    def write(self, values: Tensor) -> None:
        """Set them to what `read` returned, or to something of that shape."""
        torch._foreach_copy_(self.tensors, list(values.split([tensor.numel() for tensor in self.tensors])))


class Guard:
    """Keeps a step that is not finite from changing anything.

    `skip` goes on after it; otherwise no later step changes anything either, so that the weights are still those
    before the first such step when the host hears of it.
    """

    def __init__(self, model: nn.Module, optimiser: torch.optim.Optimizer, *, skip: bool, device: torch.device) -> None:
        self.optimiser, self.skip = optimiser, skip
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.statistics = RunningStatistics(model)
        self.broken = torch.zeros((), device=device)
        """1 where the last step was not finite, or without `skip` one before it; else 0."""
        self.before_forward()

    def before_forward(self) -> None:
        """Remember what the forward pass changes."""
        self._before = self.statistics.read()
        self._counts = torch.stack(self.statistics.counters)

    def before_step(self, losses_B: Tensor) -> None:
        """Judge by the losses and the gradients, and tell the optimiser."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        total = losses_B.sum() + torch.nn.utils.get_total_norm(gradients)
        broken = (~torch.isfinite(total)).float()
        self.broken = broken if self.skip else torch.maximum(self.broken, broken)
        self.optimiser.found_inf = self.broken  # type: ignore[attr-defined] # its documented door is GradScaler

    def after_step(self) -> None:
        """Put batch norm's statistics back where the step was not finite."""
        if self.broken.device.type == "cpu" and not self.broken:  # there, looking costs nothing
            return
        fine = self.broken == 0
        self.statistics.write(torch.where(fine, self.statistics.read(), self._before))
        counts = torch.where(fine, torch.stack(self.statistics.counters), self._counts)
        torch._foreach_copy_(self.statistics.counters, list(counts.unbind()))
