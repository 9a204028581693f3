"""The model whose speed alone is measured: any file with a card, or an architecture, which gets random weights.

Neither the time of a layer nor its memory depends on the values in it.
"""

from dataclasses import dataclass
from pathlib import Path

from ..core.card import Input, ModelCard, Preprocessing
from ..core.errors import UnknownNameError, UsageError
from ..core.file_names import safe_name
from ..core.models.names import parse_architecture
from ..train.config import image_size_of
from .models import ModelFiles, find_model


@dataclass(frozen=True)
class Usual:
    """The images and the number of classes that a family of networks is known for."""

    input: Input
    classes: int


USUAL = {
    "v1": Usual(Input(32, 32, 3), 10),
    "v2": Usual(Input(32, 32, 3), 10),
    "plain": Usual(Input(32, 32, 3), 10),
    "imagenet": Usual(Input(224, 224, 3), 1_000),
    "d2l": Usual(Input(96, 96, 1), 10),
}
"""By family: the sources are those of core/models/names.py."""
OTHERWISE = USUAL["imagenet"]


@dataclass(frozen=True)
class SpeedModel:
    """A model whose speed can be measured, and what the report must say about it."""

    found: ModelFiles
    remarks: tuple[str, ...] = ()


def speed_model(name: str, folder: Path, *, image_size: str | None = None) -> SpeedModel:
    """Find the model; of an architecture make a checkpoint with random weights in the folder.

    `image_size`: as --image-size takes it, for architectures. Raises the errors of find_model and image_size_of;
    UsageError for a size that a model has already.
    """
    size = image_size_of(image_size)
    try:
        found = find_model(name)
    except UnknownNameError as error:
        if not names_architecture(name):
            raise
        del error
        return _with_random_weights(name, folder, size)
    if size is not None:
        raise UsageError(f"{name}: --image-size: it takes {_text_of(found.card.input)} images, which cannot be changed")
    return SpeedModel(found)


def has_no_reference(name: str) -> bool:
    """Whether a model has no answers to compare: an architecture, which has no weights."""
    return names_architecture(name)


def names_architecture(name: str) -> bool:
    """Whether a name is that of an architecture, and of no file."""
    if Path(name).exists() or Path(name).suffix in (".pt", ".onnx", ".engine"):
        return False
    try:
        parse_architecture(name)
    except UnknownNameError:
        return False
    return True


def _with_random_weights(arch: str, folder: Path, size: tuple[int, int] | None) -> SpeedModel:
    """Write a checkpoint with random weights, the same each time, so that its graph and engine are made once."""
    import torch

    from ..core.artifacts.checkpoint import save_checkpoint
    from ..core.models.model import build_model, build_network

    family = getattr(parse_architecture(arch), "family", None)
    usual = USUAL.get(getattr(family, "name", ""), OTHERWISE)
    height, width = size or usual.input.shape[:2]
    channels = usual.input.channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(arch, in_channels=channels, classes=usual.classes).eval()
        with torch.inference_mode():
            classes = network(torch.zeros(1, channels, height, width)).shape[1]
        card = ModelCard(
            name=safe_name(arch) or "network",
            arch=arch,
            dataset="",
            classes=tuple(f"class {number}" for number in range(classes)),
            input=Input(height, width, channels),
            preprocessing=Preprocessing((0.5,) * channels, (0.25,) * channels),
            notes={"weights": "random"},
        )
        model = build_model(card)
        model.network.load_state_dict(network.state_dict())
    path = folder / f"{card.name}.pt"
    save_checkpoint(path, card, model.state_dict())
    remark = f"random weights: {arch} for {_text_of(card.input)} images and {classes:,} classes; nothing is trained"
    return SpeedModel(ModelFiles(card.name, checkpoint=path), (remark,))


def _text_of(size: Input) -> str:
    return " x ".join(map(str, size.shape))
