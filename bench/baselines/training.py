"""The speed of rtk's training as a ratio to the plain loop, in one run.

rtk's own steps are an argument, because bench does not import train.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...core.card import ModelCard
from ...core.data.datasets import Split
from ...core.errors import UsageError
from ...core.library_errors import translated_errors
from ...core.models.model import tensor_from_images
from ..config import BenchConfig
from ..measure.cell import Cell
from ..measure.timing import Measured, measure_interleaved, one_by_one
from ..measure.wait_quiet import before_each_round
from .training_loops import Steps, bare_loop, plain_loop


@dataclass(frozen=True)
class TrainingLoop:
    """A training loop to measure."""

    name: str
    steps: Steps
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
    """Measure steps of the plain loop, the bare loop and these loops, in interleaved rounds and in this order.

    `batch`: of the plain and the bare loop. A loop that fails, for example without memory, stops alone. Raises
    UsageError when the split has fewer images than the largest batch, BackendError when they do not fit on the device.
    """
    largest = max([batch, *(one.batch for one in loops)])
    if len(split) < largest:
        raise UsageError(f"{card.dataset} has {len(split):,} training images, expected {largest} or more: one batch")
    torch_device = torch.device(device)
    with translated_errors(f"the training images on {device}"):
        images_NHWC = tensor_from_images(split.images_NHWC).to(torch_device)
        labels_N = torch.from_numpy(split.labels_N).to(torch_device)
    all_loops = [
        TrainingLoop("plain loop", plain_loop(card, images_NHWC, labels_N, batch=batch), batch),
        TrainingLoop("bare loop", bare_loop(card, torch_device, batch=batch), batch),
        *loops,
    ]
    cells = [Cell(one.name, one.batch) for one in all_loops]
    runners = [one_by_one(timed_step(one.steps, torch_device)) for one in all_loops]
    return measure_interleaved(
        cells,
        runners,
        config,
        on_change=lambda cell: advance(1),
        before_round=before_each_round(wait=config.wait_quiet),
    )


def timed_step(steps: Steps, device: torch.device) -> Callable[[], float]:
    """A call for a runner: makes one step, waits until the device has finished it, and returns its seconds."""

    def run() -> float:
        started_at = time.perf_counter()
        next(steps)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started_at

    return run
