"""What did not run in a benchmark and why: each cause once, with everything that it stopped."""

import re
from collections.abc import Iterable, Sequence

from ..config import SCOPES
from ..measure.cell import Cell
from .report import Report
from .series import split_label

PATH_BY_HASH = re.compile(r"[^\s:;,]*[0-9a-f]{16,}[^\s:;,]*")
"""A file of the cache. Its name differs from one precision to the next, and says nothing to people."""


def not_run(report: Report) -> dict[str, str]:
    """The cause by the labels that share it: backends that did not run, then cells that failed or were rejected."""
    backends = {names: f"not run: {cause}" for names, cause in _merged(report.unusable.items()).items()}
    return backends | cells_without_figures(report.cells)


def cells_without_figures(cells: Sequence[Cell]) -> dict[str, str]:
    """Why cells failed or were rejected, by the names of the cells that share the cause."""
    named = [(f"{cell.label}, {SCOPES[cell.scope].column}, batch {cell.batch:,}", cell) for cell in cells]
    failed = _merged((name, cell.error) for name, cell in named if cell.error)
    rejected = _merged((name, cell.rejected) for name, cell in named if cell.rejected)
    return {names: f"failed: {cause}" for names, cause in failed.items()} | rejected


def _merged(causes: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Group labels whose causes are the same but for the names of the backend, the precision or a cached file."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for label, cause in causes:
        groups.setdefault(_general(label, cause), []).append((label, _without_name(label, cause)))
    merged = {}
    for general, members in groups.items():
        own = {cause for _, cause in members}
        merged["; ".join(_labels([label for label, _ in members]))] = own.pop() if len(own) == 1 else general
    return merged


def _labels(labels: list[str]) -> list[str]:
    """Labels of backends share a comma; those of cells, which contain commas, need more."""
    return labels if any("," in label for label in labels) else [", ".join(labels)]


def _without_name(label: str, cause: str) -> str:
    """The cause without the backend and the precision at its beginning, which the label says already."""
    backend, precision = split_label(label.partition(",")[0])
    cause = cause.removeprefix(f"{backend} {precision}: ").removeprefix(f"{backend}: ")
    return cause.removeprefix(f"{precision}: ")


def _general(label: str, cause: str) -> str:
    """The cause in words that hold for other backends and precisions too."""
    backend, precision = split_label(label.partition(",")[0])
    text = PATH_BY_HASH.sub("its file", _without_name(label, cause))
    for name, general in ((backend, "this backend"), (precision, "this precision")):
        text = re.sub(rf"(?<![\w/.-]){re.escape(name)}(?![\w/-])", general, text)
    return text
