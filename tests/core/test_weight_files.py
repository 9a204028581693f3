"""Weight files of other programs: what is read, and the one line that says why another is not."""

import argparse
import collections
import datetime
import json
import os
import pathlib
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rtk.core.artifacts import harmless_types
from rtk.core.artifacts.weight_files import WRAPPERS, StateDict, read_weight_file
from rtk.core.errors import ArtifactError
from safetensors.torch import save_file
from torch import Tensor, nn

SAVE = "torch.save(network.state_dict(), 'weights.pth')"


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "conv.bias": torch.tensor([0.5, -0.5])}


def read(path: Path) -> tuple[StateDict, ...]:
    return read_weight_file(path).states


def rejection(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


# What is read.


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".PT", ".ckpt", ".bin", ".pth.tar", ".safetensors", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_suffix_of_a_torch_file_does_not_matter(
    weights: dict[str, Tensor], tmp_path: Path, suffix: str, zipped: bool
) -> None:
    path = tmp_path / f"mine{suffix}"
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    (state,) = read(path)
    assert same(state.tensors, weights)
    assert (state.key, state.averaged) == ("", False)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pt"])
def test_the_suffix_of_a_safetensors_file_does_not_matter(
    weights: dict[str, Tensor], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"mine{suffix}"
    save_file(weights, path, metadata={"format": "pt"})
    (state,) = read(path)
    assert same(state.tensors, weights)


@pytest.mark.parametrize(
    "key",
    ["state_dict", "model", "model_state_dict", "net", "model_state", "state_dict_ema", "ema", "module", "model_ema"],
)
def test_weights_are_found_under_the_keys_of_training_scripts(
    weights: dict[str, Tensor], tmp_path: Path, key: str
) -> None:
    optimiser = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save({"epoch": 3, "optimizer": optimiser, key: weights, "best": torch.tensor(0.9)}, tmp_path / "mine.pth")
    (state,) = read(tmp_path / "mine.pth")
    assert same(state.tensors, weights)
    assert state == StateDict(state.tensors, key, averaged="ema" in key)


def test_weights_are_found_under_keys_within_keys(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"ema": {"decay": 0.999, "module": weights}, "model": "resnet18"}, tmp_path / "mine.pth")
    (state,) = read(tmp_path / "mine.pth")
    assert state == StateDict(state.tensors, "ema.module", averaged=True)
    assert same(state.tensors, weights)


def test_a_file_with_an_average_has_both_and_the_average_is_first(weights: dict[str, Tensor], tmp_path: Path) -> None:
    average = {name: value / 2 for name, value in weights.items()}
    torch.save({"state_dict": weights, "state_dict_ema": average}, tmp_path / "mine.pth")
    first, second = read(tmp_path / "mine.pth")
    assert (first.key, second.key) == ("state_dict_ema", "state_dict")
    assert same(first.tensors, average)
    assert same(second.tensors, weights)


def test_layers_called_like_a_key_are_layers(tmp_path: Path) -> None:
    flat = {"model.weight": torch.ones(2, 2), "net.weight": torch.ones(2), "ema": torch.ones(1)}
    torch.save(flat, tmp_path / "mine.pth")
    (state,) = read(tmp_path / "mine.pth")
    assert same(state.tensors, flat)


class Shout(argparse.Namespace):
    """A type of the user's own."""


HARMLESS = {
    "argparse.Namespace": lambda: argparse.Namespace(lr=0.1, data=Path("pets")),
    "types.SimpleNamespace": lambda: types.SimpleNamespace(lr=0.1),
    "a scalar of NumPy": lambda: np.float64(0.93),
    "a flag of NumPy": lambda: np.bool_(True),
    "a whole number of NumPy as a key": lambda: {np.int64(3): 1},
    "an array of NumPy": lambda: np.arange(6.0).reshape(2, 3),
    "an array of objects": lambda: np.array([{"a": 1}, None], dtype=object),
    "the state of NumPy's random numbers": lambda: np.random.RandomState(0).get_state(),
    "a type of NumPy": lambda: np.float32,
    "a dtype of NumPy": lambda: np.dtype("int64"),
    "an ordered dictionary": lambda: collections.OrderedDict(a=1),
    "a dictionary with a default": lambda: collections.defaultdict(list, a=[1]),
    "a counter": lambda: collections.Counter("abca"),
    "a queue": lambda: collections.deque([1, 2], maxlen=3),
    "a path": lambda: pathlib.Path("runs") / "a",
    "a path of Windows": lambda: pathlib.PureWindowsPath("C:/runs"),
    "a date": lambda: datetime.datetime(2026, 11, 28, tzinfo=datetime.timezone.utc),  # noqa: UP017
    "a set of paths": lambda: {pathlib.PurePosixPath("a")},
    "a frozen set": lambda: frozenset((1, 2)),
    "a range": lambda: range(3),
    "a version": lambda: torch.torch_version.TorchVersion("2.11.0"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("made", HARMLESS.values(), ids=HARMLESS)
def test_harmless_objects_beside_the_weights_are_passed_over(
    weights: dict[str, Tensor], tmp_path: Path, made: Callable[[], Any], zipped: bool
) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({"args": made(), "state_dict": weights}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    (state,) = read(tmp_path / "x.pth")
    assert same(state.tensors, weights)
    assert set(torch.serialization.get_safe_globals()) == before


def test_objects_are_replaced_and_never_made() -> None:
    """Nothing of NumPy or of the other modules may be called: a pickle chooses the arguments."""
    made = {stand_in() for stand_in, _ in harmless_types.HARMLESS if stand_in is harmless_types._Ignored}
    assert {stand_in.__module__ for stand_in, _ in harmless_types.HARMLESS} == {harmless_types.__name__}
    assert all(vars(one) == {} for one in made)
    names = [name for _, name in harmless_types.HARMLESS]
    assert len(names) == len(set(names))


def test_weights_in_a_dictionary_with_a_default_are_read(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": collections.defaultdict(dict, weights)}, tmp_path / "mine.pth")
    (state,) = read(tmp_path / "mine.pth")
    assert same(state.tensors, weights)


# What is not.


@pytest.mark.parametrize("zipped", [True, False])
def test_an_object_of_another_type_is_refused_by_its_name(
    weights: dict[str, Tensor], tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / "x.pth"
    torch.save({"args": Shout(a=1), "state_dict": weights}, path, _use_new_zipfile_serialization=zipped)
    assert rejection(path) == (
        f"refused: it holds a pickled {Shout.__module__}.Shout, which would run code when loaded; expected a "
        f"checkpoint of rtk or a state dict; to save the weights alone, where that code is: {SAVE}"
    )


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("canary",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("beside", [None, argparse.Namespace(), np.float64(1)])
def test_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: object, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": beside, "b": RunsCode()}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert rejection(tmp_path / "x.pth").startswith("refused: it holds a pickled posix.mkdir, which would run code")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_network_is_refused_as_one(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save(nn.Sequential(nn.Linear(2, 2)), path, _use_new_zipfile_serialization=zipped)
    assert rejection(path).startswith(
        "refused: it is a whole pickled network, with torch.nn.modules.container.Sequential, which would run code"
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_and_exported_programs_are_named_with_the_way_to_their_weights(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "script.pt"))  # type: ignore[no-untyped-call]
    assert rejection(tmp_path / "script.pt") == (
        "a TorchScript archive, which holds code; expected a checkpoint of rtk or a state dict; to save the weights "
        "alone: torch.save(torch.jit.load('script.pt').state_dict(), 'weights.pth')"
    )
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), tmp_path / "program.pt2")
    assert rejection(tmp_path / "program.pt2").startswith("a program of torch.export, which holds code; ")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_way_to_the_weights_of_torchscript_leads_to_a_file_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    linear = nn.Linear(2, 2)
    torch.jit.trace(linear, torch.ones(1, 2)).save("script.pt")  # type: ignore[no-untyped-call]
    exec(rejection(Path("script.pt")).rpartition("alone: ")[2], {"torch": torch})
    (state,) = read(Path("weights.pth"))
    assert same(state.tensors, linear.state_dict())


def test_an_unusual_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({"a": argparse.Namespace()}, tmp_path / "x.pth", pickle_protocol=4)
    assert rejection(tmp_path / "x.pth").startswith("refused: a pickle that torch.save does not write by default; ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS, not the file itself; "),
        (b"<!DOCTYPE html><html>", "a web page, not the file itself; download it again"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file, as Keras writes; "),
        (b"", "an empty file; expected a checkpoint of rtk or a state dict"),
        (b"\x80\x04K\x01.", "truncated, damaged, or not a checkpoint of rtk"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    assert rejection(tmp_path / "x.pth").startswith(message)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert rejection(tmp_path / "x.pth") == "no such file; expected a checkpoint of rtk or a state dict"


def test_a_damaged_safetensors_file_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(content[:-8])
    assert rejection(tmp_path / "x.safetensors").startswith("a damaged safetensors file: ")
    (tmp_path / "x.safetensors").write_bytes(content[:8] + b"{" * (len(content) - 8))
    assert rejection(tmp_path / "x.safetensors").startswith("a damaged safetensors file: ")
    header = json.dumps({"__metadata__": {"a": "b"}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert rejection(tmp_path / "x.safetensors") == "holds no weights; expected a safetensors file with tensors"


@pytest.mark.parametrize("content", [[1], {}, {"a": 1}, {"state_dict": {"a": "b"}}, torch.ones(2), {0: torch.ones(2)}])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    assert rejection(tmp_path / "x.pth") == "holds no weights; expected a checkpoint of rtk or a state dict of tensors"


@pytest.mark.parametrize("within", [lambda content: content, lambda content: {"epoch": 3, "state_dict": content}])
def test_weights_as_arrays_of_numpy_are_named(
    weights: dict[str, Tensor], tmp_path: Path, within: Callable[[object], object]
) -> None:
    torch.save(within({name: tensor.numpy() for name, tensor in weights.items()}), tmp_path / "x.pth")
    assert rejection(tmp_path / "x.pth") == (
        "holds no weights, but arrays of NumPy; save tensors instead: torch.from_numpy(array); expected a checkpoint "
        "of rtk or a state dict of tensors"
    )


def test_a_folder_is_named_with_the_weight_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    assert rejection(tmp_path / "hub") == "is a folder; expected a checkpoint of rtk or a state dict"
    for name in ("config.json", "model.safetensors", "pytorch_model.BIN"):
        (tmp_path / "hub" / name).write_bytes(b"x")
    assert rejection(tmp_path / "hub") == (
        "is a folder; expected a checkpoint of rtk or a state dict; it holds model.safetensors, pytorch_model.BIN"
    )


def test_unknown_keys_with_weights_are_named(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"student": weights, "teacher": weights, "epoch": 3}, tmp_path / "x.pth")
    assert rejection(tmp_path / "x.pth") == (
        f"holds no weights under a key that is known ({', '.join(WRAPPERS)}), but under 'student', 'teacher'; save "
        "that alone; expected a checkpoint of rtk or a state dict of tensors"
    )
