"""Trainer: the steps and epochs of a training, and the state that resuming needs.

All random numbers of an epoch come from one generator seeded by (seed, epoch), so an epoch is the same in a process
that resumed the training. Within an epoch, only saving the state waits for the device.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..core.card import ModelCard
from ..core.data.datasets import Split
from ..core.errors import ArtifactError, TrainingError
from ..core.models.initialise import initialise
from ..core.models.model import Model, build_model
from ..core.models.own_code import has_other_code
from .augment.augmenter import Augmenter, scaled
from .augment.pixelwise import Mix, mixed
from .data.sampling import Sampler
from .data.streamed_images import StreamedImages, images_on
from .device import Arithmetic
from .distributed.process_group import ALONE, Processes
from .distributed.step_sync import StepRequests, StepSync
from .epoch import Epoch, step_sums
from .optim.deferred_read import DeferredRead
from .optim.ema import MovingAverage
from .optim.nan_guard import NanGuard, NotFinite
from .optim.optimiser import keep_rates_on_device, new_optimiser, optimiser_state, parameter_groups, set_rates
from .optim.schedule import image_side, learning_rate, progress_at
from .recipes import Recipe
from .recorded_steps import RecordedSteps, Recorder, Work
from .weights import to_training_mode


def new_model(card: ModelCard, seed: int, arithmetic: Arithmetic) -> Model:
    """The card's model with random weights from the seed, on the device of the training.

    Networks with code outside of rtk draw their weights from PyTorch's own random numbers, which stay as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(epoch_seed(seed, -1))
        model = build_model(card)
    initialise(model.network, random_generator(seed, -1, torch.device("cpu")))
    return model.to(arithmetic.device)


class Trainer:
    """A model in training, with its optimiser, the moving average of its weights, and the training images."""

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
        self.images_NHWC, self.labels_N = device_tensors(split, arithmetic.device)
        self.weights_K: Tensor | None = None
        """The weight of each class in the loss; None: all weigh the same."""
        if recipe.class_weights == "balanced":
            self.weights_K = balanced_weights(split.labels_N).to(arithmetic.device)
        self.batch_size = min(recipe.batch_size, len(split))
        self.steps_per_epoch = recipe.steps_per_epoch(len(split))
        generator = random_generator(seed, -2, arithmetic.device)
        self.augmenter = Augmenter(self.images_NHWC, recipe.augmentation, generator=generator)
        self.sampler = Sampler(len(split), pruning=recipe.pruning, device=arithmetic.device)
        for layer in model.modules():
            if isinstance(layer, _BatchNorm):
                layer.momentum = recipe.norm_momentum
        self.backbone_rests = False
        """Whether only the last layer learns in this step."""
        self.optimiser = new_optimiser(parameter_groups(model, recipe), recipe)
        self.rate = recipe.lr
        """The learning rate of the last step."""
        self.average = MovingAverage(model, horizon_steps=recipe.average * recipe.epochs * self.steps_per_epoch)
        self.guard = NanGuard(model, self.optimiser, skip=skip_nan, device=arithmetic.device)
        self.sync = StepSync(processes, self.guard.statistics)
        self.forward = processes.replicated(model)
        self.epoch = 0
        """Number of finished epochs."""
        self.history: list[dict[str, Any]] = []
        """One row per finished epoch; some schedules depend on them."""
        self.under_way: Epoch | None = None
        """The current epoch, after its first step has begun."""
        self.own_requests: Callable[[], StepRequests] = StepRequests
        """Returns the requests of this process; called in every step."""
        self.requests = StepRequests()
        """Requests of any process; all processes see a request in the same step, some steps after it was made."""
        self._reports: DeferredRead[dict[str, Any]] = DeferredRead(arithmetic.device)
        # What changes between epochs stays in the same objects, because a recorded step finds it there.
        self.generator = random_generator(seed, 0, arithmetic.device)
        self.epoch_number = torch.zeros((), dtype=torch.int64, device=arithmetic.device)
        self.image_weights_N = torch.ones(len(split), device=arithmetic.device)
        self._work: Work = self._whole_step
        self.draws = has_other_code(model.network)
        """Whether layers may draw from PyTorch's own random numbers, as dropout does; rtk's networks do not."""
        self._random_states: list[Tensor] = []
        """Those with which a resumed epoch goes on."""

    def record_steps(self, recorder: Recorder) -> None:
        """From now on run steps from a recording; only for a training of a single process."""
        self._work = RecordedSteps(self._whole_step, recorder, generators=[self.generator])
        self.guard.host_may_look = False
        keep_rates_on_device(self.optimiser, self.arithmetic.device)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        self.rate = rate
        set_rates(self.optimiser, rate, rests=self.backbone_rests)

    def run_epoch(self, after_step: Callable[[int], None]) -> dict[str, Any]:
        """Train one epoch and return its row of the history; the sampler and the last batch may leave images out.

        `after_step` gets the number of images in each step, and finally the number left out; it may call `state`.
        Raises NotFinite.
        """
        for losses_B in self.steps():
            after_step(len(losses_B))
        self._read_reports(self._reports.read_all())
        epoch = self.under_way
        assert epoch is not None
        after_step(len(self.labels_N) - epoch.images_seen)
        loss_sum, correct, images, skipped = epoch.sums_4.tolist()
        self.under_way = None
        self.epoch += 1
        if not images:
            raise TrainingError(
                f"no step of epoch {self.epoch} had a finite loss; --skip-nan does not help, try a lower --lr"
            )
        row = {
            "epoch": self.epoch,
            "lr": self.rate,
            "images": epoch.images_seen,
            "train_loss": loss_sum / images,
            "train_accuracy": correct / images,
        }
        return {**row, "skipped_steps": int(skipped)} if self.guard.skip else row

    def steps(self) -> Iterator[Tensor]:
        """Perform the remaining steps of the current epoch; yield the losses of the images after each step.

        They are valid until the next step.
        """
        to_training_mode(self.model)
        epoch = self.under_way = self.under_way or self._new_epoch()
        if self._random_states:
            self._resume_random()
        started = self.epoch / self.recipe.epochs
        sides = tuple(image_side(self.recipe, started, side) for side in (self.augmenter.height, self.augmenter.width))
        streamed = self._streamed(epoch)
        self.epoch_number.fill_(self.epoch)
        self.image_weights_N.copy_(epoch.weights_N)
        while epoch.steps_done < epoch.until:
            index_B = epoch.next_batch()
            progress = progress_at(self.recipe, self.epoch, epoch.steps_done, epoch.steps)
            self.backbone_rests = progress < self.recipe.head_first
            self.set_rate(learning_rate(self.recipe, progress, self.history))
            losses_B, sums_4, report, *images = self._work(sides, index_B, next(streamed, None))
            self.average.step()
            epoch.add(sums_4)
            if isinstance(self._work, RecordedSteps):  # the next step has its images in the same memory
                images = [tensor.clone() for tensor in images]
            done = {"step": epoch.steps_done, "index": index_B, "lr": self.rate, "images": images}
            if self.processes.count == 1:  # else they have gone to all processes
                done["requests"] = self.own_requests().flags
            self._read_reports(self._reports.put(done, report))
            yield losses_B

    def _whole_step(self, sides: Hashable, index_B: Tensor, streamed_BHWC: Tensor | None) -> tuple[Tensor, ...]:
        """A step on the images with these indices, scaled to these sides (height, width): all that a recording holds.

        It never waits for the device, and what it changes stays in the same tensors. Returns the loss of each image;
        the sums that an epoch adds up; whether the step was not finite, and with several processes, how many request a
        stop and a save; the images, and with mixup the labels and the share that they were mixed with.
        """
        labels_B, mix = self.labels_N[index_B], None
        # Augment the whole batch, not this process's share: the images do not depend on the number of processes.
        views_BHWC = self.augmenter.views(
            index_B, epoch=self.epoch_number, generator=self.generator, streamed_BHWC=streamed_BHWC
        )
        height, width = cast("tuple[int, int]", sides)
        images_BHWC = scaled(views_BHWC, height, width)
        if self.recipe.augmentation.mixup:
            images_BHWC, mix = mixed(images_BHWC, labels_B, self.recipe.augmentation.mixup, self.generator)
        losses_B, hits, requests = self._step(images_BHWC, labels_B, self.image_weights_N[index_B], mix)
        self.sampler.record(index_B, losses_B)
        sums_4 = step_sums(losses_B, hits, self.guard.not_finite)
        report = torch.cat([self.guard.not_finite[None], requests])
        return losses_B, sums_4, report, images_BHWC, *(() if mix is None else (mix.labels_B, mix.share))

    def _streamed(self, epoch: Epoch) -> Iterator[Tensor]:
        """The images of the remaining steps of an epoch, if they are streamed; else nothing."""
        if isinstance(self.images_NHWC, StreamedImages):
            order, size = epoch.order.cpu().numpy(), epoch.batch_size
            yield from self.images_NHWC.batches(
                order[step * size : (step + 1) * size] for step in range(epoch.steps_done, epoch.until)
            )

    def views_to_measure(self, index_B: Tensor, number: int) -> Tensor:
        """Views of these images, in their own size, over which batch norm statistics are measured; always the same."""
        generator = torch.Generator(self.arithmetic.device).manual_seed(number)
        streamed_BHWC = None
        if isinstance(self.images_NHWC, StreamedImages):
            streamed_BHWC = next(self.images_NHWC.batches(iter([index_B.cpu().numpy()])))
        views_BHWC = self.augmenter.views(index_B, epoch=0, generator=generator, streamed_BHWC=streamed_BHWC)
        if self.recipe.augmentation.mixup:
            views_BHWC, _ = mixed(views_BHWC, self.labels_N[index_B], self.recipe.augmentation.mixup, generator)
        return views_BHWC

    def _read_reports(self, reports: list[tuple[dict[str, Any], list[float]]]) -> None:
        """Read the reports of steps in order: requests, and whether the step was finite. Raises NotFinite."""
        for step, (not_finite, *requests) in reports:
            stop, save = step.get("requests", requests)
            if not_finite and not self.guard.skip:
                weights = {name: value.cpu() for name, value in self.model.state_dict().items()}
                evidence = {"seed": self.seed, "epoch": self.epoch + 1, **self._seen_in(step), "weights": weights}
                raise NotFinite(f"in step {step['step']} of epoch {self.epoch + 1}", evidence)
            self.requests = StepRequests(stop=self.requests.stop or stop > 0, save=self.requests.save or save > 0)

    def _seen_in(self, step: dict[str, Any]) -> dict[str, Any]:
        """The images of a step of the current epoch, and all that its loss depended on besides the weights."""
        index_B = step["index"]
        tensors = {"index": index_B, "labels": self.labels_N[index_B], "image_weights": self.image_weights_N[index_B]}
        tensors |= dict(zip(("images", "mixed_with", "mixed_share"), step["images"], strict=False))
        return {"step": step["step"], "lr": step["lr"], **{name: value.cpu() for name, value in tensors.items()}}

    def _resume_random(self) -> None:
        """Go on with the random numbers of the first process, which saved them; other processes take new ones."""
        if self.processes.first:
            set_random_states(self._random_states, self.arithmetic.device)
        else:
            torch.manual_seed(epoch_seed(self.seed, self.epoch) + self.processes.rank)
        self._random_states = []

    def _new_epoch(self) -> Epoch:
        generator = self.generator.manual_seed(epoch_seed(self.seed, self.epoch))
        if self.draws:
            torch.manual_seed(epoch_seed(self.seed, self.epoch) + self.processes.rank)
        order, weights_N = self.sampler.draw(self.epoch / self.recipe.epochs, generator)
        size = min(self.batch_size, len(order))  # of a small split, the sampler may leave less than a batch
        rest = len(order) % size
        if not (self.recipe.keep_rest and rest > 1):  # batch norm needs two images
            order = order[: len(order) - rest]
        epoch = Epoch.start(order, weights_N, generator, batch_size=size)
        if self.recipe.steps:
            epoch.until = min(epoch.steps, self.recipe.steps - self.epoch * epoch.steps)
        return epoch

    def _step(
        self, images_BHWC: Tensor, labels_B: Tensor, weights_B: Tensor, mix: Mix | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the optimiser on a batch; each process computes its share of the images.

        Returns the loss of each image, the number of correct predictions, and how many processes request a stop and a
        save: nothing for a process alone.
        """
        count, mine = len(labels_B), self.processes.share(len(labels_B))
        images_BHWC, labels_B, weights_B = images_BHWC[mine], labels_B[mine], weights_B[mine]
        self.guard.before_forward()
        autocast = self.arithmetic.autocast
        with torch.autocast(self.arithmetic.device.type, autocast, enabled=autocast is not None):
            logits_BK = self.forward(images_BHWC)
        losses_B, weighted_B = self._losses(logits_BK.float(), labels_B)
        if mix is not None:
            others_B, weighted_others_B = self._losses(logits_BK.float(), mix.labels_B[mine])
            losses_B = torch.lerp(losses_B, others_B, mix.share)
            weighted_B = torch.lerp(weighted_B, weighted_others_B, mix.share)
        self.optimiser.zero_grad(set_to_none=True)
        self.processes.weighted((weighted_B * weights_B).mean(), count).backward()
        hits = (logits_BK.argmax(1) == labels_B).sum()
        losses_B, hits, requests = self.sync(losses_B.detach(), hits, self.own_requests, count=count)
        self.guard.before_step(losses_B)
        self.optimiser.step()
        self.guard.after_step()
        return losses_B, hits, requests

    def _losses(self, logits_BK: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each image, for reports and the sampler, and the same times the weight of its class."""
        smoothing = self.recipe.label_smoothing
        losses_B = F.cross_entropy(logits_BK, labels_B, reduction="none", label_smoothing=smoothing)
        return losses_B, losses_B if self.weights_K is None else losses_B * self.weights_K[labels_B]

    def state(self) -> dict[str, Any]:
        """What load_state needs to resume from here, in types that a checkpoint may hold. Raises NotFinite."""
        self._read_reports(self._reports.read_all())
        return {
            "epoch": self.epoch,
            "under_way": self.under_way.state() if self.under_way else None,
            "model": self.model.state_dict(),
            "optimiser": optimiser_state(self.optimiser),
            "average": {"weights": self.average.weights, "steps": self.average.steps},
            "losses": self.sampler.losses_N,
            "random": random_states(self.arithmetic.device) if self.draws else [],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned. Raises ArtifactError if it belongs to a training on other data."""
        if len(state["losses"]) != len(self.sampler.losses_N):
            raise ArtifactError(
                f"the run was trained on {len(state['losses']):,} images, but the data set now has "
                f"{len(self.sampler.losses_N):,}"
            )
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rate = float(self.optimiser.param_groups[0]["lr"])
        if isinstance(self._work, RecordedSteps):
            keep_rates_on_device(self.optimiser, self.arithmetic.device)
        self.average.steps = state["average"]["steps"]
        for name, value in state["average"]["weights"].items():
            self.average.weights[name].copy_(value)
        self.sampler.losses_N.copy_(state["losses"])
        self.epoch = state["epoch"]
        if state.get("under_way"):
            generator = self.generator.manual_seed(epoch_seed(self.seed, self.epoch))
            self.under_way = Epoch.load(state["under_way"], generator)
            self._random_states = state.get("random", [])


def balanced_weights(labels_N: NDArray[np.int64]) -> Tensor:
    """A weight for each class: images / (classes * images of the class), by which the mean over the images is 1.

    Only classes that have images count; no image has the weight of another class.
    """
    images_K = np.bincount(labels_N)
    weights_K = len(labels_N) / (np.count_nonzero(images_K) * np.maximum(images_K, 1))
    return torch.from_numpy(weights_K).float()


def device_tensors(split: Split, device: torch.device) -> tuple[Tensor | StreamedImages, Tensor]:
    """The images of a split (N x H x W x C, uint8), on the device or streamed to it, and its labels, on the device."""
    return images_on(device, split), torch.from_numpy(split.labels_N).to(device)


def random_states(device: torch.device) -> list[Tensor]:
    """The state of PyTorch's own random numbers on the CPU, and on the device if that is a GPU."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_states(states: list[Tensor], device: torch.device) -> None:
    """Restore what `random_states` returned; a run resumed on another kind of device draws other ones."""
    if states:
        torch.set_rng_state(states[0].cpu())
    if len(states) > 1 and device.type == "cuda":
        torch.cuda.set_rng_state(states[1].cpu(), device)


def random_generator(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """A separate generator for each epoch; negative epochs are for what happens once, before the first epoch."""
    return torch.Generator(device).manual_seed(epoch_seed(seed, epoch))


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of the generator of an epoch."""
    state = np.random.SeedSequence((seed, epoch + 2)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
