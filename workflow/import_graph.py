"""Make an ONNX classifier of another program a graph of rtk's, which is its own reference from then on.

Its card has, as the SHA-256 of the checkpoint that it comes from, that of the graph itself without the card. Everything
that is derived from it has the same, so its reference is found as a checkpoint is: see models.py.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.card import IMPORTED, Input, ModelCard, Preprocessing
from ..core.data.options import Fit
from ..core.errors import UsageError
from ..core.file_names import check_name, safe_name
from ..core.files import make_folder, write_whole
from ..core.library_errors import translated_errors
from ..core.machine import this_machine
from ..core.text import first_few, wrapped
from .export_files import check_same_model

if TYPE_CHECKING:
    from ..export.foreign_graph import Foreign
    from ..export.import_onnx import ImportedGraph

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported:
    """A graph of another program that has become one of rtk's."""

    path: Path
    card: ModelCard
    largest_difference: float
    """Of its logits from the original's, over a few generated images in batches of several sizes."""

    def summary(self) -> str:
        """What was found, in one line."""
        found = self.card.notes[IMPORTED]
        batch = "any batch" if found["batch"] is None else f"batches of {found['batch']}, now any"
        return (
            f"{found['file']}: {found['kind']} of {len(self.card.classes):,} classes, {batch}, opset {found['opset']}, "
            f"made by {found['producer']}; largest difference from it: {self.largest_difference:.2g}"
        )


def import_graph(
    path: Path,
    *,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    size: Input,
    fit: Fit = "crop",
    name: str | None = None,
    out: Path | None = None,
    output: str | None = None,
    dataset: str = "",
    force: bool = False,
) -> Imported:
    """Write NAME.onnx into the folder `out`: uint8 images of `size` in, float32 logits out, with a card.

    `name`: default, that of the file; `out`: default, its folder; `output`: the output of the graph that has the
    logits, if several could; `dataset`: what `rtk bench` and the gate use without --dataset; `force`: replace a file of
    another model. Raises UsageError for what does not fit the graph, ArtifactError for a graph that rtk cannot take,
    OutputError.
    """
    from ..core.artifacts.graph import set_card, sha256_without_card
    from ..export.foreign_graph import read_foreign_graph
    from ..export.import_onnx import imported_graph

    _check_classes(classes)
    if name is not None:
        check_name(name)
    foreign = read_foreign_graph(path)
    target = (out or path.parent) / f"{name or path.stem}.onnx"
    if target.exists() and target.samefile(path):
        raise UsageError(
            f"{path}: would be replaced by its import; choose another name with --name, or a folder: --out"
        )
    with translated_errors(f"{path}: not imported"):
        made = imported_graph(
            foreign, path, classes=len(classes), preprocessing=preprocessing, size=size, output=output
        )
    card = ModelCard(
        name=name or safe_name(path.stem) or "network",
        arch=f"onnx {path.name}",
        dataset=dataset,
        classes=classes,
        input=size,
        preprocessing=preprocessing,
        fit=fit,
        checkpoint_sha256=sha256_without_card(made.graph),
        notes={IMPORTED: _note(path, foreign, made)},
    )
    if target.exists() and not force:
        check_same_model(target, card)
    set_card(made.graph, card)
    make_folder(target.parent)
    write_whole(target, made.graph.SerializeToString())
    imported = Imported(target, card, made.largest_difference)
    _log.info(wrapped(imported.summary()))
    return imported


def _check_classes(classes: tuple[str, ...]) -> None:
    if not classes:
        raise UsageError("--classes: none; expected the names of the classes in the order of the logits")
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise UsageError(f"--classes: named more than once: {first_few(twice)}")


def _note(path: Path, foreign: "Foreign", made: "ImportedGraph") -> dict[str, object]:
    return {
        "file": path.name,
        "sha256": foreign.sha256,
        "producer": foreign.producer,
        "opset": foreign.opset,
        "opset_now": made.opset,
        "input": foreign.input,
        "layout": "N x H x W x C" if foreign.is_nhwc else "N x C x H x W",
        "precision": foreign.precision,
        "batch": foreign.batch,
        "output": made.output,
        "kind": made.kind,
        "largest_logit_difference": made.largest_difference,
        "libraries": this_machine().libraries,
    }
