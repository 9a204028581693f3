"""Make a checkpoint of a network's weights from elsewhere, without training: `rtk import WEIGHTS`."""

import contextlib
import logging
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.artifacts.checkpoint import save_checkpoint
from ..core.artifacts.weight_files import WeightFile, read_weight_file
from ..core.artifacts.weight_fit import Fitted, architecture_in, check_fit, fit_weights, stem_channels
from ..core.card import Input, ModelCard
from ..core.errors import ArtifactError, UsageError
from ..core.file_names import WEIGHT_SUFFIXES, safe_name
from ..core.files import make_writable_folder, sha256_of
from ..core.models.answers import answer_problem
from ..core.models.model import Model, build_model
from ..core.models.names import parse_architecture
from ..core.text import first_few, wrapped
from ..train.config import image_size_of
from .class_list import ClassList, read_classes
from .import_request import ImportRequest
from .known_preprocessing import known_preprocessing

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

UNKNOWN_DATA = "unknown"
"""The data set on the card of weights whose classes were given by a list."""


@dataclass(frozen=True)
class ImportConfig(ImportRequest):
    """Weights, and the network that they are of."""

    arch: str | None = None
    """None: recognised by the layers."""
    ema: bool = True
    """Whether the moving average is taken from a file that has both."""

    def __post_init__(self) -> None:
        if self.arch is not None:
            parse_architecture(self.arch)
        super().__post_init__()
        if self.image_size is None:
            raise UsageError("the size of the images is missing; add --image-size N, such as 224")
        if self.target.exists():
            if self.path.exists() and self.target.samefile(self.path):
                raise UsageError(f"{self.target}: is the weight file itself; choose another --out or --name")
            if not self.force:
                raise UsageError(f"{self.target}: exists; choose another --out or --name, or replace it with --force")

    @property
    def model_name(self) -> str:
        """The name of the model."""
        stem = re.sub(
            rf"({'|'.join(map(re.escape, WEIGHT_SUFFIXES))})(\.tar)?$", "", self.path.name, flags=re.IGNORECASE
        )
        return self.name or safe_name(stem) or "imported"

    @property
    def target(self) -> Path:
        """The checkpoint to write."""
        return (self.out or self.path.parent) / f"{self.model_name}.pt"


@dataclass(frozen=True)
class Imported:
    """A checkpoint that was made from weights."""

    path: Path
    card: ModelCard
    source: str
    """The weight file, its SHA-256, and what was done with its content, in words."""


def import_weights(config: ImportConfig) -> Imported:
    """Write the checkpoint of a model with these weights, whole or not at all.

    The model has answered a few generated images by then. Raises UsageError, DataError for the classes, ArtifactError
    if the weights do not fit the network or its answers are no logits of the classes, and OutputError.
    """
    file = read_weight_file(config.path)
    if file.of_rtk:
        use = "use it as it is" if config.path.suffix == ".pt" else "rename it, so that it ends with .pt"
        raise ArtifactError(f"{config.path}: is a checkpoint of rtk already; {use}")
    arch = config.arch or _recognised(file, config.path)
    assert config.classes is not None
    classes = read_classes(config.classes)
    model, card = _new_model(config, arch, classes, file)
    fitted = fit_weights(file.states, model.network.state_dict(), averaged=config.ema)
    _load(model, fitted, config, arch)
    if problem := answer_problem(model.eval(), card):
        raise ArtifactError(f"{config.path}: {problem}")
    card, source = _with_source(card, config, fitted)
    make_writable_folder(config.target.parent)
    save_checkpoint(config.target, card, model.state_dict())
    return Imported(config.target, card, source)


def _recognised(file: WeightFile, path: Path) -> str:
    """The architecture that the names and shapes of the weights are of. Raises UsageError."""
    found = architecture_in(file.states)
    if found is None:
        raise UsageError(
            f"{path}: its layers are of no network that rtk recognises; add --arch NAME; rtk models lists the names"
        )
    _log.info(f"network: {found}, by the names and shapes of its layers")
    return found


def _new_model(config: ImportConfig, arch: str, classes: ClassList, file: WeightFile) -> tuple[Model, ModelCard]:
    """The model with random weights, and its card. The file decides whether it takes grey images."""
    assert config.image_size is not None
    size = image_size_of(config.image_size)
    assert size is not None

    def card(channels: int) -> ModelCard:
        preprocessing = known_preprocessing(config.preprocess, channels=channels, mean=config.mean, std=config.std)
        return ModelCard(
            name=config.model_name,
            arch=arch,
            dataset=classes.dataset or UNKNOWN_DATA,
            classes=classes.names,
            input=Input(*size, 1 if config.rgb else channels),
            preprocessing=preprocessing,
            fit=config.fit,
        )

    try:
        chosen = card(3)
        model = build_model(chosen)
        grey = stem_channels(file.states, model.network) == 1
    except UsageError as error:  # code outside of rtk may build networks of grey images alone
        if parse_architecture(arch).code is None or config.rgb:
            raise
        with contextlib.suppress(UsageError):
            return build_model(card(1)), card(1)
        raise error from None
    if grey:
        if config.rgb:
            raise UsageError(f"{config.path}: its network takes grey images; leave out --rgb")
        chosen = card(1)
        model = build_model(chosen)
    return model, chosen


def _load(model: Model, fitted: Fitted, config: ImportConfig, arch: str) -> None:
    """Load the weights into the network. Raises ArtifactError if they do not fit."""
    wanted = model.network.state_dict()
    _check_head(fitted.weights, wanted, config, arch)
    check_fit(fitted.weights, wanted, path=config.path, arch=arch)
    model.network.load_state_dict(fitted.weights, strict=False)


def _check_head(
    weights: Mapping[str, "Tensor"], wanted: Mapping[str, "Tensor"], config: ImportConfig, arch: str
) -> None:
    """Raise ArtifactError if the only thing that differs is the number of rows of one layer: that of the classes."""
    different = [name for name in wanted if name in weights and weights[name].shape != wanted[name].shape]
    layers = {name.rpartition(".")[0] for name in different}
    same_names = weights.keys() <= wanted.keys()
    if not same_names or len(layers) != 1 or any(weights[one].shape[1:] != wanted[one].shape[1:] for one in different):
        return
    found, named = len(weights[different[0]]), len(wanted[different[0]])
    raise ArtifactError(
        f"{config.path}: its last layer, {layers.pop()}, has {found:,} rows, but --classes names {named:,}; name "
        f"all {found:,} in their order, or train a new last layer: rtk train {shlex.quote(arch)} --weights "
        f"{shlex.quote(str(config.path))}"
    )


def _with_source(card: ModelCard, config: ImportConfig, fitted: Fitted) -> tuple[ModelCard, str]:
    """The card with a note of where the weights are from, and the same in one line."""
    sha256 = sha256_of(config.path)
    note = {"file": config.path.name, "sha256": sha256, "weights": "; ".join(fitted.changes) or "all, as they are"}
    source = "; ".join((f"{config.path.name}, sha256 {sha256}", *fitted.changes))
    return replace(card, notes={"imported": note}), source


def imported_text(imported: Imported) -> str:
    """What was imported, and what is not known about it, in lines for the log."""
    card, size = imported.card, imported.card.input
    measure = f"rtk eval {shlex.quote(str(imported.path))}" + (" --dataset DIR" if card.dataset == UNKNOWN_DATA else "")
    shape = f"uint8 [N, {size.height}, {size.width}, {size.channels}]"
    lines = (
        wrapped(imported.source, first="weights: "),
        wrapped(f"{shape}; in the model: {card.preprocessing.to_text()}", first="input: "),
        wrapped(f"{len(card.classes):,}: {first_few(card.classes)}", first="classes: "),
        f"accuracy: not known; to measure it on labelled images:\n  {measure}",
    )
    return "\n".join(lines)
