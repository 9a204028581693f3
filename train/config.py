"""TrainConfig: the options of a training, each written once. Nothing heavy is imported here.

`rtk train` builds its command line options from the fields of TrainConfig (cli/config_options.py).
"""
# ruff: noqa: RUF009 - option() makes a dataclasses.field

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from ..core.data.file_rules import dataset_name
from ..core.data.options import (
    IMAGENET_SIDE,
    LARGEST_MEGAPIXELS,
    MAX_PIXELS,
    MAX_UNREADABLE,
    SMALL_SIDE,
    TEST_SHARE,
    DataOptions,
    Fit,
    is_named,
)
from ..core.device import check_device
from ..core.errors import ArtifactError, UnknownNameError, UsageError
from ..core.file_names import check_name, safe_name
from ..core.json_text import json_text, number_from_json
from ..core.models.code_names import CodeName
from ..core.models.names import PUBLISHED, parse_architecture, published_file
from ..core.options import option
from .augment.options import NAMES, augmentation_with
from .data.preprocessing import OF_WEIGHTS, PREPROCESSES, find_preprocess
from .recipes import LARGEST_SIDE, RECIPES, ClassWeights, Recipe, Select, find_recipe

Precision = Literal["auto", "fp32", "bf16"]
Compile = Literal["auto", "on", "off", "cudagraphs", "on+cudagraphs", "reduce-overhead"]

SMALLEST_IMAGE_SIDE = 8
NOTHING_HELD_OUT = "--patience needs held-out images; add --validation-split 0.1"

CHANGEABLE = ("data_dir", "save_every", "skip_nan", "tensorboard")
"""Fields that a resumed run may change: they do not affect what it has computed so far."""


@dataclass(frozen=True)
class TrainConfig:
    """The options of one training. None stands for the recipe's value where the help text says so."""

    arch: str

    dataset: str = option(
        "cifar10", group="Data", help="cifar10, fashion-mnist, shapes, or a folder or archive of images."
    )
    """A folder may have many layouts: see docs/own-data.md."""
    image_size: str | None = option(
        None,
        group="Data",
        metavar="N|HxW",
        help="Size in pixels that images are read with (default: their own if all have the same, at most 96; else 64, "
        "or 224 for ImageNet networks).",
    )
    fit: Fit = option(
        "crop",
        group="Data",
        help="How to fit images of other proportions: crop the centre, letterbox (black bars), or stretch.",
    )
    test_share: float = option(
        TEST_SHARE,
        group="Data",
        help="Share of each class that becomes the test split if the data have none but training images.",
    )
    split_seed: int = option(
        0, group="Data", help="Random seed of that test split; --seed does not change it, so trainings can be compared."
    )
    train_images: int | None = option(
        None, group="Data", help="Number of training images to use, drawn by the random seed (default: all)."
    )
    holdout: int = option(
        0,
        group="Data",
        help="Number of training images to hold out, drawn by the random seed; the epoch with the best accuracy on "
        "them is kept.",
    )
    validation_split: float | None = option(
        None, group="Data", help="Share of the training images to hold out, instead of a number (--holdout)."
    )
    """Drawn by the random seed. Keras' `fit` takes the last images instead; in a folder of classes these would all be
    of the last class."""
    max_unreadable: float = option(
        MAX_UNREADABLE, group="Data", help="Largest share of unreadable images to leave out; more are an error."
    )
    strict: bool = option(False, group="Data", help="Stop if any image cannot be read.")
    max_megapixels: float = option(
        MAX_PIXELS / 1e6,
        group="Data",
        help="Largest images to read, in million pixels; larger ones count as unreadable.",
    )
    data_dir: Path | None = option(None, group="Data", help="Folder of the official data files.", envvar="RTK_DATA_DIR")

    recipe: str = option("rtk", group="Recipe", help=f"{', '.join(RECIPES)}.")
    epochs: int | None = option(None, group="Recipe", help="Number of epochs (default: the recipe's value).")
    batch_size: int | None = option(None, group="Recipe", help="Images per step (default: the recipe's value).")
    lr: float | None = option(None, group="Recipe", help="Highest learning rate (default: the recipe's value).")
    class_weights: ClassWeights = option(
        "none",
        group="Recipe",
        help="Weight of each class in the loss: none, or balanced, by which all classes weigh the same.",
    )
    plateau: bool = option(
        False,
        group="Recipe",
        help="Lower the learning rate when the test loss stops falling (with --holdout: the validation loss), instead "
        "of by the recipe's schedule.",
    )
    select: Select | None = option(
        None,
        group="Recipe",
        help="Weights to keep: of the last epoch, or of the epoch with the best accuracy on the held-out images (on "
        "the test split if no images are held out).",
    )
    """None means best if images are held out, else the recipe's value."""
    patience: int | None = option(
        None,
        group="Recipe",
        help="Stop after this number of epochs without a better accuracy on the held-out images (needs "
        "--validation-split or --holdout).",
    )
    eval_every: int = option(1, group="Recipe", help="Epochs between evaluations; the last epoch is always evaluated.")
    seed: int = option(0, group="Recipe", help="Random seed.")

    augment: tuple[str, ...] | None = option(
        None,
        group="Augmentation",
        metavar="NAME=VALUE",
        help=f"{', '.join(NAMES)}; repeatable. `none` first removes the recipe's augmentation.",
    )

    preprocess: str | None = option(
        None,
        group="Model",
        help=f"Preprocessing inside the model: {', '.join(PREPROCESSES)} (default: the recipe's value).",
    )
    """With --weights, recipes that would standardise the pixels keep those that the weights expect."""
    resize: int | None = option(
        None,
        group="Model",
        help="Side in pixels to which the model scales images; 0 keeps their size (default: the recipe's value).",
    )
    rgb: bool | None = option(None, group="Model", help="Repeat grey images to three channels inside the model.")
    """None stands for the recipe's value."""
    weights: str | None = option(
        None,
        group="Model",
        help="Initial weights: a checkpoint of rtk, a file with the weights of this network (.pth, .ckpt, "
        ".safetensors), a model of the zoo, or imagenet or imagenet-v1 (downloaded).",
    )
    freeze: bool = option(False, group="Model", help="With --weights: train the last layer only.")
    """All other layers keep their weights and their batch norm statistics."""
    checkpoint_activations: bool = option(
        False,
        group="Model",
        help="Recompute activations in the backward pass: much less memory, a third more arithmetic.",
    )

    device: str = option("auto", group="Machine", help="auto, cpu, cuda or cuda:N.")
    precision: Precision = option("auto", group="Machine", help="Arithmetic precision of training.")
    """auto is bf16 where the processor multiplies it in hardware."""
    compile: Compile = option(
        "auto",
        group="Machine",
        help="Use torch.compile. On a GPU also: cudagraphs records each step as a CUDA graph, which needs no compiler; "
        "on+cudagraphs does both; reduce-overhead is PyTorch's own mode of this name.",
    )
    """auto is cudagraphs on a GPU. On a CPU it is on in runs of at least 2,000 steps on processors with AMX, where that
    helps."""
    deterministic: bool = option(False, group="Machine", help="Make runs on a GPU repeatable bit by bit.")
    """Runs on a CPU always are."""

    save_every: float = option(
        5.0,
        group="Stopping and resuming",
        help="Minutes between checkpoints within an epoch; 0: after every step, on a GPU after every few steps.",
    )
    skip_nan: bool = option(
        False,
        group="Stopping and resuming",
        help="Skip and count steps whose loss or gradient is not finite, instead of stopping.",
    )

    tensorboard: bool = option(
        False, group="Output", help="Also write the history for TensorBoard, into RUN/tensorboard."
    )
    name: str | None = option(
        None, group="Output", help="Name of the model and of its files (default: ARCH-DATASET-sSEED)."
    )
    """None stands for `model_name`."""
    out: Path | None = option(None, group="Output", help="Run folder (default: runs/NAME).")

    def __post_init__(self) -> None:
        parse_architecture(self.arch)
        if self.name is not None:
            check_name(self.name)
        self.resolved_recipe  # noqa: B018 - checks recipe, epochs, batch size and learning rate
        for name, value, known in (
            ("--precision", self.precision, get_args(Precision)),
            ("--compile", self.compile, get_args(Compile)),
            ("--select", self.select or "last", get_args(Select)),
            ("--fit", self.fit, get_args(Fit)),
            ("--class-weights", self.class_weights, get_args(ClassWeights)),
        ):
            if value not in known:
                raise UnknownNameError(name, value, known)
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: expected 0 or more")
        check_device(self.device)
        if self.holdout < 0:
            raise UsageError(f"--holdout {self.holdout}: expected 0 or more images")
        share = self.validation_split
        if share is not None and not 0 < share <= 0.5:
            raise UsageError(f"--validation-split {share:g}: expected a share above 0 and at most 0.5")
        if share is not None and self.holdout:
            raise UsageError("--validation-split and --holdout both hold out images; leave one of them out")
        if self.patience is not None and self.patience < 1:
            raise UsageError(f"--patience {self.patience}: expected 1 or more epochs")
        if self.patience is not None and not self.holds_out and is_named(self.dataset):
            raise UsageError(NOTHING_HELD_OUT)
        if self.patience is not None and self.select == "last":
            raise UsageError("--patience keeps the best epoch, but --select last the last one; leave one of them out")
        if self.plateau and self.eval_every > 1:
            raise UsageError(
                f"--plateau needs the loss of every epoch, but --eval-every is {self.eval_every}; leave one of them out"
            )
        image_size_of(self.image_size)
        if not 0 < self.test_share < 1:
            raise UsageError(f"--test-share {self.test_share:g}: expected a share between 0 and 1")
        if not 0 <= self.max_unreadable < 1:
            raise UsageError(f"--max-unreadable {self.max_unreadable:g}: expected a share from 0 to below 1")
        if not 0 < self.max_megapixels <= LARGEST_MEGAPIXELS:
            raise UsageError(f"--max-megapixels {self.max_megapixels:g}: expected up to {LARGEST_MEGAPIXELS:,}")
        if self.strict and self.max_unreadable != MAX_UNREADABLE:
            raise UsageError("--strict and --max-unreadable exclude each other; leave one of them out")
        if self.train_images is not None and self.train_images < 2:
            raise UsageError(f"--train-images {self.train_images}: expected 2 or more")
        if self.eval_every < 1:
            raise UsageError(f"--eval-every {self.eval_every}: expected 1 or more epochs")
        if self.weights in PUBLISHED:
            published_file(self.weights, self.arch)
        if self.resolved_recipe.pretrained and self.weights is None:
            raise UsageError(f"--recipe {self.recipe} starts from trained weights; add --weights")
        if self.preprocess == OF_WEIGHTS and self.weights is None:
            raise UsageError(f"--preprocess {OF_WEIGHTS} keeps that of trained weights; add --weights")
        if self.freeze and self.weights is None:
            raise UsageError("--freeze needs --weights: layers with random weights must be trained")
        if self.checkpoint_activations and self.compile not in ("auto", "off"):
            raise UsageError(
                f"--checkpoint-activations and --compile {self.compile} exclude each other; leave one of them out"
            )
        if self.checkpoint_activations and self.own_code:
            raise UsageError(f"--checkpoint-activations works for the networks of rtk, not for {self.arch}")
        if not self.save_every >= 0:
            raise UsageError(f"--save-every {self.save_every:g}: expected 0 or more minutes")

    @property
    def resolved_recipe(self) -> Recipe:
        """The recipe, with the values that the options replace."""
        recipe = find_recipe(self.recipe)
        slow = recipe.slow_start
        preprocess = recipe.preprocess if self.preprocess is None else self.preprocess
        if self.preprocess is None and self.weights is not None and preprocess == "standard":
            preprocess = OF_WEIGHTS
        return dataclasses.replace(
            recipe,
            epochs=recipe.epochs if self.epochs is None else self.epochs,
            steps=recipe.steps if self.epochs is None else 0,
            least_steps=recipe.least_steps if self.epochs is None else 0,
            batch_size=recipe.batch_size if self.batch_size is None else self.batch_size,
            lr=recipe.lr if self.lr is None else self.lr,
            slow_start=slow if slow and parse_architecture(self.arch).depth >= slow.depth else None,
            class_weights=self.class_weights,
            schedule="plateau" if self.plateau else recipe.schedule,
            augmentation=augmentation_with(recipe.augmentation, self.augment or ()),
            preprocess=preprocess,
            resizing=() if find_preprocess(preprocess).fixed_size or self.own_code else recipe.resizing,
            resize=recipe.resize if self.resize is None else self.resize,
            rgb=recipe.rgb if self.rgb is None else self.rgb,
            select=self.select or ("best" if self.holds_out else recipe.select),
        )

    @property
    def own_code(self) -> CodeName | None:
        """The function that builds a network with code outside of rtk; it may take images of one size only."""
        return parse_architecture(self.arch).code

    @property
    def holds_out(self) -> bool:
        """Whether some training images are held out."""
        return bool(self.holdout or self.validation_split)

    def held_out(self, images: int) -> int:
        """Number of held-out images among `images` training images."""
        return self.holdout if self.validation_split is None else int(self.validation_split * images)

    def selection_split(self, *, held_out: str, scored: str) -> str:
        """The split whose accuracy decides which epoch is kept; empty if the last epoch is kept.

        `held_out`: the name of the split that is there for it, or empty; `scored`: the one that the score is of.
        """
        select = self.select or ("best" if held_out or self.patience is not None else self.resolved_recipe.select)
        return "" if select == "last" else held_out or scored

    def data_options(self) -> DataOptions:
        """How the user's own images are split and read."""
        in_imagenet_size = parse_architecture(self.arch).family.name == "imagenet"
        return DataOptions(
            image_size=image_size_of(self.image_size),
            fit=self.fit,
            split_seed=self.split_seed,
            test_share=self.test_share,
            max_unreadable=0.0 if self.strict else self.max_unreadable,
            max_pixels=round(self.max_megapixels * 1e6),
            default_side=IMAGENET_SIDE if in_imagenet_size else SMALL_SIDE,
        )

    @property
    def model_name(self) -> str:
        """The name of the model, by which its files are named; safe as a file name."""
        return self.name or f"{self.series_name}-s{self.seed}"

    @property
    def series_name(self) -> str:
        """The name that the runs of several seeds have in common."""
        data = safe_name(dataset_name(self.dataset), longest=60)
        arch = safe_name(self.own_code.short, longest=30) if self.own_code else self.arch
        return self.name or "-".join(part for part in (safe_name(arch), data) if part)

    @property
    def run_dir(self) -> Path:
        """The folder that the run writes to."""
        return self.out or Path("runs") / self.model_name

    def to_json(self) -> str:
        """The config as JSON text."""
        return json_text(dataclasses.asdict(self), read_back=True, indent=2, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Self:
        """Read the text that to_json wrote. Raises ArtifactError; `source` is the file name in its message."""
        try:
            fields: dict[str, Any] = json.loads(text)
            for name in ("data_dir", "out"):
                fields[name] = Path(fields[name]) if fields[name] else None
            fields["augment"] = tuple(fields.get("augment") or ()) or None
            numbers = {one.name for one in dataclasses.fields(cls) if "float" in str(one.type)}
            for name in numbers & fields.keys():
                if isinstance(fields[name], str):  # it stands for a number that is not finite
                    fields[name] = number_from_json(fields[name])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(f"{source}: not the config of a run ({error})") from error


def image_size_of(text: str | None) -> tuple[int, int] | None:
    """Height and width from N or HxW; None without a text. Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    sides = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(SMALLEST_IMAGE_SIDE <= side <= LARGEST_SIDE for side in sides):
        raise UsageError(
            f"--image-size {text}: expected N or HxW, such as 224 or 96x128, of {SMALLEST_IMAGE_SIDE} to "
            f"{LARGEST_SIDE:,} pixels"
        )
    return sides


def resumed_config(run_dir: Path, saved: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    """The saved config of the run in `run_dir`, with the changeable fields from `given`.

    Raises UsageError if another given field differs from the saved one; the message has both values.
    """
    now = replace(saved, **given)
    changes = [
        f"{_option_name(name)} {given[name]} (run: {_saved_value(saved, name)})"
        for name in given
        if name not in (*CHANGEABLE, "out") and _effective(now, name) != _effective(saved, name)
    ]
    if given.get("dataset") and not is_named(saved.dataset) and not is_named(given["dataset"]):
        changes = [change for change in changes if not change.startswith("--dataset ")]  # it may have moved: see run.py
        saved = replace(saved, dataset=given["dataset"])
    if given.get("out") and given["out"].resolve() != run_dir.resolve():
        changes.append(f"--out {given['out']}")
    if changes:
        raise UsageError(
            f"{run_dir}: a run resumes only with its own options, found {', '.join(changes)}; "
            "leave them out, or start a new run with another --out"
        )
    return replace(saved, **{name: given[name] for name in CHANGEABLE if name in given})


def _option_name(name: str) -> str:
    return "ARCH" if name == "arch" else "--" + name.replace("_", "-")


def _effective(config: TrainConfig, name: str) -> Any:
    """The value that a field stands for: None is the recipe's value, and paths are compared in full."""
    value = config.model_name if name == "name" else getattr(config, name)
    if value is None:
        return getattr(config.resolved_recipe, name, None)
    if (name == "dataset" and not is_named(value)) or (name == "weights" and Path(value).is_file()):
        return Path(value).resolve()
    return value


def _saved_value(saved: TrainConfig, name: str) -> str:
    if name == "name":
        return saved.model_name
    value, of_recipe = getattr(saved, name), getattr(saved.resolved_recipe, name, None)
    if value is None:
        return "none" if of_recipe is None else f"the recipe's {of_recipe}"
    return str(value)
