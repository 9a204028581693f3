"""The files behind a model's name, its card, and the checkpoint that it answers to."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.artifacts.engine import read_engine_info
from ..core.card import ModelCard
from ..core.errors import ArtifactError, UnknownNameError
from ..core.files import sha256_of
from ..core.zoo import zoo_card, zoo_file, zoo_names

if TYPE_CHECKING:
    pass


KINDS = {".pt": "checkpoint", ".onnx": "graph", ".engine": "engine"}


@dataclass(frozen=True)
class ModelFiles:
    """The files behind a model's name; those that are not there are None."""

    name: str
    checkpoint: Path | None = None
    graph: Path | None = None
    engine: Path | None = None

    @property
    def in_zoo(self) -> bool:
        """Whether it is a model of the zoo, by its name."""
        return self.checkpoint == zoo_file(self.name, ".pt")

    @property
    def given(self) -> Path:
        """The file that was named; for a model of the zoo, its checkpoint."""
        path = self.checkpoint or self.graph or self.engine
        assert path is not None
        return path


def find_model(name: str) -> ModelFiles:
    """A file of rtk's, by path, or a model of the zoo, by name.

    Raises ArtifactError for a missing file or another kind of file, UnknownNameError for a name of nothing.
    """
    path = Path(name)
    in_zoo = path.stem if path == zoo_file(path.stem, ".pt") else name
    if in_zoo in zoo_names():
        return ModelFiles(in_zoo, checkpoint=zoo_file(in_zoo, ".pt"), graph=zoo_file(in_zoo, ".onnx"))
    if path.suffix in KINDS:
        if not path.is_file():
            raise ArtifactError(f"{path}: no such {KINDS[path.suffix]}")
        return ModelFiles(path.stem, **{KINDS[path.suffix]: path})
    if path.exists():
        raise ArtifactError(f"{path}: not a model; expected a checkpoint (.pt), a graph (.onnx) or an engine (.engine)")
    raise UnknownNameError("model", name, zoo_names(), hint=f"expected a file, or one of: {', '.join(zoo_names())}")


def read_card(found: ModelFiles) -> ModelCard:
    """The card of whatever was found; a checkpoint's needs torch, a graph's needs onnx."""
    if found.in_zoo:
        return zoo_card(found.name)
    if found.checkpoint:
        from ..core.artifacts.checkpoint import load_checkpoint

        return load_checkpoint(found.checkpoint).card
    if found.graph:
        from ..core.artifacts.graph import load_graph

        return load_graph(found.graph)[1]
    return read_engine_info(found.given).card


def find_reference(found: ModelFiles, *, explicit: Path | None = None) -> Path:
    """The checkpoint that a model answers to: itself, or looked up by its sha256 beside the file, then in the zoo.

    Raises ArtifactError when there is none, or when `explicit` has another sha256 than the card says.
    """
    if explicit is not None:
        if not explicit.is_file():
            raise ArtifactError(f"{explicit}: no such checkpoint")
        return explicit
    if found.checkpoint:
        return found.checkpoint
    wanted = read_card(found).checkpoint_sha256
    beside = sorted(found.given.parent.glob("*.pt"))
    for path in (*beside, *(zoo_file(name, ".pt") for name in zoo_names())):
        if path.is_file() and sha256_of(path) == wanted:
            return path
    raise ArtifactError(
        f"{found.given}: its checkpoint (sha256 {wanted[:12]}...) is neither beside it nor in the zoo; "
        "name it with --reference FILE"
    )
