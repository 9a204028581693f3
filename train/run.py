"""Run a training: `train` starts a run from a config, `resume` continues one that was stopped."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.artifacts.checkpoint import load_checkpoint, save_checkpoint, save_content
from ..core.card import ModelCard, Score, Training
from ..core.data.datasets import Dataset, Split
from ..core.data.open_dataset import open_dataset
from ..core.data.options import is_named
from ..core.errors import ArtifactError, DataError, OutputError, TrainingError
from ..core.files import only_writer
from ..core.models.blocks import recompute_activations
from ..core.models.model import build_model
from ..core.progress import progress_bar
from ..core.text import wrapped
from .config import TrainConfig, resumed_config
from .data.splits import splits_of
from .device import Arithmetic, Compilation, choose_arithmetic, compile_network, make_deterministic
from .distributed.process_group import Processes, device_of_process, join_process_group
from .distributed.step_sync import StepRequests
from .evaluate import evaluate
from .log_lines import early_stop_line, epoch_line, machine_line, model_line
from .optim.nan_guard import NotFinite
from .optim.norm_statistics import measure_statistics, too_short
from .optim.schedule import epochs_since_best
from .provenance import measured_here, new_card, provenance, selection, with_early_stop
from .recipes import Recipe
from .recorded_steps import CudaGraphRecorder, RecordingError
from .run_folder import Record, RunFolder
from .start import Start, start_lines, start_of
from .stop_signals import Stopped, StopRequest, stop_signals
from .tensorboard_log import TensorBoardLog, check_tensorboard, tensorboard_log
from .trainer import Trainer, device_tensors, new_model
from .weights import freeze_backbone, frozen_norms

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """The result of a training."""

    run_dir: Path
    best: Path
    card: ModelCard
    history: list[dict[str, Any]]


def train(config: TrainConfig) -> Trained:
    """Train a new model into config.run_dir, and log each epoch.

    Raises UsageError if the folder already holds a run, DataError, BackendError, TrainingError, OutputError; Stopped
    if Ctrl-C or SIGTERM ended the training, after everything is saved.
    """
    if config.tensorboard:
        check_tensorboard()
    dataset = open_dataset(config.dataset, data_dir=config.data_dir, options=config.data_options())
    folder = RunFolder(config.run_dir)
    with join_process_group() as processes, ExitStack() as stack:
        processes.from_first(lambda: stack.enter_context(only_writer(folder.path)))
        processes.from_first(lambda: folder.begin(config))
        stack.enter_context(_explain_memory(config.resolved_recipe.batch_size))
        return _trained(config, dataset, folder, processes, state=None)


def resume(run_dir: Path, *, given: Mapping[str, Any] | None = None) -> Trained:
    """Continue a run from its last saved state. Raises ArtifactError, and the errors of `train`.

    `given`: options passed now, by the names of TrainConfig's fields. Raises UsageError if one differs from the run's
    and must not.
    """
    folder = RunFolder(run_dir)
    with join_process_group() as processes, ExitStack() as stack:
        saved = processes.from_first(folder.read_config)
        config = resumed_config(run_dir, saved, given or {})
        processes.from_first(lambda: stack.enter_context(only_writer(run_dir)))
        state = processes.from_first(folder.read_state)
        epochs = config.resolved_recipe.epochs if state is None else state.get("epochs", config.resolved_recipe.epochs)
        if state is None or not (state["epoch"] >= epochs or state.get("stopped_early")):
            if not is_named(config.dataset) and not Path(config.dataset).exists():
                raise DataError(
                    f"{config.dataset}: the data set of the run is not there any more; if it has moved, name it: "
                    f"rtk train --resume {run_dir} --dataset DIR"
                )
            if config.tensorboard:
                check_tensorboard()
            dataset = open_dataset(config.dataset, data_dir=config.data_dir, options=config.data_options())
            if state is not None:
                processes.from_first(lambda: _check_unchanged(folder, dataset))
            if config != saved:
                processes.from_first(lambda: folder.write_config(config))
            stack.enter_context(_explain_memory(config.resolved_recipe.batch_size))
            return _trained(config, dataset, folder, processes, state=state)
        if processes.first:
            early = state.get("stopped_early")
            done = f"is done: it stopped early, after epoch {state['epoch']} of {epochs}" if early else ""
            _log.info(f"{run_dir}: {done or f'all {epochs} epochs are done'}")
        return processes.from_first(lambda: _finished(folder, state["history"]))


def _trained(
    config: TrainConfig, dataset: Dataset, folder: RunFolder, processes: Processes, *, state: dict[str, Any] | None
) -> Trained:
    """Train; if nobody asked for recorded steps and the network's cannot be recorded, begin again without."""
    try:
        return _Run(config, dataset, folder, processes, state=state).finish()
    except RecordingError as error:
        if config.compile != "auto":
            raise
        _log.warning(wrapped(f"steps of this network cannot be recorded ({error.reason}); beginning again without"))
    return _Run(replace(config, compile="off"), dataset, folder, processes, state=state).finish()


class _Run:
    """A run in progress: its trainer, its record, and when to evaluate, save and stop."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        folder: RunFolder,
        processes: Processes,
        *,
        state: dict[str, Any] | None,
    ) -> None:
        """Prepare a new run, or one that continues from `state`."""
        arithmetic = choose_arithmetic(device_of_process(config.device), config.precision)
        make_deterministic(arithmetic, strict=config.deterministic)
        self.config, self.folder, self.processes = config, folder, processes
        self.record = Record.load(state)
        with processes.one_by_one():
            self.splits = splits_of(config, dataset)
        train_split, evaluated = self.splits.train, self.splits.evaluated
        self.recipe = config.resolved_recipe.for_images(len(train_split))
        processes.check((train_split, *evaluated.values()), self.recipe.batch_size)
        self.train_images = len(train_split)
        self.selection_split = config.selection_split(held_out=self.splits.held_out, scored=self.splits.scored)
        if processes.first and dataset.details:
            for line in folder.write_files(self.splits.files):
                _log.warning(wrapped(line))
        with processes.one_by_one():
            start = start_of(config, self.recipe, train_split, state)
        self.recipe = start.recipe
        self.card = new_card(config, dataset, train_split, start.preprocessing)
        self.short = too_short(self.recipe, images=len(train_split))
        self.trainer = self._new_trainer(train_split, arithmetic, start, state)
        self.evaluated_model = build_model(self.card).to(arithmetic.device)  # holds the averaged weights
        self.evaluation_splits = {n: device_tensors(s, arithmetic.device) for n, s in evaluated.items()}
        self.saved_at = time.monotonic()
        self.stop_request = StopRequest()
        self.log = TensorBoardLog()
        self.advance: Callable[[int], None] = lambda images: None

    def _new_trainer(self, split: Split, arithmetic: Arithmetic, start: Start, state: dict[str, Any] | None) -> Trainer:
        """The trainer, with initial weights or with those of `state`."""
        config, processes = self.config, self.processes
        model = new_model(self.card, config.seed, arithmetic)
        if state is None:  # else the state holds the maps and the weights
            described = start.fill(model, split)
            self.record.start = next(iter(described), "")
            for line in start_lines(described):
                self._log(line)
        if config.freeze:
            freeze_backbone(model.network)
        trainer = Trainer(
            model, self.recipe, arithmetic, split, seed=config.seed, skip_nan=config.skip_nan, processes=processes
        )
        trainer.history = self.record.history
        if config.checkpoint_activations:
            recompute_activations(model.network)
            compilation = Compilation("not compiled (activations are checkpointed)")
        else:
            steps = self.recipe.total_steps(len(split))
            alone = processes.count == 1
            compilation = compile_network(model.network, arithmetic, config.compile, steps=steps, alone=alone)
        if compilation.records_steps:
            trainer.record_steps(CudaGraphRecorder())
        if state is not None:
            trainer.load_state(state)
        parameters = sum(p.numel() for p in model.parameters())
        first_epoch, epochs = trainer.epoch + 1, self.recipe.epochs
        self._log(
            model_line(self.card.name, parameters=parameters, images=len(split), first_epoch=first_epoch, epochs=epochs)
        )
        self._log(machine_line(arithmetic, compilation.description, processes=processes.count))
        if compilation.compiled and trainer.epoch < epochs:
            self._log("compiling in the first steps, which can take minutes")
        return trainer

    def finish(self) -> Trained:
        """Train the remaining epochs. Raises Stopped after a stop request, with everything saved."""
        trainer, total = self.trainer, self.recipe.epochs * self.train_images
        device = trainer.arithmetic.device
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else [], enabled=trainer.draws),
            stop_signals() as self.stop_request,
            self._tensorboard() as self.log,
            _explain_errors(self.folder, self.recipe, self.processes),
            progress_bar("training", total, unit="images", shown=self.processes.first) as self.advance,
        ):
            trainer.own_requests = self._own_requests
            done_in_epoch = trainer.under_way.images_seen if trainer.under_way else 0
            self.advance(trainer.epoch * self.train_images + done_in_epoch)
            while trainer.epoch < self.recipe.epochs and not self.record.stopped_early:
                self.record.start_clock()
                self._end_epoch(trainer.run_epoch(self._after_step))
                stopped_by = self.processes.largest(self.stop_request.number)
                if stopped_by:
                    raise Stopped(stopped_by)
        return self.processes.from_first(lambda: _finished(self.folder, self.record.history))

    def _tensorboard(self) -> AbstractContextManager[TensorBoardLog]:
        """The open log for TensorBoard; one that writes nothing without --tensorboard, and in other processes."""
        if self.config.tensorboard and self.processes.first:
            return tensorboard_log(self.folder.tensorboard, self.record.history)
        return nullcontext(TensorBoardLog())

    def _own_requests(self) -> StepRequests:
        """The requests of this process; only the first process requests regular checkpoints."""
        due = time.monotonic() - self.saved_at >= 60 * self.config.save_every
        return StepRequests(stop=self.stop_request.number > 0, save=self.processes.first and due)

    def _after_step(self, images: int) -> None:
        """Advance the progress bar; save and stop if a process has requested it."""
        self.advance(images)
        requests = self.trainer.requests
        if requests.save or requests.stop:
            self._save(replace(self.card, score=None, training=self._provenance()), self._weights())
        if requests.stop:
            raise Stopped(self.processes.largest(self.stop_request.number))

    def _end_epoch(self, row: dict[str, Any]) -> None:
        """Evaluate if due, keep the weights if this is the best epoch, save the state, and log the epoch."""
        is_last = self.trainer.epoch == self.recipe.epochs
        scores = self._scores(is_last=is_last) if is_last or self.trainer.epoch % self.config.eval_every == 0 else {}
        for name, score in scores.items():
            row |= {f"{name}_correct": score.correct, f"{name}_total": score.total}
            row |= {f"{name}_accuracy": score.accuracy, f"{name}_loss": score.loss}
        if scores and not is_last and self.config.patience is not None:
            waited = epochs_since_best([*self.record.history, row])
            self.record.stopped_early = waited >= self.config.patience
            row |= {"stopped_early": True} if self.record.stopped_early else {}
        self.record.end_epoch(row)
        self.log.add(self.record.history[-1])  # before it is saved: a resumed run then has no gap in its log
        scored = scores.get(self.splits.scored)
        measured = measured_here(scored, self.trainer) if scored else None
        self.card = replace(self.card, score=measured, training=self._provenance())
        weights = self._weights(evaluated=bool(scores))
        if scores:
            self._keep_best(scores, weights)
        self._save(self.card, weights)
        if self.processes.first:
            self.folder.write_history(self.record.history)
        self._log(epoch_line(self.record.history[-1], self.recipe.epochs))
        if self.record.stopped_early:
            since = self.trainer.epoch - epochs_since_best(self.record.history)
            self._log(early_stop_line(self.trainer.epoch, self.recipe.epochs, best=since))

    def _scores(self, *, is_last: bool) -> dict[str, Score]:
        """Scores of the averaged weights on the held-out images, if any, and on the other splits.

        `evaluated_model` then is the model that these scores belong to.
        """
        self.evaluated_model.load_state_dict(self.trainer.average.current())
        if self.short and (is_last or self.selection_split):
            trainer = self.trainer
            measure_statistics(
                self.evaluated_model,
                trainer.views_to_measure,
                images=self.train_images,
                pixels=trainer.augmenter.height * trainer.augmenter.width,
                frozen=frozen_norms(trainer.model),
                processes=self.processes,
            )
        return {
            name: evaluate(self.evaluated_model, images_NHWC, labels_N, split=name, processes=self.processes)
            for name, (images_NHWC, labels_N) in self.evaluation_splits.items()
        }

    def _keep_best(self, scores: Mapping[str, Score], weights: dict[str, Tensor]) -> None:
        """Write best.pt if this epoch is the best so far, or if the last epoch is kept anyway."""
        split = self.selection_split
        if split and self.record.best is not None and scores[split].correct <= self.record.best:
            return
        self.record.best = scores[split].correct if split else -1
        assert self.card.training is not None
        described = selection(self.recipe, split, self.splits)
        training = replace(self.card.training, selection=described, selected_on=split)
        if self.processes.first:
            save_checkpoint(self.folder.best, replace(self.card, training=training), weights)

    def _save(self, card: ModelCard, weights: dict[str, Tensor]) -> None:
        """Write last.pt, from which the run can be resumed. Raises NotFinite."""
        state = {**self.trainer.state(), **self.record.state(), "epochs": self.recipe.epochs}
        if self.processes.first:
            save_checkpoint(self.folder.last, card, weights, training=state)
        self.trainer.requests = replace(self.trainer.requests, save=False)
        self.saved_at = time.monotonic()

    def _weights(self, *, evaluated: bool = False) -> dict[str, Tensor]:
        """A copy of the averaged weights on the CPU; if they were `evaluated` just now, with those statistics."""
        weights = self.evaluated_model.state_dict() if evaluated else self.trainer.average.current()
        return {name: value.cpu().clone() for name, value in weights.items()}

    def _provenance(self) -> Training:
        return provenance(self.config, self.trainer, self.record, self.splits)

    def _log(self, line: str) -> None:
        """Log in the first process only."""
        if self.processes.first:
            _log.info(line)


def _check_unchanged(folder: RunFolder, dataset: Dataset) -> None:
    """Raise ArtifactError if the user's own data are not those that the run began with."""
    before, now = load_checkpoint(folder.last).card.data, dataset.record
    if before is not None and now is not None and before.fingerprint != now.fingerprint:
        counts = [sum(record.images.values()) for record in (before, now)]
        raise ArtifactError(
            f"{now.path}: the images have changed since the run began ({counts[0]:,} images then, {counts[1]:,} now); "
            "restore them, or start a new run with another --out"
        )


def _finished(folder: RunFolder, history: list[dict[str, Any]]) -> Trained:
    """Write the files that follow from the history: the process may have been killed just before it wrote them."""
    best = load_checkpoint(folder.best)
    training = best.card.training
    if history[-1].get("stopped_early") and training and "stopped_early" not in training.settings:
        card = replace(best.card, training=with_early_stop(training, history[-1]["epoch"]), checkpoint_sha256="")
        save_checkpoint(folder.best, card, best.weights)
        best = load_checkpoint(folder.best)
    folder.write_history(history)
    folder.write_curves(history, title=best.card.name)
    return Trained(folder.path, folder.best, best.card, history)


@contextmanager
def _explain_memory(batch_size: int) -> Iterator[None]:
    """Turn an out-of-memory error, of a GPU or of this machine, into advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        gpu, host = isinstance(error, torch.OutOfMemoryError), "can't allocate memory" in str(error)
        if not (gpu or host or isinstance(error, MemoryError)):
            raise
        raise TrainingError(
            f"out of {'GPU ' if gpu else ''}memory with a batch of {batch_size}; try a smaller --batch-size, "
            "--checkpoint-activations, or smaller images"
        ) from error


@contextmanager
def _explain_errors(folder: RunFolder, recipe: Recipe, processes: Processes) -> Iterator[None]:
    """Add to an error that ends a run what is saved and how to resume; keep the data of a step that was not finite."""
    try:
        yield
    except NotFinite as error:
        if processes.first:
            save_content(folder.not_finite, error.evidence)
        raise TrainingError(
            f"{error}; its images, labels and weights are in {folder.not_finite} (torch.load); "
            f"try a lower --lr than {recipe.lr:g}, or resume with: rtk train --resume {folder.path} --skip-nan"
        ) from error
    except OutputError as error:
        intact = "the last checkpoint is intact; " if folder.last.exists() else ""
        advice = f"free some space and resume with: rtk train --resume {folder.path}"
        raise OutputError(f"{error}; {intact}{advice}") from error
