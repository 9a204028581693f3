"""Write a temperature into the card of a model's file, and into those of its exports beside it.

A checkpoint keeps the SHA-256 by which its exports name it (`ModelCard.checkpoint_sha256`), so that these still find
their reference. Weights, graphs and plans stay as they are: engines need not be built again. Every file is written
whole or not at all.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..core import zoo
from ..core.artifacts.engine import json_path, read_engine_info, read_plan, write_engine
from ..core.artifacts.parity_cache import parity_is_known, remember_parity
from ..core.card import ModelCard, TemperatureFit
from ..core.errors import ArtifactError, UsageError
from ..core.files import locked, make_writable_folder, sha256_of, write_whole
from ..core.paths import cache_dirs
from ..core.text import wrapped
from .export_files import check_same_model
from .models import ModelFiles

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Temperature:
    """A temperature and what it was fitted on."""

    value: float
    fit: TemperatureFit

    def in_card(self, card: ModelCard) -> ModelCard:
        """The card with this temperature."""
        return replace(card, temperature=self.value, temperature_fit=self.fit)


def target_of(found: ModelFiles, out: Path | None) -> Path:
    """Return the file that a temperature is written into: the model's own, or `out`, before any work.

    Raises UsageError for a file of rtk itself without `out`, for an `out` of another kind or of another model;
    OutputError if files cannot be written there.
    """
    source = found.given
    own = [("the zoo", zoo.FOLDER), *(("rtk's cache", folder) for folder in cache_dirs())]
    where = next((name for name, folder in own if folder.resolve() in source.resolve().parents), "")
    if out is None and where:
        raise UsageError(
            f"{found.name}: a file of {where}, which stays as it is; write a copy that has the temperature: "
            f"--out {found.name}{source.suffix}"
        )
    target = out or source
    if target.suffix != source.suffix or target.is_dir():
        raise UsageError(f"--out {target}: expected the name of a {source.suffix} file, as {source.name} is one")
    if target.exists():
        check_same_model(target, found.card, instead="choose another --out")
    make_writable_folder(target.parent)
    return target


def write_temperature(found: ModelFiles, target: Path, temperature: Temperature) -> list[Path]:
    """Write the model with this temperature into `target`, and return all files that were written, `target` first.

    If that is the model's own file, its exports beside it get the temperature too, unless they have one of their own.
    Raises ArtifactError, and OutputError if a training writes there or the disk is full.
    """
    before, source = found.card, found.given
    graph_sha256 = sha256_of(source)
    with locked(target.parent):
        _write(source, target, temperature)
        if target.resolve() != source.resolve():
            return [target]
        renamed = {graph_sha256: sha256_of(target)}
        exports = [path for suffix in (".onnx", ".engine") for path in sorted(target.parent.glob(f"*{suffix}"))]
        written = [target]
        for path in exports:
            if path.resolve() != target.resolve() and _is_export(path, found, graph_sha256, before):
                earlier = sha256_of(path)
                _write(path, path, temperature, renamed=renamed)
                renamed[earlier] = sha256_of(path)
                written.append(path)
    return written


def _is_export(path: Path, found: ModelFiles, source_sha256: str, before: ModelCard) -> bool:
    """Whether a file was made from the model, and has its temperature and none of its own."""
    try:
        card, origin = _card_and_origin(path)
    except ArtifactError:
        return False
    made_from_it = card.checkpoint_sha256 == before.checkpoint_sha256 if found.checkpoint else origin == source_sha256
    if not made_from_it:
        return False
    if (card.temperature, card.temperature_fit) != (before.temperature, before.temperature_fit):
        _log.warning(wrapped(f"{path}: keeps its own temperature, {card.temperature:.4g}"))
        return False
    return True


def _card_and_origin(path: Path) -> tuple[ModelCard, str]:
    """The card of a graph or an engine, and the SHA-256 of the graph that an engine was built from."""
    if path.suffix == ".onnx":
        from ..core.artifacts.graph import load_graph

        return load_graph(path)[1], ""
    info = read_engine_info(path)
    return info.card, info.graph_sha256


def _write(source: Path, target: Path, temperature: Temperature, *, renamed: dict[str, str] | None = None) -> None:
    """Write `source` with this temperature as `target`. `renamed`: new SHA-256 of graphs, by the old ones."""
    writers: dict[str, Callable[[], None]] = {
        ".pt": lambda: _write_checkpoint(source, target, temperature),
        ".onnx": lambda: _write_graph(source, target, temperature),
        ".engine": lambda: _write_engine(source, target, temperature, renamed or {}),
    }
    writers[source.suffix]()


def _write_checkpoint(source: Path, target: Path, temperature: Temperature) -> None:
    from ..core.artifacts.checkpoint import load_checkpoint, save_checkpoint

    loaded = load_checkpoint(source)  # its card has the SHA-256 by which exports name it, which is kept in the file
    save_checkpoint(target, temperature.in_card(loaded.card), loaded.weights, training=loaded.training)


def _write_graph(source: Path, target: Path, temperature: Temperature) -> None:
    from ..core.artifacts.graph import load_graph, set_card

    loaded, card = load_graph(source)
    known = parity_is_known(source, "openvino")
    set_card(loaded, temperature.in_card(card))
    write_whole(target, loaded.SerializeToString())
    if known:  # the same computation: what the parity gate found holds
        remember_parity(target, "openvino")


def _write_engine(source: Path, target: Path, temperature: Temperature, renamed: dict[str, str]) -> None:
    info = read_engine_info(source)
    graph_sha256 = renamed.get(info.graph_sha256, info.graph_sha256)
    changed = replace(info, card=temperature.in_card(info.card), graph_sha256=graph_sha256)
    if target.resolve() == source.resolve():
        write_whole(json_path(target), changed.to_json())
    else:
        write_engine(target, read_plan(source, info), changed)
