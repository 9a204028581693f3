"""Epoch: one pass over the split that can be left after any step and taken up again."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor


@dataclass
class Epoch:
    """What was drawn at its start, how far it is, and what has been summed up since; sums stay on the device."""

    order: Tensor
    """Indices of the images that it sees, batch after batch; the last batch may be smaller."""
    weights_N: Tensor
    """How much each image of the split counts."""
    generator: Generator
    """For everything random in it."""
    batch_size: int
    loss_sum: Tensor
    correct: Tensor
    images: Tensor
    """Those in the two sums: of all steps but the skipped ones."""
    skipped: Tensor
    """Steps that changed nothing, since they were not finite."""
    until: int
    """How many of its steps are done: all, unless the training ends before."""
    steps_done: int = 0

    @classmethod
    def start(cls, order: Tensor, weights_N: Tensor, generator: Generator, *, batch_size: int) -> "Epoch":
        """At its first step."""
        loss_sum, (correct, images, skipped) = torch.zeros((), device=order.device), order.new_zeros(3)
        epoch = cls(order, weights_N, generator, batch_size, loss_sum, correct, images, skipped, until=0)
        epoch.until = epoch.steps
        return epoch

    @property
    def steps(self) -> int:
        """In the whole epoch."""
        return -(-len(self.order) // self.batch_size)

    @property
    def images_seen(self) -> int:
        """In the steps done."""
        return min(self.steps_done * self.batch_size, len(self.order))

    def next_batch(self) -> Tensor:
        """The indices of the images of the next step."""
        return self.order[self.images_seen : self.images_seen + self.batch_size]

    def add(self, losses_B: Tensor, hits: Tensor, broken: Tensor) -> None:
        """Count a step; one that is broken (1, not 0) only as skipped."""
        fine = broken == 0
        self.loss_sum += torch.where(fine, losses_B.sum(), 0.0)
        self.correct += torch.where(fine, hits, 0)
        self.images += fine * len(losses_B)
        self.skipped += ~fine
        self.steps_done += 1

    def state(self) -> dict[str, Any]:
        """What `load` needs, in the types that a checkpoint may hold."""
        return {**vars(self), "generator": self.generator.get_state(), "device": self.order.device.type}

    @classmethod
    def load(cls, state: dict[str, Any], generator: Generator) -> "Epoch":
        """Take an epoch up again, on the device of this fresh generator for it.

        The numbers of a generator of another kind of device cannot go on; this one's then start afresh.
        """
        if state["device"] == generator.device.type:
            generator.set_state(state["generator"])
        fields = {name: value for name, value in state.items() if name != "device"}
        moved = {name: value.to(generator.device) for name, value in fields.items() if isinstance(value, Tensor)}
        return cls(**{**fields, **moved, "generator": generator})
