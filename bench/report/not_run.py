"""What did not run in a benchmark and why: each cause once, with everything that it stopped."""

import re
from collections.abc import Iterable

from ..config import SCOPES
from .report import Report
from .series import split_label

PATH_BY_HASH = re.compile(r"[^\s:;,]*[0-9a-f]{16,}[^\s:;,]*")
"""A file of the cache. Its name differs from one precision to the next, and says nothing to people."""


def not_run(report: Report) -> dict[str, str]:
    """The cause by the labels that share it: backends that did not run, then cells that failed or were rejected."""
    named = [(f"{cell.label}, {SCOPES[cell.scope].column}, batch {cell.batch:,}", cell) for cell in report.cells]
    groups = (
        ("not run: ", report.unusable.items()),
        ("failed: ", [(name, cell.error) for name, cell in named if cell.error]),
        ("", [(name, cell.rejected) for name, cell in named if cell.rejected]),
    )
    return {names: f"{start}{cause}" for start, causes in groups for names, cause in _merged(causes).items()}


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
