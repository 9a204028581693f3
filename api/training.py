"""rtk.train: a training as `rtk train` does it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.card import ModelCard
from ..core.data.options import Fit
from ..core.errors import UsageError
from ..train.config import Compile, Precision, TrainConfig, resumed_config
from ..train.recipes import ClassWeights, Select
from .argument_types import checked
from .arguments import PathLike, allow, named_network, path_or_none, text, text_or_none
from .own_call import own_call

if TYPE_CHECKING:
    from ..train.run import Trained
    from ..train.seeds import Summary


@dataclass(frozen=True)
class TrainResult:
    """A training that is complete. With `seeds`, the fields are those of the first run, and `runs` has all."""

    run_dir: Path
    """The run folder."""
    best: Path
    """The checkpoint: the weights that were kept."""
    card: ModelCard
    """What the checkpoint says of itself, such as `card.score`."""
    history: list[dict[str, Any]]
    """One row for each epoch, as in history.jsonl."""
    evaluation: Path | None = None
    """The folder of its evaluation; None without one."""
    runs: "tuple[TrainResult, ...]" = ()
    """With `seeds`, one for each."""
    summary: "Summary | None" = None
    """With `seeds`: the mean and the spread of the accuracies."""


@checked
def train(
    arch: str | None = None,
    *,
    net_arg: Mapping[str, Any] | Sequence[str] | None = None,
    allow_code: str | Sequence[str] | None = None,
    dataset: PathLike = TrainConfig.dataset,
    image_size: str | None = TrainConfig.image_size,
    fit: Fit = TrainConfig.fit,
    test_share: float = TrainConfig.test_share,
    split_seed: int = TrainConfig.split_seed,
    train_images: int | None = TrainConfig.train_images,
    holdout: int = TrainConfig.holdout,
    validation_split: float | None = TrainConfig.validation_split,
    max_unreadable: float = TrainConfig.max_unreadable,
    strict: bool = TrainConfig.strict,
    max_megapixels: float = TrainConfig.max_megapixels,
    data_dir: PathLike | None = TrainConfig.data_dir,
    recipe: str = TrainConfig.recipe,
    epochs: int | None = TrainConfig.epochs,
    batch_size: int | None = TrainConfig.batch_size,
    lr: float | None = TrainConfig.lr,
    class_weights: ClassWeights = TrainConfig.class_weights,
    plateau: bool = TrainConfig.plateau,
    select: Select | None = TrainConfig.select,
    patience: int | None = TrainConfig.patience,
    eval_every: int = TrainConfig.eval_every,
    seed: int = TrainConfig.seed,
    augment: Sequence[str] | None = TrainConfig.augment,
    preprocess: str | None = TrainConfig.preprocess,
    resize: int | None = TrainConfig.resize,
    rgb: bool | None = TrainConfig.rgb,
    weights: PathLike | None = TrainConfig.weights,
    freeze: bool = TrainConfig.freeze,
    checkpoint_activations: bool = TrainConfig.checkpoint_activations,
    device: str = TrainConfig.device,
    precision: Precision = TrainConfig.precision,
    compile: Compile = TrainConfig.compile,  # noqa: A002 - the names are those of the options
    deterministic: bool = TrainConfig.deterministic,
    save_every: float = TrainConfig.save_every,
    skip_nan: bool = TrainConfig.skip_nan,
    tensorboard: bool = TrainConfig.tensorboard,
    name: str | None = TrainConfig.name,
    out: PathLike | None = TrainConfig.out,
    seeds: int | None = None,
    resume: PathLike | None = None,
    eval: bool = True,  # noqa: A002
) -> TrainResult:
    """Train a network: data set -> checkpoint. The options are those of `rtk train`, which explains each.

    `net_arg`: arguments of the function that builds a network of your own, {"width": 32} or ["width=32"].
    `allow_code`: modules that a checkpoint may import to build its network. `seeds`: number of runs with consecutive
    random seeds. `resume`: the folder of a run to continue; options that differ from their defaults must be those of
    the run. `eval`: evaluate the trained model at the end, into RUN/eval; what prevents that is logged.

    Ctrl-C raises KeyboardInterrupt after everything is saved that `resume` needs. Lines about the progress go to the
    log, `logging.getLogger("rtk")`.

    Raises UsageError for options that are not valid or do not fit together, or if the folder already holds a run;
    DataError, BackendError, TrainingError, ArtifactError, OutputError. All of them are RtkError.
    """
    options = dict(locals())
    values: dict[str, Any] = {field.name: options[field.name] for field in fields(TrainConfig)}
    values |= {"dataset": text(dataset), "weights": text_or_none(weights), "augment": augment and tuple(augment)}
    values |= {"data_dir": path_or_none(data_dir), "out": path_or_none(out)}
    with own_call():
        allow(allow_code)
        if resume is not None:
            if seeds is not None:
                raise UsageError("resume takes one run; to resume several seeds, repeat the call without resume")
            return _resumed(Path(resume), values, evaluation=eval)
        if arch is None:
            raise UsageError("the architecture is missing; expected a name such as resnet20v1, listed by: rtk models")
        config = TrainConfig(**values | {"arch": named_network(arch, net_arg)})
        if seeds is not None:
            return _several(config, seeds, evaluation=eval)
        return _one(config, evaluation=eval)


def _one(config: TrainConfig, *, evaluation: bool) -> TrainResult:
    from ..train.run import train

    return _result(train(config), config, evaluation=evaluation)


def _resumed(run_dir: Path, values: dict[str, Any], *, evaluation: bool) -> TrainResult:
    from ..train.run import resume
    from ..train.run_folder import RunFolder

    given = {name: value for name, value in values.items() if value != getattr(TrainConfig, name, None)}
    done = resume(run_dir, given=given)
    return _result(done, resumed_config(run_dir, RunFolder(run_dir).read_config(), given), evaluation=evaluation)


def _several(config: TrainConfig, count: int, *, evaluation: bool) -> TrainResult:
    from ..train.run import resume
    from ..train.seeds import seed_folders, train_seeds

    path, summary = train_seeds(config, count)
    folders = seed_folders(path, summary.seeds)
    runs = [_result(resume(folder), config, evaluation=evaluation) for folder in folders]
    return replace(runs[0], runs=tuple(runs), summary=summary)  # resume() has read what is complete


def _result(done: "Trained", config: TrainConfig, *, evaluation: bool) -> TrainResult:
    """The result of a run, which is evaluated in the first of several processes."""
    from ..train.distributed.process_group import rank
    from ..workflow.run_evaluation import evaluate_run

    wanted = evaluation and rank() == 0
    folder = evaluate_run(done.best, data_dir=config.data_dir, device=config.device) if wanted else None
    return TrainResult(done.run_dir, done.best, done.card, done.history, folder)
