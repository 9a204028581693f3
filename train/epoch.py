"""Epoch: one pass over the training images, which can stop after any step and resume there."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

SUMS = ("loss_sum", "correct", "images", "skipped")
"""The sums of an epoch, by their names in last.pt."""


def step_sums(losses_B: Tensor, hits: Tensor, not_finite: Tensor) -> Tensor:
    """The sums of a step, in float64: losses, correct predictions, images; and 1 if it is skipped, which has no others.

    A step is skipped if `not_finite` is 1.
    """
    skipped = not_finite.double()
    loss_sum = torch.where(not_finite == 0, losses_B.double().sum(), 0.0)
    finite = 1 - skipped
    return torch.stack([loss_sum, hits * finite, len(losses_B) * finite, skipped])


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
    sums_4: Tensor
    """See `step_sums`, over the steps so far, in float64."""
    until: int
    """Number of steps to do: all of the epoch, unless the training ends earlier."""
    steps_done: int = 0

    @classmethod
    def start(cls, order: Tensor, weights_N: Tensor, generator: Generator, *, batch_size: int) -> "Epoch":
        """An epoch before its first step."""
        sums_4 = torch.zeros(4, dtype=torch.float64, device=order.device)
        epoch = cls(order, weights_N, generator, batch_size, sums_4, until=0)
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

    def add(self, sums_4: Tensor) -> None:
        """Add the sums of a step."""
        self.sums_4 += sums_4
        self.steps_done += 1

    def state(self) -> dict[str, Any]:
        """What `load` needs, in types that a checkpoint may hold."""
        fields = {name: value for name, value in vars(self).items() if name != "sums_4"}
        sums = dict(zip(SUMS, self.sums_4.unbind(), strict=True))
        return {**fields, **sums, "generator": self.generator.get_state(), "device": self.order.device.type}

    @classmethod
    def load(cls, state: dict[str, Any], generator: Generator) -> "Epoch":
        """Resume an epoch on the device of this new generator.

        A generator cannot take over the state of one on another kind of device; then the new one is used as it is.
        """
        if state["device"] == generator.device.type:
            generator.set_state(state["generator"])
        sums_4 = torch.stack([torch.as_tensor(state[name], dtype=torch.float64) for name in SUMS])
        fields = {name: value for name, value in state.items() if name not in ("device", *SUMS)}
        fields["sums_4"] = sums_4
        moved = {name: value.to(generator.device) for name, value in fields.items() if isinstance(value, Tensor)}
        return cls(**{**fields, **moved, "generator": generator})
