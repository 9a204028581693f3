"""Find the files of a model by its name, read its card, and find its reference checkpoint."""

import contextlib
import logging
import shlex
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

from ..core.artifacts.engine import read_engine_info
from ..core.card import ModelCard
from ..core.errors import ArtifactError, UnknownNameError
from ..core.file_names import WEIGHT_SUFFIXES
from ..core.files import sha256_of
from ..core.text import wrapped
from ..core.urls import url_problem
from ..core.zoo import zoo_card, zoo_file, zoo_names

_log = logging.getLogger(__name__)

GRAPH = ".onnx"
KINDS = {".pt": "checkpoint", ".onnx": "graph", ".engine": "engine"}

NO_NETWORK = "torch: the model was imported as a graph, so there is no network for PyTorch; use onnx, openvino or trt"
NAME_IT = "put it there, or name it instead of this file"
"""Advice for commands without --reference."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model; those that it does not have are None."""

    name: str
    checkpoint: Path | None = None
    graph: Path | None = None
    engine: Path | None = None

    @property
    def in_zoo(self) -> bool:
        """Whether this is a model of the zoo."""
        return self.checkpoint == zoo_file(self.name, ".pt")

    @property
    def given(self) -> Path:
        """The file that the user named; for a model of the zoo, its checkpoint."""
        path = self.checkpoint or self.graph or self.engine
        assert path is not None
        return path

    @cached_property
    def card(self) -> ModelCard:
        """The card, read once. Reading it from a checkpoint needs torch, from a graph onnx. Raises ArtifactError."""
        if self.in_zoo:
            return zoo_card(self.name)
        if self.checkpoint:
            from ..core.artifacts.checkpoint import load_checkpoint

            return load_checkpoint(self.checkpoint).card
        if self.graph:
            from ..core.artifacts.graph import load_graph

            return load_graph(self.graph)[1]
        return read_engine_info(self.given).card


def find_model(name: str) -> ModelFiles:
    """Find a checkpoint, graph or engine by its path, or a model of the zoo by its name.

    Raises ArtifactError for a missing file or another kind of file, UnknownNameError for any other name.
    """
    path = Path(name)
    in_zoo = path.stem if path == zoo_file(path.stem, ".pt") else name
    if in_zoo in zoo_names():
        return ModelFiles(in_zoo, checkpoint=zoo_file(in_zoo, ".pt"), graph=zoo_file(in_zoo, ".onnx"))
    if (problem := url_problem(name)) and not path.exists():
        raise ArtifactError(f"{name}: {problem}")
    if path.suffix in KINDS:
        if not path.is_file():
            raise ArtifactError(f"{path}: no such {KINDS[path.suffix]}")
        return ModelFiles(path.stem, **{KINDS[path.suffix]: path})
    if path.is_file() and not {suffix.lower() for suffix in path.suffixes}.isdisjoint(WEIGHT_SUFFIXES):
        raise ArtifactError(_of_weights(path))
    if path.exists():
        raise ArtifactError(f"{path}: not a model; expected a checkpoint (.pt), a graph (.onnx) or an engine (.engine)")
    raise UnknownNameError("model", name, zoo_names(), hint=f"expected a file, or one of: {', '.join(zoo_names())}")


def _of_weights(path: Path) -> str:
    """What is wrong with a weight file where a model is expected, and the command that makes a checkpoint of it.

    Raises ArtifactError if it is damaged or holds no weights.
    """
    if find_spec("torch") is None:
        return f"{path}: a weight file, not a checkpoint of rtk; reading it needs PyTorch"
    from ..core.artifacts.weight_advice import import_command
    from ..core.artifacts.weight_files import read_weight_file

    file = read_weight_file(path, expected="a checkpoint of rtk or weights")
    if file.of_rtk:
        return f"{path}: a checkpoint of rtk under another suffix; rename it: {path.with_suffix('.pt').name}"
    return f"{path}: a weight file, not a checkpoint of rtk; to make one: {import_command(path, file.states)}"


def read_card(found: ModelFiles) -> ModelCard:
    """Return the card of a model; its file is read once. Raises ArtifactError."""
    return found.card


def find_reference(
    found: ModelFiles,
    *,
    explicit: Path | None = None,
    advice: str = "name it with --reference FILE",
    force: bool | None = None,
) -> Path:
    """Return what parity compares a model with: `explicit`, or the checkpoint that it was exported from.

    Of an imported graph, and of what comes from it, it is the imported graph. It is found by the sha256 in the card,
    first in the folder of the file, then in the zoo. Raises ArtifactError, which ends with `advice`, if it is missing.
    `force`: accept another checkpoint as the explicit one; None: the command has no such option.
    """
    if explicit is not None:
        _check_reference(explicit, found, force=force)
        return explicit
    path = found.checkpoint or _own_checkpoint(found)
    if path is None:
        card = read_card(found)
        sha256 = card.checkpoint_sha256
        if card.from_graph:
            raise ArtifactError(
                f"{found.given}: the imported graph that it comes from (sha256 {sha256[:12]}...) is not beside it, or "
                f"has changed since its import; {advice}"
            )
        raise ArtifactError(
            f"{found.given}: its checkpoint (sha256 {sha256[:12]}...) is neither beside it nor in the zoo; {advice}"
        )
    return path


def check_card(found: ModelFiles) -> None:
    """Raise ArtifactError if the card of a graph or an engine contradicts that of its checkpoint.

    A checkpoint that is neither beside the file nor in the zoo is not compared, and without torch only the zoo's is.
    """
    path = None if found.checkpoint else _own_checkpoint(found)
    if path is None:
        return
    reference = find_model(str(path))
    if reference.checkpoint and not reference.in_zoo and find_spec("torch") is None:
        return
    different = " and ".join(read_card(found).differences_from(read_card(reference)))
    if different:
        raise ArtifactError(
            f"{found.given}: its card has other {different} than its checkpoint, {path}; "
            f"export that again: rtk export {shlex.quote(str(path))}"
        )


def _own_checkpoint(found: ModelFiles) -> Path | None:
    """The checkpoint that a graph or an engine was exported from, if it is beside the file or in the zoo.

    Of what comes from an imported graph, that graph: the file itself, or one beside it.
    """
    card = read_card(found)
    sha256 = card.checkpoint_sha256
    if card.from_graph:
        graphs = sorted(found.given.parent.glob("*.onnx"), key=lambda path: path != found.given)
        return next((path for path in graphs if is_imported_graph(path, sha256)), None)
    neighbours = [path for path in sorted(found.given.parent.glob("*.pt")) if path.is_file()]
    for path in (*neighbours, *(zoo_file(name, ".pt") for name in zoo_names())):
        if file_sha256(path) == sha256:
            return path
    return next((path for path in neighbours if is_checkpoint(path, sha256)), None)


def is_checkpoint(path: Path, sha256: str) -> bool:
    """Whether a checkpoint is the one that a card names: by its own SHA-256, or by that before it got a temperature.

    Without torch, which reads the latter, only by its own. A damaged file is not.
    """
    if path.suffix == GRAPH:
        return is_imported_graph(path, sha256)
    if file_sha256(path) == sha256:
        return True
    with contextlib.suppress(ArtifactError):
        return find_spec("torch") is not None and _named_sha256(path, file_sha256(path)) == sha256
    return False


def is_imported_graph(path: Path, sha256: str) -> bool:
    """Whether a file is the imported graph that a card names, unchanged since the import. A damaged file is not.

    Most files are told apart by their card alone, without loading them.
    """
    from ..core.artifacts.graph_card import CARD_KEY, metadata_of

    with contextlib.suppress(ArtifactError, OSError):
        text = metadata_of(path).get(CARD_KEY)
        card = ModelCard.from_json(text, source=str(path)) if text else None
        if card is None or not card.from_graph or (card.checkpoint_sha256, card.precision) != (sha256, "fp32"):
            return False
        return _sha256_without_card(path, file_sha256(path)) == sha256
    return False


@lru_cache(maxsize=1_024)
def _sha256_without_card(path: Path, file_sha256: str) -> str:
    """The SHA-256 of a graph without its card. `file_sha256`: its own; if it changes, the file is read again."""
    from ..core.artifacts.graph import load_graph, sha256_without_card

    del file_sha256
    return sha256_without_card(load_graph(path)[0])


@lru_cache(maxsize=1_024)
def _named_sha256(path: Path, file_sha256: str) -> str:
    """The SHA-256 by which exports name a checkpoint. `file_sha256`: its own; if it changes, the file is read again."""
    from ..core.artifacts.checkpoint import load_checkpoint

    del file_sha256
    return load_checkpoint(path).card.checkpoint_sha256


def _check_reference(path: Path, found: ModelFiles, *, force: bool | None) -> None:
    """Raise ArtifactError if a file that the user named is not the model's checkpoint.

    With `force` it may be another checkpoint, with the same classes, input and preprocessing; a line says so.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: {url_problem(str(path)) or 'no such checkpoint; expected a .pt file'}")
    if path.suffix == GRAPH and read_card(found).from_graph:
        if not is_imported_graph(path, read_card(found).checkpoint_sha256):
            raise ArtifactError(
                f"{path}: --reference: is not the graph that {found.given} was imported as, or has changed since"
            )
        return
    if path.suffix != ".pt":
        raise ArtifactError(f"{path}: --reference: expected a checkpoint that rtk train wrote, whose suffix is .pt")
    from ..core.artifacts.checkpoint import load_checkpoint

    card, model = load_checkpoint(path).card, read_card(found)
    different = " and ".join(card.differences_from(model))
    if different:
        raise ArtifactError(
            f"{path}: --reference: it has other {different} than {found.given}; expected the checkpoint of this"
        )
    if card.checkpoint_sha256 == model.checkpoint_sha256:
        return
    other = (
        f"{path}: --reference: its sha256 is {card.checkpoint_sha256[:12]}..., the checkpoint of {found.given} has "
        f"{model.checkpoint_sha256[:12]}..."
    )
    if not force:
        raise ArtifactError(f"{other}; name that one{'' if force is None else ', or add --force to compare anyway'}")
    _log.warning(wrapped(f"{other}; they are compared because of --force"))


def named_file(path: Path) -> str:
    """A file by its path and the beginning of its SHA-256, for the log."""
    return f"{path} (sha256 {file_sha256(path)[:12]})"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, which is read once per process unless it changes."""
    status = path.stat()
    return _sha256_of_version(path.resolve(), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1_024)
def _sha256_of_version(path: Path, inode: int, size: int, mtime_ns: int) -> str:
    return sha256_of(path)
