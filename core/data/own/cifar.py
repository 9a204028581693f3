"""CIFAR-10 and CIFAR-100 as their authors publish them: the binary version, and the Python version.

The Python version is a pickle, which can run any code when it is loaded. Here only the parts of NumPy that an array
consists of are allowed; anything else is an error.
"""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..official import CIFAR10_CLASSES, CIFAR10_ROW_BYTES

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images N x H x W x C, and labels N."""

MAX_BATCH_BYTES = 1 << 29
"""The largest pickle that is read; CIFAR-100's have 150 MB."""
_NUMPY = {"numpy.core.multiarray", "numpy._core.multiarray", "numpy"}
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, "ndarray"): np.ndarray for module in _NUMPY},
    **{(module, "dtype"): np.dtype for module in _NUMPY},
    **{(module, "_reconstruct"): np._core.multiarray._reconstruct for module in _NUMPY},  # type: ignore[attr-defined]
    ("_codecs", "encode"): lambda text, encoding="utf-8": text.encode(encoding),
}


class _ArraysOnly(pickle.Unpickler):
    """Loads dicts, lists, numbers, texts and arrays."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(f"its pickle asks for {module}.{name}; only arrays are loaded") from None


def cifar10_rows(path: Path) -> Arrays:
    """Read one file of CIFAR-10's binary version with any number of rows. Raises DataError."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if content.size == 0 or content.size % CIFAR10_ROW_BYTES:
        raise DataError(
            f"{path}: {content.size:,} bytes are not rows of {CIFAR10_ROW_BYTES:,}: truncated, or not CIFAR-10 binary"
        )
    rows = content.reshape(-1, CIFAR10_ROW_BYTES)
    labels_N = rows[:, 0].astype(np.int64)
    if labels_N.max() >= len(CIFAR10_CLASSES):
        raise DataError(f"{path}: label {labels_N.max()} found, expected 0 to 9; not CIFAR-10 binary")
    return _images(rows[:, 1:]), labels_N


def pickled_batch(content: bytes, source: str) -> Arrays:
    """Read a batch of the Python version, of CIFAR-10 or CIFAR-100. Raises DataError."""
    batch = _unpickled(content, source)
    labels = next((batch[key] for key in ("labels", "fine_labels") if key in batch), None)
    data = batch.get("data")
    if labels is None or not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
        raise DataError(f"{source}: not a batch of CIFAR; expected data of uint8 and labels")
    labels_N = np.asarray(labels)
    if data.shape[1:] != (CIFAR10_ROW_BYTES - 1,) or labels_N.shape != data.shape[:1] or labels_N.dtype.kind != "i":
        raise DataError(f"{source}: data {data.shape} and labels {labels_N.shape}; expected N x 3,072 and N")
    return _images(data), labels_N.astype(np.int64)


def pickled_names(content: bytes, source: str) -> tuple[str, ...]:
    """Read the names of the classes from the file `batches.meta` or `meta`. Raises DataError."""
    meta = _unpickled(content, source)
    names = next((meta[key] for key in ("label_names", "fine_label_names") if key in meta), None)
    if not isinstance(names, list) or not names or not all(isinstance(name, str | bytes) for name in names):
        raise DataError(f"{source}: holds no names of classes")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)


def members_of(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    """The content of files in a tar, by their names without folders. Raises DataError."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if member.isreg() and name in wanted and member.size <= MAX_BATCH_BYTES:
                    file = tar.extractfile(member)
                    assert file is not None
                    found[name] = file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{archive}: cannot be read: {error}") from error
    return found


def _images(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _unpickled(content: bytes, source: str) -> dict[str, Any]:
    """The dictionary in a pickle of Python 2 or 3, with its keys as text. Raises DataError."""
    try:
        loaded = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    # Damaged pickles raise many kinds of errors.
    except Exception as error:
        raise DataError(f"{source}: damaged: {error}") from error
    if not isinstance(loaded, dict):
        raise DataError(f"{source}: not a batch of CIFAR")
    return {
        key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): value for key, value in loaded.items()
    }
