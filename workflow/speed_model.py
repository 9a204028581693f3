"""The model whose speed alone is measured: any file with a card, an architecture, or a graph of another program.

An architecture gets random weights, and a graph of another program the least preprocessing: pixels divided by 255.

Neither the time of a layer nor its memory depends on the values in it.
"""

from dataclasses import dataclass
from pathlib import Path

from ..core.artifacts.graph_card import has_card
from ..core.card import Input, ModelCard, Preprocessing
from ..core.errors import UnknownNameError, UsageError
from ..core.file_names import safe_name
from ..core.models.names import parse_architecture
from ..core.zoo import zoo_names
from ..train.config import image_size_of
from .models import GRAPH, ModelFiles, find_model


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
    """Find the model; of an architecture, and of a graph of another program, make one in the folder.

    `image_size`: as --image-size takes it, for architectures and for graphs that take images of any size. Raises the
    errors of find_model, image_size_of and import_graph; UsageError for a size that a model has already.
    """
    size = image_size_of(image_size)
    if is_foreign(name):
        return _with_preprocessing(Path(name), folder, size)
    if name not in zoo_names() and names_architecture(name):
        return _with_random_weights(name, folder, size)
    found = find_model(name)
    if size is not None:
        raise UsageError(f"{name}: --image-size: it takes {_text_of(found.card.input)} images, which cannot be changed")
    return SpeedModel(found)


def no_reference(name: str) -> str:
    """Why a model has no answers to compare, in words; empty if it may have some."""
    if names_architecture(name):
        return "an architecture has no weights"
    return "a graph of another program has no reference before it is imported" if is_foreign(name) else ""


def is_foreign(name: str) -> bool:
    """Whether a name is that of an ONNX file that rtk did not write."""
    path = Path(name)
    return path.suffix == GRAPH and path.is_file() and not has_card(path)


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
    from ..core.models.own_code import code_network, logits_of

    architecture = parse_architecture(arch)
    usual = USUAL.get(architecture.family.name, OTHERWISE)
    height, width = size or usual.input.shape[:2]
    channels = usual.input.channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if architecture.code is not None:
            network = code_network(
                architecture.code,
                in_channels=channels,
                classes=usual.classes,
                size=(height, width),
                any_classes=True,
            ).eval()
        else:
            network = build_network(arch, in_channels=channels, classes=usual.classes).eval()
        with torch.inference_mode():
            classes = logits_of(network(torch.zeros(1, channels, height, width))).shape[1]
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


def _with_preprocessing(path: Path, folder: Path, size: tuple[int, int] | None) -> SpeedModel:
    """Write a graph of another program with pixels / 255 in front of it."""
    from ..export.foreign_graph import read_foreign_graph
    from ..export.import_onnx import class_count
    from .import_graph import import_graph

    foreign = read_foreign_graph(path)
    height, width, channels = foreign.image_shape
    if size is not None and (height or size[0], width or size[1]) != size:
        raise UsageError(f"{path}: --image-size: it takes images of {height} x {width}, which cannot be changed")
    if (height is None or width is None) and size is None:
        raise UsageError(f"{path}: takes images of any size; name one: --image-size N or HxW")
    chosen = Input(*(size or (height or 0, width or 0)), channels or 3)
    classes = tuple(f"class {number}" for number in range(class_count(foreign, path, chosen)))
    steps = Preprocessing((0.0,) * chosen.channels, (1.0,) * chosen.channels)
    made = import_graph(path, classes=classes, preprocessing=steps, size=chosen, out=folder)
    remark = (
        f"graph of {foreign.producer}, with pixels / 255 in front: {_text_of(chosen)} images, {len(classes):,} classes"
    )
    return SpeedModel(ModelFiles(made.card.name, graph=made.path), (remark,))


def _text_of(size: Input) -> str:
    return " x ".join(map(str, size.shape))
