"""rtk train."""

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import UsageError
from ..core.text import wrapped
from ..train.config import TrainConfig, resumed_config
from . import help as groups
from .config_options import options_from
from .network_options import AllowCode, NetArg, named_network
from .options import INTERRUPTED, SIGNALLED, given

if TYPE_CHECKING:
    from ..train.run import Trained

_log = logging.getLogger(__name__)

OF_THE_COMMAND = ("seeds", "resume", "evaluation", "net_arg", "allow_code")
"""The parameters that are no fields of TrainConfig."""


@options_from(TrainConfig)
def train(
    context: typer.Context,
    arch: Annotated[
        str | None,
        typer.Argument(help="resnet20v1, resnet56v2, ... (see rtk models), or package.module:function."),
    ] = None,
    *,
    net_arg: NetArg = None,
    allow_code: AllowCode = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Number of runs with consecutive random seeds, from --seed on; prints mean and spread.",
            rich_help_panel=groups.RECIPE,
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder of the run to resume.", rich_help_panel=groups.RESUMING, show_default=False),
    ] = None,
    evaluation: Annotated[
        bool,
        typer.Option(
            "--eval/--no-eval",
            help="Evaluate the trained model at the end as rtk eval does, and write the result into RUN/eval.",
            rich_help_panel=groups.OUTPUT,
        ),
    ] = True,
    **values: Any,
) -> None:
    """Train a network: data set -> checkpoint."""
    if resume is not None:
        if seeds is not None:
            raise UsageError("--resume takes one run; to resume several seeds, repeat the --seeds command without it")
        _resume(resume, _config_values(given(context, "COMMANDLINE", "ENVIRONMENT")), evaluation=evaluation)
        return
    if arch is None:
        raise UsageError("the architecture is missing; expected a name such as resnet20v1, listed by: rtk models")
    config = TrainConfig(**_config_values({"arch": named_network(arch, net_arg), **values}))
    if seeds is not None:
        _train_seeds(config, seeds, evaluation=evaluation)
    else:
        _train(config, evaluation=evaluation)


def _config_values(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the command that are fields of TrainConfig, as it holds them."""
    values = {name: value for name, value in parameters.items() if name not in OF_THE_COMMAND}
    if "augment" in values:  # Typer gives a list
        values["augment"] = tuple(values["augment"] or ()) or None
    return values


def _train(config: TrainConfig, *, evaluation: bool) -> None:
    from ..train.run import train

    with _stoppable(f"rtk train --resume {config.run_dir}"):
        trained = train(config)
    _print_result(trained)
    if evaluation:
        _evaluate([trained.best], config)


def _resume(run_dir: Path, options: dict[str, Any], *, evaluation: bool) -> None:
    from ..train.run import resume
    from ..train.run_folder import RunFolder

    with _stoppable(f"rtk train --resume {run_dir}"):
        trained = resume(run_dir, given=options)
    _print_result(trained)
    if evaluation:
        _evaluate([trained.best], resumed_config(run_dir, RunFolder(run_dir).read_config(), options))


def _train_seeds(config: TrainConfig, count: int, *, evaluation: bool) -> None:
    """Train several seeds and print the mean and spread of their accuracies."""
    from ..train.distributed.process_group import rank
    from ..train.seeds import seed_folders, train_seeds

    with _stoppable("the same command (it keeps the seeds that are finished)"):
        path, summary = train_seeds(config, count)
    if rank() == 0:
        print(f"{summary.scores[0].split} accuracy {summary.text}")
        print(path)
    if evaluation:
        _evaluate([folder / "best.pt" for folder in seed_folders(path, summary.seeds)], config)


def _evaluate(checkpoints: Sequence[Path], config: TrainConfig) -> None:
    """Evaluate the weights of runs that are complete; of several processes only the first does."""
    from ..train.distributed.process_group import rank
    from ..workflow.run_evaluation import command_for, evaluate_run

    if rank() > 0:
        return
    for best in checkpoints:
        try:
            folder = evaluate_run(best, data_dir=config.data_dir, device=config.device)
        except KeyboardInterrupt:
            _log.info(wrapped(f"the evaluation was stopped; the training is complete; later: {command_for(best)}"))
            sys.exit(INTERRUPTED)
        if folder is not None:
            _log.info(f"evaluation: {folder}")


def _print_result(trained: "Trained") -> None:
    """Print the scores and the path of the checkpoint; of several processes only the first prints."""
    from ..core.machine import peak_memory_gib
    from ..train.device import peak_gpu_memory_gib
    from ..train.distributed.process_group import rank

    if rank() > 0:
        return
    gpu_gib = peak_gpu_memory_gib()
    _log.info(f"peak memory {peak_memory_gib():.2f} GiB" + (f", GPU {gpu_gib:.2f} GiB" if gpu_gib else ""))
    score, training, last = trained.card.score, trained.card.training, trained.history[-1]
    assert score is not None  # the last epoch is always evaluated
    assert training is not None
    name = score.split
    print(f"{name} accuracy {score.accuracy:.2%} ({score.correct:,} of {score.total:,}), {name} loss {score.loss:.4f}")
    if training.selected_on:
        print(f"epoch {training.epochs}, selected on the {training.selected_on} split")
        accuracy, correct = last[f"{name}_accuracy"], last[f"{name}_correct"]
        print(f"last epoch: {name} accuracy {accuracy:.2%} ({correct:,} of {score.total:,})")
    print(trained.best)


@contextlib.contextmanager
def _stoppable(resuming: str) -> Iterator[None]:
    """Exit with the code of the signal that stopped the training, and log how to resume."""
    from ..train.distributed.process_group import rank
    from ..train.stop_signals import Stopped

    try:
        yield
    except Stopped as stopped:
        if rank() == 0:
            _log.info(f"stopped; resume with: {resuming}")
        sys.exit(SIGNALLED + stopped.number)
    except KeyboardInterrupt:
        if rank() == 0:
            _log.info(f"stopped without saving; resume from the last checkpoint with: {resuming}")
        sys.exit(INTERRUPTED)
