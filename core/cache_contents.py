"""What lies in the cache besides engines: graphs, downloads, and records of earlier runs."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .artifacts.engine_cache import ENGINES, KERNELS, TIMINGS
from .artifacts.graph_cache import GRAPHS, NAME, cached_graphs, graph_problem
from .artifacts.parity_cache import FOLDER as PARITY
from .data.datasets import CIFAR10_ARCHIVE, CIFAR10_FOLDER, CIFAR10_SHA256, FASHION_MNIST_MD5, unpacked_problem
from .data.download import download_problem
from .data.own.pixel_cache import DATASETS_FOLDER
from .errors import ArtifactError, OutputError
from .models.names import PUBLISHED, published_checksum
from .paths import cache_dirs
from .sealed_files import SUFFIX as SEALED
from .sealed_files import sealed_problem

DATA = "data"
FOLDERS = {
    ENGINES: "engines",
    GRAPHS: "graphs",
    DATASETS_FOLDER: "decoded images of own data sets",
    DATA: "downloaded data sets and weights",
    PARITY: "results of the parity gate",
    TIMINGS: "timings of TensorRT's builder",
    KERNELS: "kernels of TensorRT for RTX",
    "matplotlib": "fonts of Matplotlib",
    "triton": "kernels of torch.compile",
    "opened": "engines of an earlier rtk",
}
"""Everything that rtk keeps in the cache: the folders, and what is in each."""
LISTED_ALONE = (ENGINES, GRAPHS)
"""Folders whose files `rtk cache` lists and counts one by one."""
CHECKSUMS = (
    {CIFAR10_ARCHIVE: f"sha256:{CIFAR10_SHA256}"}
    | {name: f"md5:{md5}" for name, md5 in FASHION_MNIST_MD5.items()}
    | {file: published_checksum(file) for files in PUBLISHED.values() for file in files.values()}
)
"""Of downloads, by file name."""


@dataclass(frozen=True)
class CacheFolder:
    """One of FOLDERS."""

    name: str
    path: Path
    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self.files)


def cache_folders() -> list[CacheFolder]:
    """List the folders in the cache that hold files; hidden files are unfinished and belong to a folder too."""
    found = [(name, parent / name) for parent in cache_dirs() for name in FOLDERS]
    folders = [CacheFolder(name, path, tuple(sorted(filter(Path.is_file, path.rglob("*"))))) for name, path in found]
    return [folder for folder in folders if folder.files]


def checked_files() -> Iterator[tuple[Path, str]]:
    """Yield the files that can be checked, except engines, each with its problem or an empty text."""
    for graph in cached_graphs():
        yield graph, (graph_problem(graph) if NAME.fullmatch(graph.name) else "") or _content_problem(graph)
    for folder in cache_folders():
        for path in folder.files:
            if folder.name == PARITY and path.suffix == ".json":
                yield path, _json_problem(path)
            elif folder.name == DATA and path.name in CHECKSUMS:
                yield path, download_problem(path, checksum=CHECKSUMS[path.name])
            elif folder.name == DATA and path.parent.name == CIFAR10_FOLDER and path.suffix == ".bin":
                yield path, unpacked_problem(path)
            elif path.suffix == SEALED:
                yield path, sealed_problem(path)


def clear_cache() -> tuple[list[CacheFolder], int]:
    """Remove everything that rtk keeps in the cache; other files there stay.

    Returns what was removed, and its size in bytes. Raises OutputError when a folder cannot be removed.
    """
    folders = cache_folders()
    size = sum(folder.bytes for folder in folders)
    for path in (parent / name for parent in cache_dirs() for name in FOLDERS):
        try:
            if path.is_dir():
                shutil.rmtree(path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be removed: {error.strerror or error}") from error
    return folders, size


def _content_problem(graph: Path) -> str:
    from .artifacts.graph import load_graph

    try:
        load_graph(graph)
    except ArtifactError as error:
        return str(error).removeprefix(f"{graph}: ")
    return ""


def _json_problem(path: Path) -> str:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        return f"not JSON: {error}"
    return ""
