"""What processes that train together tell each other in a step, besides gradients, in one sum."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..optim.nan_guard import RunningStatistics
from .process_group import Processes


@dataclass(frozen=True)
class Wishes:
    """What is to be done after a step."""

    stop: bool = False
    save: bool = False


class Exchange:
    """Losses, right answers and wishes of all processes, and the average of their batch norms' statistics.

    Each process normalises its own share of a batch, as DistributedDataParallel has it; since every running statistic
    is a moving average of those of the batches, averaging them over the processes keeps what all of them saw.
    """

    def __init__(self, processes: Processes, statistics: RunningStatistics) -> None:
        self.processes, self.statistics = processes, statistics

    def __call__(self, losses_M: Tensor, hits: Tensor, wishes: Wishes, *, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The losses of all `count` images, how many were right, and how many processes wish to stop and to save.

        `losses_M`: of this process's share.
        """
        wishes_2 = torch.cat([torch.full((1,), float(w), device=losses_M.device) for w in (wishes.stop, wishes.save)])
        if self.processes.count == 1:
            return losses_M, hits, wishes_2
        counted = self.processes.first or self.processes.splits(count)  # where each has the whole batch, one counts
        losses_B = losses_M.new_zeros(count)
        losses_B[self.processes.share(count)] = losses_M * counted
        parts = [losses_B, (hits * counted)[None].float(), wishes_2, self.statistics.read() / self.processes.count]
        total = self.processes.summed(torch.cat(parts))
        losses_B, hits_1, wishes_2, statistics = total.split([len(part) for part in parts])
        self.statistics.write(statistics)
        return losses_B, hits_1[0].long(), wishes_2
