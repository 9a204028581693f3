"""StepSync: what the processes of one training exchange in each step besides gradients, in a single sum."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..optim.nan_guard import RunningStatistics
from .process_group import Processes


@dataclass(frozen=True)
class StepRequests:
    """What a process requests to happen after a step."""

    stop: bool = False
    save: bool = False

    @property
    def flags(self) -> tuple[bool, bool]:
        """Both, in the order of the numbers that the processes exchange."""
        return self.stop, self.save


class StepSync:
    """Sums losses, correct predictions and requests over all processes, and averages their batch norm statistics.

    Each process normalises its own share of a batch, as DistributedDataParallel does. Every running statistic is a
    moving average over batches, so averaging it over the processes keeps what all of them saw.
    """

    def __init__(self, processes: Processes, statistics: RunningStatistics) -> None:
        self.processes, self.statistics = processes, statistics

    def __call__(
        self, losses_M: Tensor, hits: Tensor, own_requests: Callable[[], StepRequests], *, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The losses of all `count` images, the correct predictions, and how many processes request a stop and a save.

        `losses_M`: the losses of this process's share. A process alone has nobody to hear from: its requests are empty.
        """
        if self.processes.count == 1:
            return losses_M, hits, losses_M.new_zeros(0)
        requests_2 = torch.cat([torch.full((1,), float(flag), device=losses_M.device) for flag in own_requests().flags])
        counted = self.processes.first or self.processes.splits(count)  # count once what every process computes whole
        losses_B = losses_M.new_zeros(count)
        losses_B[self.processes.share(count)] = losses_M * counted
        parts = [losses_B, (hits * counted)[None].float(), requests_2, self.statistics.read() / self.processes.count]
        total = self.processes.summed(torch.cat(parts))
        losses_B, hits_1, requests_2, statistics = total.split([len(part) for part in parts])
        self.statistics.write(statistics)
        return losses_B, hits_1[0].long(), requests_2
