"""Arguments of another type are refused by name before anything runs; NumPy's numbers and any iterable are taken."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rtk
from rtk.api.argument_types import checked
from rtk.api.arguments import PathLike

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "train": rtk.api.train,
    "evaluate": rtk.api.evaluate,
    "export": rtk.api.export,
    "bench": rtk.api.bench,
    "load": rtk.api.load,
}
REQUIRED = {"evaluate": {"model": "a.pt"}, "export": {"models": "a.pt"}, "load": {"name": "a.pt"}}
OPTIONS = [
    pytest.param(function, name, id=f"{function}-{name}")
    for function, call in FUNCTIONS.items()
    for name in inspect.signature(call).parameters
]


@pytest.mark.parametrize(("function", "name"), OPTIONS)
def test_every_argument_of_another_type_is_refused_by_name(function: str, name: str) -> None:
    with pytest.raises(rtk.UsageError, match=rf"^{name}: <object object at 0x[0-9a-f]+>, expected .+"):
        FUNCTIONS[function](**REQUIRED.get(function, {}) | {name: object()})


@checked
def example(
    several: str | Sequence[str] | None = None,
    *,
    count: int | None = None,
    share: float = 0.5,
    kind: Literal["a", "b"] = "a",
    path: PathLike | None = None,
    pair: tuple[PathLike, PathLike] | None = None,
    numbers: int | Sequence[int] | None = None,
    names: PathLike | Sequence[PathLike] | None = None,
    options: Mapping[str, Any] | Sequence[str] | None = None,
    wanted: bool = True,
) -> dict[str, Any]:
    """All kinds of arguments that the functions have."""
    return dict(locals())


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", "8", "'8', expected a whole number or None"),
        ("count", 8.0, "8.0, expected a whole number or None"),
        ("count", True, "True, expected a whole number or None"),
        ("count", np.bool_(True), "np.True_, expected a whole number or None"),
        ("share", "0.5", "'0.5', expected a number"),
        ("share", None, "None, expected a number"),
        ("kind", 3, "3, expected 'a' or 'b'"),
        ("path", b"a.pt", "b'a.pt', expected text, a path or None"),
        ("path", ["a.pt"], "['a.pt'], expected text, a path or None"),
        ("pair", "ab", "'ab', expected 2 values, each text or a path or None"),
        ("pair", ("a",), "('a',), expected 2 values, each text or a path or None"),
        ("several", [1], "[1], expected text, a list of texts or None"),
        ("several", {"a": 1}, "{'a': 1}, expected text, a list of texts or None"),
        ("numbers", [1, "8"], "[1, '8'], expected a whole number, a list of whole numbers or None"),
        ("names", [None], "[None], expected text, a path, a list of texts or paths or None"),
        ("options", 3, "3, expected a dict, a list of texts or None"),
        ("wanted", 1, "1, expected True or False"),
        ("wanted", "no", "'no', expected True or False"),
        ("path", np.zeros((9, 90)), "an object of type ndarray, expected text, a path or None"),
    ],
)
def test_an_error_names_the_value_and_what_is_expected(name: str, value: object, expected: str) -> None:
    with pytest.raises(rtk.UsageError, match=f"^{re.escape(f'{name}: {expected}')}$"):
        example(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("count", np.int64(8), 8),
        ("share", np.float32(0.25), 0.25),
        ("share", np.int8(1), 1),
        ("share", 1, 1),
        ("kind", "c", "c"),  # the function names what it knows
        ("path", Path("a"), Path("a")),
        ("pair", ["a", Path("b")], ("a", Path("b"))),
        ("several", (name for name in "ab"), ["a", "b"]),
        ("several", "ab", "ab"),
        ("numbers", np.array([1, 8]), [1, 8]),
        ("numbers", range(3), [0, 1, 2]),
        ("names", (Path("a"), "b"), [Path("a"), "b"]),
        ("options", {"width": 32}, {"width": 32}),
        ("wanted", False, False),
    ],
)
def test_values_that_fit_are_taken_as_pythons_own(name: str, value: object, taken: object) -> None:
    found = example(**{name: value})[name]
    assert found == taken
    assert type(found) is type(taken)


def test_an_unknown_argument_is_a_type_error_as_of_every_function() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'batch_sizes'"):
        rtk.api.export("a.pt", batch_sizes=8)  # type: ignore[call-arg]
