"""rtk train."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import UsageError
from ..train.augment.options import NAMES
from ..train.config import Compile, Precision, TrainConfig
from ..train.data.preprocessing import PREPROCESSES
from ..train.recipes import RECIPES, Select
from .options import INTERRUPTED, SIGNALLED, DataDir, given

_log = logging.getLogger(__name__)


def train(
    context: typer.Context,
    arch: Annotated[str | None, typer.Argument(help="resnet20v1, resnet56v2, ...; see rtk models.")] = None,
    dataset: Annotated[str, typer.Option(help="cifar10, fashion-mnist, shapes, or a folder.")] = TrainConfig.dataset,
    recipe: Annotated[str, typer.Option(help=f"{', '.join(RECIPES)}.")] = TrainConfig.recipe,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    lr: Annotated[float | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help=f"{', '.join(NAMES)}; repeatable. `none` first takes the recipe's away.",
            show_default=False,
        ),
    ] = None,
    preprocess: Annotated[
        str | None, typer.Option(help=f"In the model: {', '.join(PREPROCESSES)}.", show_default=False)
    ] = None,
    resize: Annotated[
        int | None, typer.Option(help="Side that the model scales images to; 0: as they are.", show_default=False)
    ] = None,
    rgb: Annotated[
        bool | None,
        typer.Option("--rgb/--no-rgb", help="The model repeats grey images to three channels.", show_default=False),
    ] = None,
    plateau: Annotated[
        bool,
        typer.Option("--plateau", help="Lower the rate where the validation loss stays, not by the recipe's schedule."),
    ] = TrainConfig.plateau,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = TrainConfig.seed,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = TrainConfig.device,
    precision: Annotated[Precision, typer.Option(help="Of the arithmetic while training.")] = TrainConfig.precision,
    compile_: Annotated[Compile, typer.Option("--compile", help="torch.compile.")] = TrainConfig.compile,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Repeat bit by bit on a GPU too.")
    ] = TrainConfig.deterministic,
    holdout: Annotated[
        int, typer.Option(help="Hold out so many training images and keep the epoch that is best on them.")
    ] = TrainConfig.holdout,
    validation_split: Annotated[
        float | None,
        typer.Option(help="The same as a share of the training images, drawn by the seed.", show_default=False),
    ] = None,
    select: Annotated[
        Select | None,
        typer.Option(
            help="Keep the last epoch, or the best on held-out images, or without those on the test split.",
            show_default=False,
        ),
    ] = None,
    train_images: Annotated[
        int | None, typer.Option(help="Train on so many images only, drawn by the seed.", show_default=False)
    ] = None,
    eval_every: Annotated[int, typer.Option(help="Epochs between evaluations.")] = TrainConfig.eval_every,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Start from a checkpoint of rtk's, torchvision's file of this network, a model of the zoo, or "
            "imagenet or imagenet-v1, which are downloaded.",
            show_default=False,
        ),
    ] = None,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="With --weights: train the last layer only.")
    ] = TrainConfig.freeze,
    checkpoint_activations: Annotated[
        bool, typer.Option("--checkpoint-activations", help="Take much less memory and a third more arithmetic.")
    ] = TrainConfig.checkpoint_activations,
    save_every: Annotated[
        float, typer.Option(help="Minutes between savings within an epoch; 0: after every step, on a GPU every few.")
    ] = TrainConfig.save_every,
    skip_nan: Annotated[
        bool, typer.Option("--skip-nan", help="Leave out steps whose loss is not finite, and count them.")
    ] = TrainConfig.skip_nan,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Train so many seeds from --seed on, one after another; mean and spread.", show_default=False
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.", show_default=False)] = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/ARCH-DATASET-sSEED.", show_default=False)
    ] = None,
) -> None:
    """Train a network: data set -> checkpoint."""
    from ..core.machine import peak_memory_gib
    from ..train import run as loop
    from ..train.device import peak_gpu_memory_gib
    from ..train.distributed.process_group import rank

    if resume is not None:
        if seeds is not None:
            raise UsageError("--resume goes on with one run; --seeds goes on by itself when given again without it")
        run_dir = resume
    else:
        if arch is None:
            raise UsageError("an architecture is missing, such as resnet20v1; rtk models lists them")
        config = TrainConfig(
            arch=arch,
            dataset=dataset,
            recipe=recipe,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            augment=tuple(augment) if augment else None,
            preprocess=preprocess,
            resize=resize,
            rgb=rgb,
            plateau=plateau,
            seed=seed,
            device=device,
            precision=precision,
            compile=compile_,
            deterministic=deterministic,
            holdout=holdout,
            validation_split=validation_split,
            select=select,
            train_images=train_images,
            eval_every=eval_every,
            weights=weights,
            freeze=freeze,
            checkpoint_activations=checkpoint_activations,
            save_every=save_every,
            skip_nan=skip_nan,
            data_dir=data_dir,
            out=out,
        )
        run_dir = config.run_dir
        if seeds is not None:
            _train_seeds(config, seeds)
            return
    with _stoppable(f"rtk train --resume {run_dir}"):
        if resume is not None:
            trained = loop.resume(run_dir, asked=_given(context, "resume", "seeds"))
        else:
            trained = loop.train(config)
    if rank() > 0:  # of several processes the first speaks
        return
    gpu_gib = peak_gpu_memory_gib()
    _log.info(f"peak memory {peak_memory_gib():.2f} GiB" + (f", of the GPU {gpu_gib:.2f} GiB" if gpu_gib else ""))
    score, training, last = trained.card.score, trained.card.training, trained.history[-1]
    assert score is not None  # the last epoch is always evaluated
    assert training is not None
    print(f"test accuracy {score.accuracy:.2%} ({score.correct:,} of {score.total:,}), test loss {score.loss:.4f}")
    if training.selected_on:
        print(f"of epoch {training.epochs}, chosen by the {training.selected_on} split; ", end="")
        print(f"last epoch: test accuracy {last['test_accuracy']:.2%} ({last['test_correct']:,})")
    print(trained.best)


def _train_seeds(config: TrainConfig, count: int) -> None:
    """Train several seeds, and print what they have in common."""
    from ..train.distributed.process_group import rank
    from ..train.seeds import train_seeds

    with _stoppable("the same command; seeds that are finished are kept"):
        path, summary = train_seeds(config, count)
    if rank() == 0:
        print(f"test accuracy {summary.text}")
        print(path)


@contextlib.contextmanager
def _stoppable(again: str) -> Iterator[None]:
    """End the process as signals do, and say how to go on."""
    from ..train.distributed.process_group import rank
    from ..train.stop_signals import Stopped

    try:
        yield
    except Stopped as stopped:
        if rank() == 0:
            _log.info(f"stopped; go on with: {again}")
        sys.exit(SIGNALLED + stopped.number)
    except KeyboardInterrupt:
        if rank() == 0:
            _log.info(f"stopped at once, back to what was saved last; go on with: {again}")
        sys.exit(INTERRUPTED)


def _given(context: typer.Context, *but: str) -> dict[str, Any]:
    """The options that were given, by the names of TrainConfig's fields."""
    return {
        name.rstrip("_"): tuple(value) if isinstance(value, list) else value
        for name, value in given(context, "COMMANDLINE", "ENVIRONMENT").items()
        if name not in but
    }
