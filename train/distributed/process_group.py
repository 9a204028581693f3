"""Processes that train one model together, as torchrun starts them; a process started alone is a group of one.

Every process draws the same random numbers and works on its own share of each batch. One sum in each step gives it the
results of the others, so all processes always hold the same state, and any number of them can resume a run.
"""

import contextlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...core.data.datasets import Split
from ...core.errors import BackendError, DataError, TrainingError, UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The group of processes, seen from this one."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def splits(self, count: int) -> bool:
        """Whether the processes share `count` images; with fewer than two per process (batch norm) each takes all."""
        return count >= 2 * self.count

    def share(self, count: int) -> slice:
        """The part of `count` images that this process works on; shared images belong to exactly one process."""
        if not self.splits(count):
            return slice(0, count)
        return slice(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def summed(self, tensor: Tensor) -> Tensor:
        """Sum the tensor over all processes in place; the result is bitwise the same in each."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def replicated(self, model: nn.Module) -> nn.Module:
        """The model's forward pass, with gradients averaged over the processes during the backward pass."""
        if self.count == 1:
            return model
        replica = DistributedDataParallel(model, gradient_as_bucket_view=True)
        replica.broadcast_buffers = False  # StepSync averages them; the argument has another name from PyTorch 2.13 on
        return replica

    def weighted(self, mean: Tensor, count: int) -> Tensor:
        """The mean over this process's share of `count` images, scaled so that processes average to the mean of all."""
        if self.count == 1 or not self.splits(count):
            return mean
        mine = self.share(count)
        return mean * ((mine.stop - mine.start) * self.count / count)

    def largest(self, number: int) -> int:
        """The largest number among the processes; waits for all of them."""
        if self.count == 1:
            return number
        tensor = torch.tensor(number)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def from_first(self, action: Callable[[], T]) -> T:
        """Run the action in the first process only, and return its result in every process.

        Raises what the action raises in the first process, and TrainingError in the others.
        """
        if self.count == 1:
            return action()
        answer: list[tuple[T] | None] = [None]
        try:
            if self.first:
                answer = [(action(),)]
        finally:
            dist.broadcast_object_list(answer, src=0)
        if answer[0] is None:
            raise TrainingError(f"process {self.rank} of {self.count}: process 0 has failed; see its message")
        return answer[0][0]

    @contextlib.contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Let the first process of each machine run the block before the others: a file is downloaded only once."""
        if local_rank() > 0:
            self.largest(0)
        yield
        if local_rank() == 0:
            self.largest(0)

    def check(self, splits: Sequence[Split], batch_size: int) -> None:
        """Raise DataError if the processes have read different data, UsageError if the batch is too small for them."""
        if batch_size < 2 * self.count:
            raise UsageError(
                f"--batch-size {batch_size}: expected {2 * self.count} or more, "
                f"two images for each of {self.count} processes"
            )
        seen = [0] * self.count
        if self.count > 1:
            for split in splits:
                for array in chain[NDArray[Any]](split.parts(), (split.labels_N,)):
                    seen[self.rank] = zlib.crc32(array.tobytes(), seen[self.rank])
        seen = self.summed(torch.tensor(seen)).tolist()
        if len(set(seen)) > 1:
            other = next(rank for rank, checksum in enumerate(seen) if checksum != seen[0])
            raise DataError(f"process {other} has read other data than process 0; expected the same data set")

    @contextlib.contextmanager
    def end_together(self) -> Iterator[None]:
        """Replace the libraries' errors by TrainingError if another process has ended."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0]
            if self.count > 1 and (isinstance(error, dist.DistError) or "gloo" in reason.lower()):
                raise TrainingError(
                    f"process {self.rank} of {self.count}: another process has ended; see its message ({reason})"
                ) from error
            raise


ALONE = Processes()


def rank() -> int:
    """The number of this process among all that torchrun started; 0 for a process started alone."""
    return int(os.environ.get("RANK", "0")) if _in_group() else 0


def local_rank() -> int:
    """The number of this process among those on the same machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _in_group() else 0


def _in_group() -> bool:
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def device_of_process(device: str) -> str:
    """The device of this process: the requested one, or under torchrun the GPU with the process's local rank.

    Raises BackendError if there are fewer GPUs than processes, or if one particular GPU was requested under torchrun.
    """
    if not _in_group() or device == "cpu" or not torch.cuda.is_available():
        return device
    if device.startswith("cuda:"):
        raise BackendError(f"--device {device}: torchrun gives each process its own GPU; expected --device cuda")
    if local_rank() >= torch.cuda.device_count():
        raise BackendError(
            f"process {local_rank()} of this machine finds {torch.cuda.device_count()} GPU(s); "
            f"expected one for each process: torchrun --nproc-per-node {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(local_rank())
    return f"cuda:{local_rank()}"


@contextlib.contextmanager
def join_process_group() -> Iterator[Processes]:
    """Join the processes that torchrun started, over gloo for CPUs and NCCL for GPUs.

    Without torchrun, return a group of one process. A group that this process has joined before is used again.
    """
    if not _in_group():
        yield ALONE
        return
    if dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        processes = Processes(dist.get_rank(), dist.get_world_size())
        with processes.end_together():
            yield processes
    finally:
        dist.destroy_process_group()
