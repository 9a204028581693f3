"""TrainConfig: what `rtk train` was asked for. Nothing heavy is imported here."""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from ..core.errors import ArtifactError, UnknownNameError, UsageError
from ..core.models.names import parse_architecture
from ..core.models.pretrained import PUBLISHED, published_file
from .recipes import Recipe, find_recipe

Precision = Literal["auto", "fp32", "bf16"]
Compile = Literal["auto", "on", "off"]


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
    """Images taken out of the training split to choose the best epoch by; 0 keeps the last weights."""
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
    data_dir: Path | None = None
    out: Path | None = None
    """The run folder; None means runs/ARCH-DATASET-sSEED."""

    def __post_init__(self) -> None:
        parse_architecture(self.arch)
        self.values  # noqa: B018 - checks recipe, epochs, batch size and rate
        for option, value, known in (
            ("--precision", self.precision, get_args(Precision)),
            ("--compile", self.compile, get_args(Compile)),
        ):
            if value not in known:
                raise UnknownNameError(option, value, known)
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: expected 0 or more")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UsageError(f"--device {self.device!r}: expected auto, cpu, cuda or cuda:N")
        if self.holdout < 0:
            raise UsageError(f"--holdout {self.holdout}: expected 0 or more images")
        if self.train_images is not None and self.train_images < 2:
            raise UsageError(f"--train-images {self.train_images}: expected 2 or more")
        if self.eval_every < 1:
            raise UsageError(f"--eval-every {self.eval_every}: expected 1 or more epochs")
        if self.weights in PUBLISHED:
            published_file(self.weights, self.arch)
        if self.freeze and self.weights is None:
            raise UsageError("--freeze needs --weights: layers drawn at random must be trained")
        if self.checkpoint_activations and self.compile == "on":
            raise UsageError("--checkpoint-activations and --compile on exclude each other; leave one out")

    @property
    def values(self) -> Recipe:
        """The recipe with what was asked for otherwise."""
        recipe = find_recipe(self.recipe)
        return dataclasses.replace(
            recipe,
            epochs=recipe.epochs if self.epochs is None else self.epochs,
            batch_size=recipe.batch_size if self.batch_size is None else self.batch_size,
            lr=recipe.lr if self.lr is None else self.lr,
        )

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
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(f"{source}: not the config of a run ({error})") from error
