"""The cache of engines in the user's cache folder; the key of an engine is a hash of everything it is built from.

Each engine has one folder, named by its key, with the plan and its JSON. A rename makes the folder appear whole or
not at all. Plans are not byte-reproducible, so the key is never the hash of the plan.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, OutputError
from ..files import make_folder
from ..paths import cache_dirs, cache_path
from ..text import wrapped
from .engine import SUFFIX, EngineInfo, engine_problem, json_path, read_engine_info, write_engine

_log = logging.getLogger(__name__)

KEY_LENGTH = 32
"""Number of hexadecimal digits of the SHA-256 in a folder's name."""
ENGINES, TIMINGS, KERNELS = "engines", "timings", "rtx"
"""Folders of the cache. Timings: TensorRT measures them while it builds. rtx: kernels that TensorRT-RTX compiles."""


@dataclass(frozen=True)
class CachedEngine:
    """One entry in the cache."""

    key: str
    engine: Path
    bytes: int
    """Size of plan and JSON."""
    modified_at: float
    """Seconds since 1970."""
    info: EngineInfo | None
    problem: str
    """Reason why the engine cannot be used, or empty."""


def engine_folder(key: str) -> Path:
    """Return the folder of the cached engine with that key. It may not exist yet. Raises OutputError."""
    return cache_path(ENGINES, key)


def engine_key(
    *,
    graph_sha256: str,
    opt_batch: int,
    max_batch: int,
    flavor: str,
    version: str,
    hardware: tuple[str, ...],
    options: dict[str, Any],
) -> str:
    """Return the key of an engine that is built from these parts.

    `hardware`: GPU name and compute capability, or the compute capabilities that the engine is built for.
    """
    parts = {
        "graph": graph_sha256,
        "profile": [1, opt_batch, max_batch],
        "tensorrt": [flavor, version],
        "hardware": hardware,
        "options": options,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]


def key_of(info: EngineInfo) -> str:
    """Return the key of an engine by the JSON beside it."""
    return engine_key(
        graph_sha256=info.graph_sha256,
        opt_batch=info.profile.opt_batch,
        max_batch=info.profile.max_batch,
        flavor=info.flavor,
        version=info.version,
        hardware=info.targets or (info.gpu, info.compute_capability),
        options=info.options,
    )


def find_engine(key: str) -> Path | None:
    """Return the cached engine with that key, or None, after checking that its bytes and its JSON are those of the key.

    A damaged entry, or one with another engine in it, is removed, and a line of the log says so.
    """
    for folder in (parent / ENGINES / key for parent in cache_dirs()):
        if folder.is_dir():
            engine = _engine_in(folder)
            problem = cached_problem(engine) if engine else "no engine in the folder"
            if engine is not None and not problem:
                return engine
            _log.warning(wrapped(f"{engine or folder}: {problem}; it is removed from the cache"))
            shutil.rmtree(folder, ignore_errors=True)
    return None


def cached_problem(engine: Path) -> str:
    """The reason why an engine in the cache cannot be used; empty if the plan, its JSON and its folder's name fit."""
    problem = engine_problem(engine)
    if not problem and key_of(read_engine_info(engine)) != engine.parent.name:
        return "another engine than its folder is named for: its JSON has other properties"
    return problem


def cache_engine(key: str, stem: str, plan: bytes, info: EngineInfo) -> Path:
    """Write an engine into the cache as `stem`.engine and return its path. Raises OutputError."""
    folder = engine_folder(key)
    parent = make_folder(folder.parent)
    try:
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
        try:
            write_engine(fresh / f"{stem}{SUFFIX}", plan, info)
            fresh.chmod(0o755)
            with contextlib.suppress(OSError):  # another process was faster; its engine is the same
                fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{parent}: cannot be written: {error.strerror or error}") from error
    cached = _engine_in(folder)
    if cached is None or cached_problem(cached):
        raise OutputError(f"{folder}: this damaged cache entry cannot be replaced; run: rtk cache clear")
    return cached


def cached_engines() -> list[CachedEngine]:
    """List the cached engines, the newest first. Every plan is read and compared with its SHA-256."""
    entries = [_entry(folder) for folder in _folders()]
    return sorted(entries, key=lambda entry: entry.modified_at, reverse=True)


def _entry(folder: Path) -> CachedEngine:
    files = [path for path in folder.iterdir() if path.is_file()]
    engine = _engine_in(folder)
    info = None
    if engine is None:
        problem = "no engine in the folder"
    else:
        problem = cached_problem(engine)
        with contextlib.suppress(ArtifactError):
            info = read_engine_info(engine)
    return CachedEngine(
        key=folder.name,
        engine=engine or folder,
        bytes=sum(path.stat().st_size for path in files),
        modified_at=max((path.stat().st_mtime for path in files), default=folder.stat().st_mtime),
        info=info,
        problem=problem,
    )


def _engine_in(folder: Path) -> Path | None:
    engines = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    return next((engine for engine in engines if json_path(engine).exists()), engines[0] if engines else None)


def _folders() -> Iterator[Path]:
    for root in (parent / ENGINES for parent in cache_dirs()):
        if root.is_dir():
            yield from (path for path in sorted(root.iterdir()) if path.is_dir() and path.name[:1] != ".")
