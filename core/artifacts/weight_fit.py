"""Which of a file's weights fit a network, and under which names: prefixes, averages and number types.

Wrappers of networks put a prefix in front of the names: `module.` by DataParallel and DDP, `_orig_mod.` by
torch.compile, `model.`, `net.` or `backbone.` by the class of a training framework. A network may have layers with such
names of its own. So a prefix is removed only where the names of the network say so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ArtifactError
from ..models.recognise import architecture_of
from ..text import first_few
from .weight_files import StateDict

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
WITHIN = ("_orig_mod", "module")
"""Parts that wrappers of a part of the network leave in the middle of names."""
COUNTERS = ("n_averaged",)
"""What a wrapper keeps beside the weights: AveragedModel's number of averaged steps."""
NOT_NEEDED = "num_batches_tracked"
"""Ending of names that old files lack; only training without a momentum reads these numbers."""
COLOURS = 3
FLOATS = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64"}
NAMED_IN_ERRORS = 3
"""Number of layers of each kind that an error lists; the others are counted."""


@dataclass(frozen=True)
class Fitted:
    """The weights of a file under the names of a network, as far as they fit."""

    weights: dict[str, Tensor]
    """Also those that the network does not have, or has in another shape; in its number types where they can be."""
    changes: tuple[str, ...] = ()
    """What was done to get them, in words."""


def fit_weights(states: Sequence[StateDict], wanted: Mapping[str, Tensor], *, averaged: bool = True) -> Fitted:
    """Choose the state dict and the prefix that fit a network best. `wanted`: the network's own state dict.

    Of a file with a moving average and the weights that it is of, both of which fit, the average is taken, because such
    a training is judged by it; `averaged` False: the others. Then the first in the order of WRAPPERS.
    """
    ranked = sorted(states, key=lambda state: state.averaged is not averaged)  # a stable sort: the order stays else
    chosen = max(ranked, key=lambda state: _best_prefix(state.tensors, wanted)[0])
    prefix = _best_prefix(chosen.tensors, wanted)[1]
    renamed, left_out = _renamed(chosen.tensors, wanted, prefix)
    weights, types = _in_types_of(wanted, renamed)
    changes = []
    if chosen.key:
        others = first_few([other.key for other in ranked if other is not chosen])
        kind = " (a moving average)" if chosen.averaged else ""
        changes.append(f"its {chosen.key}{kind}" + (f", not its {others}" if others else ""))
    if prefix:
        changes.append(f"prefix {prefix} removed")
    if left_out:
        changes.append(f"left out, as they lack that prefix: {first_few(left_out)}")
    if types:
        changes.append(f"{' and '.join(types)} converted to fp32")
    return Fitted(weights, tuple(changes))


def check_fit(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, path: Path, arch: str) -> None:
    """Raise ArtifactError unless names, shapes and number types agree and all numbers are finite.

    Old files may lack num_batches_tracked.
    """
    missing = [name for name in wanted if name not in weights and not name.endswith(NOT_NEEDED)]
    unknown = [name for name in weights if name not in wanted]
    reshaped = [
        f"{name} is {_size(weights[name])} instead of {_size(value)}"
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape
    ]
    retyped = [
        f"{name} is {str(weights[name].dtype).removeprefix('torch.')} instead of {FLOATS.get(value.dtype, value.dtype)}"
        for name, value in wanted.items()
        if name in weights and value.is_floating_point() and weights[name].dtype not in FLOATS
    ]
    broken = [name for name, value in weights.items() if value.dtype in FLOATS and not bool(value.isfinite().all())]
    found = (
        *(("missing", missing), ("unknown", unknown), ("wrong shape", reshaped), ("wrong type", retyped)),
        ("not finite", broken),
    )
    problems = [f"{kind}: {_some(names)}" for kind, names in found if names]
    if (missing or unknown) and (other := architecture_of(weights)) not in (None, arch):
        problems.append(f"its layers are those of {other}")
    if problems:
        raise ArtifactError(f"{path}: its weights do not fit {arch}; {'; '.join(problems)}")


def stem_channels(states: Sequence[StateDict], network: nn.Module) -> int | None:
    """Return the number of channels that the first convolution takes in the file; None if the file lacks it.

    `network`: the network, built for three channels. The order of names in the file says nothing: safetensors sorts.
    """
    wanted = network.state_dict()
    first = next((name for name, value in wanted.items() if value.ndim == 4 and value.shape[1] == COLOURS), "")
    kernel = fit_weights(states, wanted).weights.get(first)
    return kernel.shape[1] if kernel is not None and kernel.ndim == 4 else None


def architecture_in(states: Sequence[StateDict]) -> str | None:
    """Return the architecture of rtk whose layers one of the state dicts has, under any prefix; None without one."""
    return next((arch for state in states if (arch := architecture_of(bare_names(state.tensors)))), None)


def bare_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under their names without any prefix that all of them share."""
    bare = {name: value for name, value in tensors.items() if name not in COUNTERS}
    while shared := next((one for one in PREFIXES if bare and all(name.startswith(one) for name in bare)), ""):
        bare = {name.removeprefix(shared): value for name, value in bare.items()}
    return bare


def _best_prefix(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[tuple[int, int], str]:
    """The prefix of the names that fit, with the numbers of layers that it fits: by name and shape, and by name."""
    best, score = "", (-1, -1)
    for prefix in sorted(_prefixes(tensors), key=len):
        names = {_in_network(name[len(prefix) :], wanted): name for name in tensors if name.startswith(prefix)}
        fitting = [name for name in names if name in wanted]
        shaped = sum(tensors[names[name]].shape == wanted[name].shape for name in fitting)
        if (shaped, len(fitting)) > score:
            best, score = prefix, (shaped, len(fitting))
    return score, best


def _prefixes(names: Iterable[str]) -> set[str]:
    """All sequences of PREFIXES that some name begins with, and the empty one."""
    found, waiting = {""}, [(name, 0) for name in names]
    while waiting:
        name, start = waiting.pop()
        for prefix in PREFIXES:
            if name.startswith(prefix, start):
                found.add(name[: start + len(prefix)])
                waiting.append((name, start + len(prefix)))
    return found


def _renamed(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by the network's names, and the names of those that are left out.

    A name with another prefix counts too if the network has such a layer that is still missing: a class may wrap a
    backbone and have the head beside it. If the network then lacks nothing, what has not the prefix belongs to
    something else, such as a loss, and is left out.
    """
    renamed, others = {}, {}
    for name, value in tensors.items():
        inner = _in_network(name.removeprefix(prefix), wanted) if name.startswith(prefix) else name
        if name.startswith(prefix) and inner in wanted:
            renamed[inner] = value
        elif name not in COUNTERS:
            others[name] = value
    for name in list(others):
        inner = next((one for one in _shortened(name) if one in wanted and one not in renamed), "")
        if inner:
            renamed[inner] = others.pop(name)
    complete = all(name in renamed or name.endswith(NOT_NEEDED) for name in wanted)
    left_out = [name for name in others if not name.startswith(prefix)] if complete else []
    unknown = {name.removeprefix(prefix): value for name, value in others.items() if name not in left_out}
    return {**unknown, **renamed}, left_out


def _shortened(name: str) -> list[str]:
    """The name, and what remains of it without one prefix after the other."""
    names = [name]
    while prefix := next((one for one in PREFIXES if name.startswith(one)), ""):
        name = name.removeprefix(prefix)
        names.append(name)
    return names


def _in_network(name: str, wanted: Mapping[str, Tensor]) -> str:
    """The name, without what wrappers of inner layers have put into it, if the network has a layer of that name."""
    if name in wanted:
        return name
    first, *rest = name.split(".")  # what is in front is a prefix
    inner = ".".join((first, *(part for part in rest if part not in WITHIN)))
    return inner if inner in wanted else name


def _in_types_of(wanted: Mapping[str, Tensor], weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights in the number types of the network, and the names of other floating-point types that some had."""
    converted, types = {}, set()
    for name, value in weights.items():
        target = wanted[name].dtype if name in wanted else value.dtype
        if value.dtype in FLOATS and target.is_floating_point and value.dtype != target:
            types.add(FLOATS[value.dtype])
        converted[name] = (
            value.to(target) if value.dtype in FLOATS or not (target.is_floating_point or value.is_quantized) else value
        )
    return converted, sorted(types)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMED_IN_ERRORS])
    more = len(names) - NAMED_IN_ERRORS
    return f"{shown} and {more} more" if more > 0 else shown


def _size(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a number"
