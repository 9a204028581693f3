"""The files that an export writes: how they are named, and that they replace no file of another model."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from ..core.artifacts.engine import SUFFIX
from ..core.card import ModelCard
from ..core.errors import ArtifactError, UsageError
from ..core.file_names import named_after
from .models import KINDS, ModelFiles

INSTEAD = "choose another name with --name, or replace it with --force"


@dataclass(frozen=True)
class ExportFiles:
    """The files of one export; those that it does not write are None."""

    stem: str
    """The name of the graph and the engine: NAME, or NAME.PRECISION if that is not fp32."""
    checkpoint: Path | None
    """An ensemble's."""
    graph: Path | None
    engine: Path | None
    triton: Path | None
    """The folder of the model in a model repository."""

    def check(self, source: ModelFiles) -> None:
        """Raise UsageError if one of them exists and is of another model than the one that is exported."""
        for path in (self.checkpoint, self.graph, self.engine):
            if path is not None and path.exists():
                check_same_model(path, source.card)
        if self.triton is not None and self.triton.exists():
            _check_triton(self.triton, source.card)


def export_files(
    source: ModelFiles,
    folder: Path,
    *,
    name: str | None,
    precision: str | None,
    trt: bool,
    triton: Path | None,
    is_ensemble: bool = False,
) -> ExportFiles:
    """Return the files of an export. `name`: the one that the user chose. `triton`: the model repository.

    Raises ArtifactError if the card, which may have the name, cannot be read.
    """
    from ..export.triton import model_folder

    exports = source.checkpoint is not None or converts(source, precision)
    if exports:
        precision, own = precision or "fp32", source.name if source.in_zoo else _own_name(source)
    elif trt:  # the engine of a graph has the graph's name: by it rtk says what to build the engine from again
        precision, own = source.card.precision, source.name
    else:
        precision, own = source.card.precision, _own_name(source)
    stem = own if not (name or exports) else _with_precision(name or own, precision)
    return ExportFiles(
        stem,
        checkpoint=folder / source.given.name if is_ensemble else None,
        graph=folder / f"{stem}.onnx" if exports else None,
        engine=folder / f"{stem}{SUFFIX}" if trt else None,
        triton=model_folder(triton, name_in_triton(stem, source, name)) if triton else None,
    )


def converts(source: ModelFiles, precision: str | None) -> bool:
    """Whether an export of these files in that precision makes a graph of an imported graph."""
    if source.checkpoint or source.graph is None or precision in (None, "fp32"):
        return False
    return source.card.from_graph and source.card.precision == "fp32"


def name_in_triton(stem: str, source: ModelFiles, name: str | None) -> str:
    """Return the name of a Triton model from the stem of its file: never that of any run's files, unless chosen."""
    return stem if name else named_after(stem, lambda: source.card.name)


def _own_name(source: ModelFiles) -> str:
    """The stem of the file; if that is the one of any run's checkpoints, the name in the card."""
    return named_after(source.name, lambda: source.card.name)


def _with_precision(name: str, precision: str) -> str:
    return name if precision == "fp32" else f"{name}.{precision}"


def check_same_model(path: Path, card: ModelCard, *, instead: str = INSTEAD) -> None:
    """Raise UsageError if the file is not of the card's model: the checkpoint that it comes from decides.

    `instead`: what to do then, as advice.
    """
    found = None
    with contextlib.suppress(ArtifactError):
        found = ModelFiles(path.stem, **{KINDS[path.suffix]: path}).card
    if found is None:
        raise UsageError(f"{path}: exists, and is damaged or not of rtk; {instead}")
    if found.checkpoint_sha256 != card.checkpoint_sha256:
        raise UsageError(
            f"{path}: holds another model, {found.name} of checkpoint {found.checkpoint_sha256[:12]}..., "
            f"not {card.checkpoint_sha256[:12]}...; {instead}"
        )


def _check_triton(folder: Path, card: ModelCard) -> None:
    """Raise UsageError if the folder holds another model than the card's."""
    from ..export.triton import checkpoint_in

    if folder.is_dir() and not any(folder.iterdir()):
        return
    sha256 = checkpoint_in(folder)
    if not sha256:
        raise UsageError(f"{folder}: exists, and does not name the checkpoint of its model; {INSTEAD}")
    if sha256 != card.checkpoint_sha256:
        raise UsageError(
            f"{folder}: holds another model, of checkpoint {sha256[:12]}..., not {card.checkpoint_sha256[:12]}...; "
            f"{INSTEAD}"
        )
