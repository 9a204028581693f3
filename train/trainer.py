"""Trainer: one step after another, epoch after epoch, with everything that a resumed training needs.

Everything random in an epoch comes from one generator seeded by (seed, epoch), so that an epoch is the same whether
the process that runs it also ran those before it. Nothing in an epoch waits for the device but the saving of its state.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.card import ModelCard
from ..core.data.datasets import Split
from ..core.errors import ArtifactError, TrainingError
from ..core.models.initialise import initialise
from ..core.models.model import Model, build_model
from .augment.augmenter import Augmenter, scaled
from .augment.pixelwise import Mix, mixed
from .data.sampling import Sampler
from .device import Arithmetic
from .distributed.process_group import ALONE, Processes
from .distributed.step_sync import Exchange, Wishes
from .epoch import Epoch
from .optim.deferred_read import Lagged
from .optim.ema import Average
from .optim.nan_guard import Guard, NotFinite
from .optim.schedule import image_side, learning_rate, progress_at
from .recipes import Decays, Recipe
from .weights import to_training_mode


def new_model(card: ModelCard, seed: int, arithmetic: Arithmetic) -> Model:
    """The card's model with weights drawn from the seed, on the device of the training."""
    model = build_model(card)
    initialise(model.network, random_generator(seed, -1, torch.device("cpu")))
    return model.to(arithmetic.device)


class Trainer:
    """A model in training: its optimiser, its moving average, and what it knows of the images."""

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        arithmetic: Arithmetic,
        split: Split,
        *,
        seed: int,
        skip_nan: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.recipe, self.arithmetic, self.seed = model, recipe, arithmetic, seed
        self.processes = processes
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
        self.guard = Guard(model, self.optimiser, skip=skip_nan, device=arithmetic.device)
        self.exchange = Exchange(processes, self.guard.statistics)
        self.forward = processes.replicated(model)
        self.epoch = 0
        """Epochs done."""
        self.history: list[dict[str, Any]] = []
        """Their rows; some schedules look back at them."""
        self.under_way: Epoch | None = None
        """The present one, once it has begun."""
        self.wishes: Callable[[], Wishes] = Wishes
        """Of this process; asked for in every step."""
        self.heard = Wishes()
        """What one of the processes wished some steps ago; all of them hear it in the same step."""
        self._flags: Lagged[dict[str, Any]] = Lagged(arithmetic.device)

    def run_epoch(self, after_step: Callable[[int], None]) -> dict[str, Any]:
        """One pass over the split, without the images that the sampler leaves out and the rest of the last batch.

        `after_step` gets the number of images of each step, and at the end of those left out; it may take `state`.
        Raises NotFinite.
        """
        for losses_B in self.steps():
            after_step(len(losses_B))
        self._heed(self._flags.rest())
        epoch = self.under_way
        assert epoch is not None
        after_step(len(self.labels_N) - epoch.images_seen)
        images, skipped = int(epoch.images), int(epoch.skipped)
        self.under_way = None
        self.epoch += 1
        if not images:
            raise TrainingError(f"not one step of epoch {self.epoch} had a finite loss; --skip-nan cannot help here")
        row = {
            "epoch": self.epoch,
            "lr": self.optimiser.param_groups[0]["lr"],
            "images": epoch.images_seen,
            "train_loss": float(epoch.loss_sum) / images,
            "train_accuracy": int(epoch.correct) / images,
        }
        return {**row, "skipped_steps": skipped} if self.guard.skip else row

    def steps(self) -> Iterator[Tensor]:
        """The steps of the present epoch that are still to be done: of each, the losses of its images."""
        to_training_mode(self.model)
        epoch = self.under_way = self.under_way or self._new_epoch()
        started = self.epoch / self.recipe.epochs
        sides = [image_side(self.recipe, started, side) for side in (self.augmenter.height, self.augmenter.width)]
        while epoch.steps_done < epoch.until:
            index_B = epoch.next_batch()
            progress = progress_at(self.recipe, self.epoch, epoch.steps_done, epoch.steps)
            rate = learning_rate(self.recipe, progress, self.history)
            # Of the whole batch, not of this process's share: any number of processes sees the same images.
            views_BHWC = self.augmenter.views(index_B, epoch=self.epoch, generator=epoch.generator)
            images_BHWC, labels_B, mix = scaled(views_BHWC, *sides), self.labels_N[index_B], None
            if self.recipe.augmentation.mixup:
                images_BHWC, mix = mixed(images_BHWC, labels_B, self.recipe.augmentation.mixup, epoch.generator)
            losses_B, hits, wishes = self._step(images_BHWC, labels_B, epoch.weights_N[index_B], rate, mix)
            self.sampler.record(index_B, losses_B)
            epoch.add(losses_B, hits, self.guard.broken)
            done = {"step": epoch.steps_done, "index": index_B, "images": images_BHWC, "labels": labels_B, "lr": rate}
            done["image_weights"] = epoch.weights_N[index_B]
            if mix is not None:
                done |= {"mixed_with": mix.labels_B, "mixed_share": mix.share}
            self._heed(self._flags.put(done, torch.cat([self.guard.broken[None], wishes])))
            yield losses_B

    def _heed(self, reports: list[tuple[dict[str, Any], list[float]]]) -> None:
        """Look at what steps reported, in order. Raises NotFinite."""
        for step, (broken, stop, save) in reports:
            if broken and not self.guard.skip:
                seen = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in step.items()}
                weights = {name: value.cpu() for name, value in self.model.state_dict().items()}
                evidence = {"seed": self.seed, "epoch": self.epoch + 1, **seen, "weights": weights}
                raise NotFinite(f"in step {step['step']} of epoch {self.epoch + 1}", evidence)
            self.heard = Wishes(stop=self.heard.stop or stop > 0, save=self.heard.save or save > 0)

    def _new_epoch(self) -> Epoch:
        generator = random_generator(self.seed, self.epoch, self.arithmetic.device)
        order, weights_N = self.sampler.draw(self.epoch / self.recipe.epochs, generator)
        size = min(self.batch_size, len(order))  # what the sampler leaves of a small split may not fill a batch
        rest = len(order) % size
        if not (self.recipe.keep_rest and rest > 1):  # batch norm needs two images
            order = order[: len(order) - rest]
        epoch = Epoch.start(order, weights_N, generator, batch_size=size)
        if self.recipe.steps:
            epoch.until = min(epoch.steps, self.recipe.steps - self.epoch * epoch.steps)
        return epoch

    def _step(
        self, images_BHWC: Tensor, labels_B: Tensor, weights_B: Tensor, rate: float, mix: Mix | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the optimiser, to which each process adds its share of the images.

        The loss of each image, how many answers were right, how many processes wish to stop and to save.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        count, mine = len(labels_B), self.processes.share(len(labels_B))
        images_BHWC, labels_B, weights_B = images_BHWC[mine], labels_B[mine], weights_B[mine]
        self.guard.before_forward()
        autocast = self.arithmetic.autocast
        with torch.autocast(self.arithmetic.device.type, autocast, enabled=autocast is not None):
            logits_BK = self.forward(images_BHWC)
        losses_B = self._losses(logits_BK.float(), labels_B)
        if mix is not None:
            losses_B = torch.lerp(losses_B, self._losses(logits_BK.float(), mix.labels_B[mine]), mix.share)
        self.optimiser.zero_grad(set_to_none=True)
        self.processes.weighted((losses_B * weights_B).mean(), count).backward()
        hits = (logits_BK.argmax(1) == labels_B).sum()
        losses_B, hits, wishes = self.exchange(losses_B.detach(), hits, self.wishes(), count=count)
        self.guard.before_step(losses_B)
        self.optimiser.step()
        self.guard.after_step()
        self.average.step()
        return losses_B, hits, wishes

    def _losses(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        return F.cross_entropy(logits_BK, labels_B, reduction="none", label_smoothing=smoothing)

    def state(self) -> dict[str, Any]:
        """What load_state needs to go on from here, in the types that a checkpoint may hold. Raises NotFinite."""
        self._heed(self._flags.rest())
        return {
            "epoch": self.epoch,
            "under_way": self.under_way.state() if self.under_way else None,
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
        if state.get("under_way"):
            generator = random_generator(self.seed, self.epoch, self.arithmetic.device)
            self.under_way = Epoch.load(state["under_way"], generator)


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
            optimiser = torch.optim.SGD(
                groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True
            )
            if recipe.momentum:  # PyTorch would allocate it in the first step, and leave it unset if that is skipped
                for parameter in parameters:
                    optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return optimiser
        case "adam":
            return torch.optim.Adam(groups, lr=recipe.lr, eps=recipe.epsilon, fused=True)


def resident(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """A split's images N x H x W x C, uint8, and labels on the device."""
    return torch.from_numpy(split.images_NHWC).to(device), torch.from_numpy(split.labels_N).to(device)


def random_generator(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """A generator of its own for every epoch; negative epochs are for what happens once, before the first."""
    state = np.random.SeedSequence((seed, epoch + 2)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))
