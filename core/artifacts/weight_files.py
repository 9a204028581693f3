"""Files with the weights of a network, as training scripts and model hubs write them: torch.save's, and safetensors.

Scripts save a state dict by itself, or in a dictionary with other things, under one of WRAPPERS. A file may hold
several: the weights as trained, and their moving average (EMA). Which of them fits a network, and under which names,
is another question: weight_fit.py. The suffix of a file does not matter.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file
from torch import Tensor

from ..errors import ArtifactError
from ..file_names import WEIGHT_SUFFIXES
from ..library_errors import reason_of
from ..text import first_few
from ..urls import url_problem
from .harmless_types import IgnoredArray
from .torch_file import read_torch_file

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
"""Keys of moving averages."""
WRAPPERS = (*AVERAGED, "state_dict", "model_state_dict", "model", "model_state", "net", "network", "module", "weights")
"""Keys under which training scripts save weights together with other things."""
DEPTH = 3
"""Wrappers within each other at most, as in `ema`, `module`."""
EXPECTED = "a checkpoint of rtk or a state dict"


@dataclass(frozen=True)
class StateDict:
    """The weights of one network."""

    tensors: Mapping[str, Tensor]
    key: str = ""
    """The keys that lead to it in the file, with dots between them; empty: the file itself is the state dict."""
    averaged: bool = False
    """Whether it is a moving average, by its key."""


@dataclass(frozen=True)
class WeightFile:
    """What a file holds."""

    states: tuple[StateDict, ...]
    """At least one, unless it is a checkpoint of rtk; averages first."""
    of_rtk: bool = False
    """Whether it says that it is a checkpoint of rtk, of any version: checkpoint.py reads these."""


def read_weight_file(path: Path, *, expected: str = EXPECTED) -> WeightFile:
    """Read all state dicts of a file into CPU memory, and run nothing in it.

    Raises ArtifactError when the file is missing, damaged, holds code, or holds no weights.
    """
    if path.is_dir():
        raise ArtifactError(f"{path}: is a folder; expected {expected}{_files_in(path)}")
    if not path.is_file():
        raise ArtifactError(f"{path}: {url_problem(str(path)) or 'no such file'}; expected {expected}")
    if _is_safetensors(path):
        return WeightFile((StateDict(_safetensors(path)),))
    content = read_torch_file(path, expected=expected)
    states = tuple(states_in(content))
    of_rtk = isinstance(content, dict) and str(content.get("format")).startswith("rtk-")
    if not states and not of_rtk:
        raise ArtifactError(f"{path}: holds no weights{_instead(content)}; expected {expected} of tensors")
    return WeightFile(states, of_rtk)


def states_in(content: Any) -> list[StateDict]:
    """Return the state dicts in what torch.load returned, averages first."""
    return sorted(_states(content, (), averaged=False), key=lambda state: not state.averaged)


def _states(content: Any, keys: tuple[str, ...], *, averaged: bool) -> Iterator[StateDict]:
    """Yield the state dicts under the known keys; without one, the content itself if it holds tensors."""
    if not isinstance(content, Mapping):
        return
    found = False
    for key in WRAPPERS if len(keys) < DEPTH else ():
        for state in _states(content.get(key), (*keys, key), averaged=averaged or key in AVERAGED):
            found = True
            yield state
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors and not found:
        yield StateDict(tensors, ".".join(keys), averaged)


def _files_in(folder: Path) -> str:
    """The weight files in a folder, as model hubs write it, in words; empty if there are none."""
    found = sorted(one.name for one in folder.iterdir() if one.suffix.lower() in WEIGHT_SUFFIXES)
    return f"; it holds {first_few(found)}" if found else ""


def _is_arrays(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(value, IgnoredArray) for value in content.values())
    )


def _instead(content: Any) -> str:
    """What a file without known weights holds instead of them, in words: weights under other keys, or arrays."""
    if not isinstance(content, Mapping):
        return ""
    if any(map(_is_arrays, (content, *content.values()))):
        return ", but arrays of NumPy; save tensors instead: torch.from_numpy(array)"
    keys = [repr(key) for key, value in content.items() if states_in(value)]
    known = ", ".join(WRAPPERS)
    return f" under a key that is known ({known}), but under {first_few(keys)}; save that alone" if keys else ""


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins with the length of a header and a header in JSON, as the format defines."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (safetensors.SafetensorError, RuntimeError, ValueError, OSError) as error:
        raise ArtifactError(f"{path}: a damaged safetensors file: {reason_of(error)}") from error
    if not tensors:
        raise ArtifactError(f"{path}: holds no weights; expected a safetensors file with tensors")
    return tensors
