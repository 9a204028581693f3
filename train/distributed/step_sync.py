"""StepSync: what the processes of one training exchange in each step besides gradients, in a single sum."""

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


class StepSync:
    """Sums losses, correct predictions and requests over all processes, and averages their batch norm statistics.

    Each process normalises its own share of a batch, as DistributedDataParallel does. Every running statistic is a
    moving average over batches, so averaging it over the processes keeps what all of them saw.
    """

    def __init__(self, processes: Processes, statistics: RunningStatistics) -> None:
        self.processes, self.statistics = processes, statistics

    @staticmethod
    def flags_2(requests: StepRequests, device: torch.device) -> Tensor:
        """The requests of this process, as numbers on the device: 1 for a stop, and 1 for a save."""
        if not (requests.stop or requests.save):
            return torch.zeros(2, device=device)
        return torch.cat([torch.full((1,), float(flag), device=device) for flag in (requests.stop, requests.save)])

    def __call__(
        self, losses_M: Tensor, hits: Tensor, requests_2: Tensor, *, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The losses of all `count` images, the correct predictions, and how many processes request a stop and a save.

        `losses_M`: the losses of this process's share; `requests_2`: its own requests.
        """
        if self.processes.count == 1:
            return losses_M, hits, requests_2
        counted = self.processes.first or self.processes.splits(count)  # count once what every process computes whole
        losses_B = losses_M.new_zeros(count)
        losses_B[self.processes.share(count)] = losses_M * counted
        parts = [losses_B, (hits * counted)[None].float(), requests_2, self.statistics.read() / self.processes.count]
        total = self.processes.summed(torch.cat(parts))
        losses_B, hits_1, requests_2, statistics = total.split([len(part) for part in parts])
        self.statistics.write(statistics)
        return losses_B, hits_1[0].long(), requests_2
