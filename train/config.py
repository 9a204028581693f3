"""TrainConfig: what `rtk train` was asked for. Nothing heavy is imported here."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from ..core.data import DATASETS
from ..core.errors import ArtifactError, UnknownNameError, UsageError
from ..core.models.names import PUBLISHED, parse_architecture, published_file
from .augment.options import changed
from .data.preprocessing import find_preprocess
from .recipes import Recipe, Select, find_recipe

Precision = Literal["auto", "fp32", "bf16"]
Compile = Literal["auto", "on", "off"]


FREE = ("data_dir", "save_every", "skip_nan")
"""What may change: it makes no difference to what the run has done so far."""


@dataclass(frozen=True)
class TrainConfig:
    """One training. None means: what the recipe says."""

    arch: str
    dataset: str = "cifar10"
    """A name, or a folder with train/<class>/ and test/<class>/."""
    recipe: str = "rtk"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    augment: tuple[str, ...] | None = None
    """Changes of the recipe's augmentation, such as rotation=15; `none` before them takes the recipe's away."""
    preprocess: str | None = None
    """A row of PREPROCESSES: what the model does to the pixels."""
    resize: int | None = None
    """Side that the model scales images to; 0 leaves them as they are."""
    rgb: bool | None = None
    """Whether the model repeats grey images to three channels."""
    plateau: bool = False
    """Lower the rate where the validation loss no longer falls, instead of by the recipe's schedule."""
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """Of the arithmetic while training; auto is bf16 where the processor multiplies it in hardware."""
    compile: Compile = "auto"
    """torch.compile; auto is on where it was found to help: GPUs and processors with AMX."""
    deterministic: bool = False
    """Repeat bit by bit on a GPU too; a CPU always does."""
    holdout: int = 0
    """Images taken out of the training split, drawn by the seed, to choose the best epoch by."""
    validation_split: float | None = None
    """The same as a share of the training split. (Keras' `fit` takes the last images instead, which in a folder of
    classes would be all of the last class.)"""
    select: Select | None = None
    """last or best: which epoch's weights are kept. None means the best on held-out images where there are some."""
    train_images: int | None = None
    """Train on so many images only, drawn by the seed."""
    eval_every: int = 1
    """Epochs between evaluations on the test split; the last epoch is always evaluated."""
    weights: str | None = None
    """To start from: a file of rtk's or torchvision's, a model of the zoo, or the name of a published set."""
    freeze: bool = False
    """Train the last layer only; all else keeps the weights and the batch-norm statistics that it started with."""
    checkpoint_activations: bool = False
    """Compute activations again when their gradients are due, which takes less memory and a third more arithmetic."""
    save_every: float = 5.0
    """Minutes between savings in the middle of an epoch; 0 saves after every step."""
    skip_nan: bool = False
    """Leave out the steps whose loss or gradient is not finite, instead of stopping at the first."""
    data_dir: Path | None = None
    out: Path | None = None
    """The run folder; None means runs/ARCH-DATASET-sSEED."""

    def __post_init__(self) -> None:
        parse_architecture(self.arch)
        self.values  # noqa: B018 - checks recipe, epochs, batch size and rate
        for option, value, known in (
            ("--precision", self.precision, get_args(Precision)),
            ("--compile", self.compile, get_args(Compile)),
            ("--select", self.select or "last", get_args(Select)),
        ):
            if value not in known:
                raise UnknownNameError(option, value, known)
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: expected 0 or more")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UsageError(f"--device {self.device!r}: expected auto, cpu, cuda or cuda:N")
        if self.holdout < 0:
            raise UsageError(f"--holdout {self.holdout}: expected 0 or more images")
        share = self.validation_split
        if share is not None and not 0 < share <= 0.5:
            raise UsageError(f"--validation-split {share:g}: expected a share above 0 and at most 0.5")
        if share is not None and self.holdout:
            raise UsageError("--validation-split and --holdout hold out images both; leave one of them out")
        if self.plateau and self.eval_every > 1:
            raise UsageError(
                f"--plateau looks at every epoch's loss, --eval-every {self.eval_every} does not; leave one of them out"
            )
        if self.train_images is not None and self.train_images < 2:
            raise UsageError(f"--train-images {self.train_images}: expected 2 or more")
        if self.eval_every < 1:
            raise UsageError(f"--eval-every {self.eval_every}: expected 1 or more epochs")
        if self.weights in PUBLISHED:
            published_file(self.weights, self.arch)
        if self.values.pretrained and self.weights is None:
            raise UsageError(f"--recipe {self.recipe} goes on from trained weights: add --weights")
        if self.freeze and self.weights is None:
            raise UsageError("--freeze needs --weights: layers drawn at random must be trained")
        if self.checkpoint_activations and self.compile == "on":
            raise UsageError("--checkpoint-activations and --compile on exclude each other; leave one out")
        if not self.save_every >= 0:
            raise UsageError(f"--save-every {self.save_every:g}: expected 0 or more minutes")

    @property
    def values(self) -> Recipe:
        """The recipe with what was asked for otherwise."""
        recipe = find_recipe(self.recipe)
        slow = recipe.slow_start
        preprocess = recipe.preprocess if self.preprocess is None else self.preprocess
        return dataclasses.replace(
            recipe,
            epochs=recipe.epochs if self.epochs is None else self.epochs,
            steps=recipe.steps if self.epochs is None else 0,
            batch_size=recipe.batch_size if self.batch_size is None else self.batch_size,
            lr=recipe.lr if self.lr is None else self.lr,
            slow_start=slow if slow and parse_architecture(self.arch).depth >= slow.depth else None,
            schedule="plateau" if self.plateau else recipe.schedule,
            augmentation=changed(recipe.augmentation, self.augment or ()),
            preprocess=preprocess,
            resizing=() if find_preprocess(preprocess).fixed_size else recipe.resizing,
            resize=recipe.resize if self.resize is None else self.resize,
            rgb=recipe.rgb if self.rgb is None else self.rgb,
            select=self.select or ("best" if self.holds_out else recipe.select),
        )

    @property
    def holds_out(self) -> bool:
        """Whether some of the training images are held out."""
        return bool(self.holdout or self.validation_split)

    def held_out(self, images: int) -> int:
        """How many of so many training images are held out."""
        return self.holdout if self.validation_split is None else int(self.validation_split * images)

    @property
    def judge(self) -> Literal["", "holdout", "test"]:
        """The split whose right answers choose the epoch that is kept; empty where nothing is chosen."""
        if self.values.select == "last":
            return ""
        return "holdout" if self.holds_out else "test"

    @property
    def run_dir(self) -> Path:
        """The folder that the run writes to."""
        return self.out or Path("runs") / f"{self.arch}-{Path(self.dataset).resolve().name}-s{self.seed}"

    def to_json(self) -> str:
        """The config as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Self:
        """Read what to_json wrote. Raises ArtifactError; `source` names the file in it."""
        try:
            fields: dict[str, Any] = json.loads(text)
            for name in ("data_dir", "out"):
                fields[name] = Path(fields[name]) if fields[name] else None
            fields["augment"] = tuple(fields.get("augment") or ()) or None
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(f"{source}: not the config of a run ({error})") from error


def with_changes(run_dir: Path, run: TrainConfig, asked: Mapping[str, Any]) -> TrainConfig:
    """The config of the run in that folder with what may be changed of the fields in `asked`.

    Raises UsageError, which names the others that differ with both values.
    """
    now = replace(run, **asked)
    changes = [
        f"{_option(name)} {asked[name]} (the run: {_words(run, name)})"
        for name in asked
        if name not in (*FREE, "out") and _meaning(now, name) != _meaning(run, name)
    ]
    if asked.get("out") and asked["out"].resolve() != run_dir.resolve():
        changes.append(f"--out {asked['out']}")
    if changes:
        raise UsageError(
            f"{run_dir} goes on only as it was started, without {', '.join(changes)}; "
            "leave that out, or start a new run with another --out"
        )
    return replace(run, **{name: asked[name] for name in FREE if name in asked})


def _option(name: str) -> str:
    return "ARCH" if name == "arch" else "--" + name.replace("_", "-")


def _meaning(config: TrainConfig, name: str) -> Any:
    """What the value comes to: none is the recipe's, and a folder the same wherever it is named from."""
    value = getattr(config, name)
    if value is None:
        return getattr(config.values, name, None)
    if (name == "dataset" and value not in DATASETS) or (name == "weights" and Path(value).is_file()):
        return Path(value).resolve()
    return value


def _words(run: TrainConfig, name: str) -> str:
    value, own = getattr(run, name), getattr(run.values, name, None)
    return f"the recipe's {own}" if value is None and own is not None else "none" if value is None else str(value)
