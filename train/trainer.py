"""Trainer: one step after another, epoch after epoch, with everything that a resumed training needs.

Everything random in an epoch comes from one generator seeded by (seed, epoch), so that an epoch is the same whether
the process that runs it also ran those before it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.card import ModelCard
from ..core.datasets import Split
from ..core.errors import ArtifactError, TrainingError
from ..core.models.initialise import initialise
from ..core.models.model import Model, build_model
from .augment import Augmenter, scaled
from .average import Average
from .device import Arithmetic
from .pixels import Mix, mixed
from .recipes import Decays, Recipe
from .sampling import Sampler
from .schedule import image_side, learning_rate, progress_at
from .weights import to_training_mode


def new_model(card: ModelCard, seed: int, arithmetic: Arithmetic) -> Model:
    """The card's model with weights drawn from the seed, on the device of the training."""
    model = build_model(card)
    initialise(model.network, random_generator(seed, -1, torch.device("cpu")))
    return model.to(arithmetic.device)


class Trainer:
    """A model in training: its optimiser, its moving average, and what it knows of the images."""

    def __init__(self, model: Model, recipe: Recipe, arithmetic: Arithmetic, split: Split, *, seed: int) -> None:
        self.model, self.recipe, self.arithmetic, self.seed = model, recipe, arithmetic, seed
        images_NHWC, self.labels_N = resident(split, arithmetic.device)
        self.batch_size = min(recipe.batch_size, len(split))
        self.steps_per_epoch = recipe.steps_per_epoch(len(split))
        generator = random_generator(seed, -2, arithmetic.device)
        self.augmenter = Augmenter(images_NHWC, recipe.augmentation, generator=generator)
        self.sampler = Sampler(len(split), pruning=recipe.pruning, device=arithmetic.device)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = recipe.norm_momentum
        self.optimiser = _optimiser(model, recipe)
        self.average = Average(model, horizon_steps=recipe.average * recipe.epochs * self.steps_per_epoch)
        self.epoch = 0
        """Epochs done."""
        self.history: list[dict[str, Any]] = []
        """Their rows; some schedules look back at them."""

    def run_epoch(self, advance: Callable[[int], None]) -> dict[str, Any]:
        """One pass over the split, without the images that the sampler leaves out and the rest of the last batch."""
        seen, correct = 0, torch.zeros((), dtype=torch.int64, device=self.arithmetic.device)
        loss_sum = torch.zeros((), device=self.arithmetic.device)
        for images, losses_B, hits in self.steps():
            seen += images
            loss_sum += losses_B.sum()
            correct += hits
            advance(images)
        advance(len(self.labels_N) - seen)
        self.epoch += 1
        if not torch.isfinite(loss_sum):
            raise TrainingError(
                f"the loss is no longer finite in epoch {self.epoch}; try a lower --lr than {self.recipe.lr:g}"
            )
        return {
            "epoch": self.epoch,
            "lr": self.optimiser.param_groups[0]["lr"],
            "images": seen,
            "train_loss": float(loss_sum) / seen,
            "train_accuracy": int(correct) / seen,
        }

    def steps(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The steps of the present epoch: of each, how many images it saw, their losses, and how many were right."""
        to_training_mode(self.model)
        generator = random_generator(self.seed, self.epoch, self.arithmetic.device)
        order, weights_N = self.sampler.draw(self.epoch / self.recipe.epochs, generator)
        started = self.epoch / self.recipe.epochs
        sides = [image_side(self.recipe, started, side) for side in (self.augmenter.height, self.augmenter.width)]
        size = min(self.batch_size, len(order))  # what the sampler leaves of a small split may not fill a batch
        batches = [batch for batch in order.split(size) if len(batch) == size or self._keeps(batch)]
        steps = len(batches)
        if self.recipe.steps:
            batches = batches[: self.recipe.steps - self.epoch * steps]
        for step, index_B in enumerate(batches):
            rate = learning_rate(self.recipe, progress_at(self.recipe, self.epoch, step, steps), self.history)
            views_BHWC = self.augmenter.views(index_B, epoch=self.epoch, generator=generator)
            images_BHWC, labels_B, mix = scaled(views_BHWC, *sides), self.labels_N[index_B], None
            if self.recipe.augmentation.mixup:
                images_BHWC, mix = mixed(images_BHWC, labels_B, self.recipe.augmentation.mixup, generator)
            losses_B, hits = self._step(images_BHWC, labels_B, weights_N[index_B], rate, mix)
            self.sampler.record(index_B, losses_B)
            yield len(index_B), losses_B, hits

    def _keeps(self, rest_B: Tensor) -> bool:
        """Whether what does not fill a batch is a step of its own; batch norm needs two images."""
        return self.recipe.keep_rest and len(rest_B) > 1

    def _step(
        self, images_BHWC: Tensor, labels_B: Tensor, weights_B: Tensor, rate: float, mix: Mix | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step of the optimiser; the loss of each image, and how many answers were right."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        autocast = self.arithmetic.autocast
        with torch.autocast(self.arithmetic.device.type, autocast, enabled=autocast is not None):
            logits_BK = self.model(images_BHWC)
        losses_B = self._losses(logits_BK.float(), labels_B)
        if mix is not None:
            losses_B = torch.lerp(losses_B, self._losses(logits_BK.float(), mix.labels_B), mix.share)
        self.optimiser.zero_grad(set_to_none=True)
        (losses_B * weights_B).mean().backward()
        self.optimiser.step()
        self.average.step()
        return losses_B.detach(), (logits_BK.argmax(1) == labels_B).sum()

    def _losses(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        return F.cross_entropy(logits_BK, labels_B, reduction="none", label_smoothing=smoothing)

    def state(self) -> dict[str, Any]:
        """What load_state needs to go on from here, in the types that a checkpoint may hold."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": {"weights": self.average.weights, "steps": self.average.steps},
            "losses": self.sampler.losses_N,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken. Raises ArtifactError when it belongs to another training."""
        if len(state["losses"]) != len(self.sampler.losses_N):
            raise ArtifactError(
                f"the run was trained on {len(state['losses']):,} images, the data set now has "
                f"{len(self.sampler.losses_N):,}"
            )
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.steps = state["average"]["steps"]
        for name, value in state["average"]["weights"].items():
            self.average.weights[name].copy_(value)
        self.sampler.losses_N.copy_(state["losses"])
        self.epoch = state["epoch"]


def decayed(parameter: Tensor, decays: Decays) -> bool:
    """Whether a parameter of that shape is among what decays; kernels of convolutions have four dimensions."""
    return parameter.ndim >= {"all": 0, "matrices": 2, "convolutions": 4}[decays]


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser, with decay on the parameters that it names."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if decayed(p, recipe.decays) == decays], "weight_decay": decay}
        for decays, decay in ((True, recipe.weight_decay), (False, 0.0))
    ]
    match recipe.optimiser:
        case "sgd":
            return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=recipe.lr, eps=recipe.epsilon, fused=True)


def resident(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """A split's images N x H x W x C, uint8, and labels on the device."""
    return torch.from_numpy(split.images_NHWC).to(device), torch.from_numpy(split.labels_N).to(device)


def random_generator(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """A generator of its own for every epoch; negative epochs are for what happens once, before the first."""
    state = np.random.SeedSequence((seed, epoch + 2)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))
