"""The models that are part of rtk: NAME.pt (checkpoint), NAME.onnx (graph), NAME.json (card), all trained by rtk."""

from pathlib import Path

from ..card import ModelCard

FOLDER = Path(__file__).parent
DEFAULT = "resnet20v1-cifar10"


def zoo_names() -> list[str]:
    """Return the names of the models, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def zoo_card(name: str) -> ModelCard:
    """Read the card of a model of the zoo; its `checkpoint_sha256` is that of NAME.pt."""
    path = FOLDER / f"{name}.json"
    return ModelCard.from_json(path.read_text(encoding="utf-8"), source=str(path))


def zoo_file(name: str, suffix: str) -> Path:
    """Return the path of NAME.pt or NAME.onnx."""
    return FOLDER / f"{name}{suffix}"
