"""How fast rtk trains, as a ratio to the plain loop, in one run. Its step is handed in: bench knows no training."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ...core.card import ModelCard
from ...core.data.datasets import Split
from ...core.errors import UsageError
from ..config import BenchConfig
from ..measure.cell import Cell
from ..measure.timing import Measured, one_by_one, take_turns
from .training_loops import bare_loop, plain_loop, timed_step


@dataclass(frozen=True)
class TrainingLoop:
    """A way to train, as an endless iterator that makes one step an item."""

    name: str
    steps: Iterator[int]
    batch: int


def measure_training(
    card: ModelCard,
    split: Split,
    loops: list[TrainingLoop],
    config: BenchConfig,
    *,
    device: str,
    batch: int,
    advance: Callable[[int], None],
) -> Measured:
    """Steps of the plain loop, of the bare one, and of these loops, in turns; the plain loop comes first.

    `batch`: of the first two. Raises UsageError when the split does not fill a batch of every one of them.
    """
    largest = max([batch, *(one.batch for one in loops)])
    if len(split) < largest:
        raise UsageError(f"{card.dataset} has {len(split):,} training images; expected {largest} or more, a batch")
    where = torch.device(device)
    images_NHWC = torch.from_numpy(split.images_NHWC).to(where)
    labels_N = torch.from_numpy(split.labels_N).to(where)
    everyone = [
        TrainingLoop("plain loop", plain_loop(card, images_NHWC, labels_N, batch=batch), batch),
        TrainingLoop("bare loop", bare_loop(card, where, batch=batch), batch),
        *loops,
    ]
    cells = [Cell(one.name, one.batch) for one in everyone]
    runners = [one_by_one(timed_step(one.steps, where)) for one in everyone]
    return take_turns(cells, runners, config, told=lambda cell: advance(1))
