"""Files that torch.save wrote, read as data: tensors, plain values, and stand-ins for harmless objects.

What a file is decides its content, not its suffix. Nothing in a file can run.
"""

import contextlib
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import ArtifactError
from .harmless_types import HARMLESS

LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of the files that torch.save wrote before PyTorch 1.6, which are not zip archives."""
SAVE_WEIGHTS = "torch.save(network.state_dict(), 'weights.pth')"
OTHER_FILES = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; fetch that: git lfs pull"),
    (b"<!DOCTYPE", "a web page, not the file itself; download it again"),
    (b"<html", "a web page, not the file itself; download it again"),
    (b"\x89HDF", "an HDF5 file, as Keras writes; expected a file of PyTorch or safetensors"),
)
"""First bytes of files that people have under the names of weight files, and what these are."""
CODE_FILES = {
    "constants.pkl": ("a TorchScript archive", "torch.jit.load({name!r}).state_dict()"),
    "model.json": ("a program of torch.export", "torch.export.load({name!r}).state_dict"),
    "serialized_exported_program.json": ("a program of torch.export", "torch.export.load({name!r}).state_dict"),
}
"""Members of archives that hold code, what these are, and how PyTorch reads their weights."""


def read_torch_file(path: Path, *, expected: str) -> Any:
    """Read what torch.save wrote into CPU memory. `expected`: what errors say that the file should be.

    Objects of HARMLESS types are replaced by stand-ins. Raises ArtifactError when the file is missing, damaged, from
    another program, or holds other objects.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such checkpoint")
    try:
        with path.open("rb") as file:
            start = file.read(64)
        if not start:
            raise ArtifactError(f"{path}: an empty file; expected {expected}")
        _refuse_other_files(path, start)
        if not start.startswith(LEGACY_START):
            with zipfile.ZipFile(path) as archive:  # torch.load does not verify the checksums
                if archive.testzip() is not None:
                    raise ArtifactError(f"{path}: damaged: its content does not match its checksums")
                _refuse_code(path, archive.namelist(), expected=expected)
        return _loaded(path)
    except pickle.UnpicklingError as error:
        raise ArtifactError(f"{path}: refused: {_refusal(path, str(error), expected=expected)}") from error
    except ArtifactError:
        raise
    # On a damaged or malicious file zipfile and torch raise many kinds of errors; the user gets one clear line.
    except Exception as error:
        raise ArtifactError(f"{path}: truncated, damaged, or not a checkpoint of rtk") from error


def _loaded(path: Path) -> Any:
    """The content of the file. Other types are allowed only if it needs them, and only while it is read.

    torch.load gets the open file, as it would judge a path by its suffix.
    """
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # torch warns about unusual pickles, which are refused
        with contextlib.suppress(pickle.UnpicklingError):
            return torch.load(file, map_location="cpu", weights_only=True)
        file.seek(0)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)


def _refuse_other_files(path: Path, start: bytes) -> None:
    for beginning, meaning in OTHER_FILES:
        if start.startswith(beginning):
            raise ArtifactError(f"{path}: {meaning}")


def _refuse_code(path: Path, members: list[str], *, expected: str) -> None:
    for member in members:
        if member.rpartition("/")[2] in CODE_FILES:
            kind, reader = CODE_FILES[member.rpartition("/")[2]]
            weights = reader.format(name=path.name)
            raise ArtifactError(
                f"{path}: {kind}, which holds code; expected {expected}; "
                f"to save the weights alone: torch.save({weights}, 'weights.pth')"
            )


def _refusal(path: Path, message: str, *, expected: str) -> str:
    """Why PyTorch refused the file, with the name of the object, what was expected, and what to do."""
    if "DTensor" in message:
        return (
            f"its tensors are spread over processes (DTensor); expected {expected}; save the full, gathered state dict"
        )
    named = re.search(r"GLOBAL ([^\s,]+)", message)
    if not named:
        return f"a pickle that torch.save does not write by default; expected {expected}; save again: {SAVE_WEIGHTS}"
    whole = any(name.startswith("torch.nn.modules.") for name in (named[1], *_unknown_names(path)))
    what = "it is a whole pickled network, with" if whole else "it holds a pickled"
    return (
        f"{what} {named[1]}, which would run code when loaded; expected {expected}; "
        f"to save the weights alone, where that code is: {SAVE_WEIGHTS}"
    )


def _unknown_names(path: Path) -> list[str]:
    """The names in the file that PyTorch does not allow; none for a file before PyTorch 1.6."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, pickle.UnpicklingError, EOFError):
        return []
