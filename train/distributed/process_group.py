"""Several processes that train one model together, as torchrun starts them; by itself, a process is all of them.

Every process draws the same random numbers, works on its own share of each batch, and learns what the others found out
in one sum a step; so all of them hold the same state at every moment, and any number of them can go on with a run.
"""

import contextlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...core.data.datasets import Split
from ...core.errors import BackendError, DataError, TrainingError, UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def splits(self, count: int) -> bool:
        """Whether `count` images are shared out; batch norm needs two in each process, and each takes all of fewer."""
        return count >= 2 * self.count

    def share(self, count: int) -> slice:
        """Which of `count` images this process works on: where they are shared out, no image twice, none left out."""
        if not self.splits(count):
            return slice(0, count)
        return slice(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of the tensor over all processes, to the last bit the same in each; in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def replicated(self, model: nn.Module) -> nn.Module:
        """The model's forward pass, whose gradients are averaged over the processes while they are worked out."""
        if self.count == 1:
            return model
        replica = DistributedDataParallel(model, gradient_as_bucket_view=True)
        replica.broadcast_buffers = False  # see exchange.py; as an argument it has another name from PyTorch 2.13 on
        return replica

    def weighted(self, mean: Tensor, count: int) -> Tensor:
        """The mean over this process's share of `count` images, so that the average over processes is that of all."""
        if self.count == 1 or not self.splits(count):
            return mean
        mine = self.share(count)
        return mean * ((mine.stop - mine.start) * self.count / count)

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers; waits for all of them."""
        if self.count == 1:
            return number
        tensor = torch.tensor(number)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def from_first(self, action: Callable[[], T]) -> T:
        """What the first process gets by the action, in every process; the others do not act.

        Raises what the action raises in the first process, TrainingError in the others.
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
            raise TrainingError(f"process {self.rank} of {self.count}: process 0 has failed; see what it says")
        return answer[0][0]

    @contextlib.contextmanager
    def one_by_one(self) -> Iterator[None]:
        """On each machine the first process runs the block before the others do: a download happens once."""
        if local_rank() > 0:
            self.largest(0)
        yield
        if local_rank() == 0:
            self.largest(0)

    def check(self, splits: Sequence[Split], batch_size: int) -> None:
        """Raise DataError unless all processes have read the same images and labels, UsageError for small batches."""
        if batch_size < 2 * self.count:
            raise UsageError(
                f"--batch-size {batch_size}: for {self.count} processes expected {2 * self.count} or more, "
                "two images in each"
            )
        seen = [0] * self.count
        if self.count > 1:
            for array in (part for split in splits for part in (split.images_NHWC, split.labels_N)):
                seen[self.rank] = zlib.crc32(array.tobytes(), seen[self.rank])
        seen = self.summed(torch.tensor(seen)).tolist()
        if len(set(seen)) > 1:
            other = next(rank for rank, checksum in enumerate(seen) if checksum != seen[0])
            raise DataError(f"process {other} reads other images than process 0; expected the same data set")

    @contextlib.contextmanager
    def end_together(self) -> Iterator[None]:
        """Raise TrainingError instead of the libraries' errors where another process has ended."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0]
            if self.count > 1 and (isinstance(error, dist.DistError) or "gloo" in reason.lower()):
                raise TrainingError(
                    f"process {self.rank} of {self.count}: another one has ended, see what it says ({reason})"
                ) from error
            raise


ALONE = Processes()


def rank() -> int:
    """The number of this process among all that torchrun started; 0 by itself."""
    return int(os.environ.get("RANK", "0")) if _started_together() else 0


def local_rank() -> int:
    """The number of this process among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _started_together() else 0


def _started_together() -> bool:
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def take_device(device: str) -> str:
    """The device of this process: what was asked for, or under torchrun the GPU with its number on this machine.

    Raises BackendError when GPUs are fewer than processes, or one of them was named.
    """
    if not _started_together() or device == "cpu" or not torch.cuda.is_available():
        return device
    if device.startswith("cuda:"):
        raise BackendError(f"--device {device}: under torchrun each process takes a GPU of its own; expected cuda")
    if local_rank() >= torch.cuda.device_count():
        raise BackendError(
            f"process {local_rank()} of this machine finds {torch.cuda.device_count()} GPU(s); "
            f"expected one for each: torchrun --nproc-per-node {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(local_rank())
    return f"cuda:{local_rank()}"


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Join the others that torchrun started, over gloo for CPUs and NCCL for GPUs; alone where there are none.

    A group that has been joined already is used as it is.
    """
    if not _started_together():
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
