"""Epoch: one pass over the training images, which can stop after any step and resume there."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor


@dataclass
class Epoch:
    """The random order of an epoch, its position, and its sums so far; the sums stay on the device.

    `state` is part of last.pt: the names of the fields are part of that file's format.
    """

    order: Tensor
    """Indices of the epoch's images, batch after batch; the last batch may be smaller."""
    weights_N: Tensor
    """The weight of each image of the split in the loss."""
    generator: Generator
    """The source of all random numbers of the epoch."""
    batch_size: int
    loss_sum: Tensor
    correct: Tensor
    images: Tensor
    """Number of images in the two sums: those of all steps except the skipped ones."""
    skipped: Tensor
    """Number of steps that changed nothing because they were not finite."""
    until: int
    """Number of steps to do: all of the epoch, unless the training ends earlier."""
    steps_done: int = 0

    @classmethod
    def start(cls, order: Tensor, weights_N: Tensor, generator: Generator, *, batch_size: int) -> "Epoch":
        """An epoch before its first step."""
        loss_sum, (correct, images, skipped) = torch.zeros((), device=order.device), order.new_zeros(3)
        epoch = cls(order, weights_N, generator, batch_size, loss_sum, correct, images, skipped, until=0)
        epoch.until = epoch.steps
        return epoch

    @property
    def steps(self) -> int:
        """Number of steps in the whole epoch."""
        return -(-len(self.order) // self.batch_size)

    @property
    def images_seen(self) -> int:
        """Number of images in the steps that are done."""
        return min(self.steps_done * self.batch_size, len(self.order))

    def next_batch(self) -> Tensor:
        """The indices of the next step's images."""
        return self.order[self.images_seen : self.images_seen + self.batch_size]

    def add(self, losses_B: Tensor, hits: Tensor, not_finite: Tensor) -> None:
        """Add a step to the sums; if `not_finite` is 1, count it as skipped only."""
        finite = not_finite == 0
        self.loss_sum += torch.where(finite, losses_B.sum(), 0.0)
        self.correct += torch.where(finite, hits, 0)
        self.images += finite * len(losses_B)
        self.skipped += ~finite
        self.steps_done += 1

    def state(self) -> dict[str, Any]:
        """What `load` needs, in types that a checkpoint may hold."""
        return {**vars(self), "generator": self.generator.get_state(), "device": self.order.device.type}

    @classmethod
    def load(cls, state: dict[str, Any], generator: Generator) -> "Epoch":
        """Resume an epoch on the device of this new generator.

        A generator cannot take over the state of one on another kind of device; then the new one is used as it is.
        """
        if state["device"] == generator.device.type:
            generator.set_state(state["generator"])
        fields = {name: value for name, value in state.items() if name != "device"}
        moved = {name: value.to(generator.device) for name, value in fields.items() if isinstance(value, Tensor)}
        return cls(**{**fields, **moved, "generator": generator})
