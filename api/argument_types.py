"""Checks the types of a call's arguments by the function's own annotations, before anything runs.

The command line reads every option from text; a Python program may hand over anything. Without this check, "8" as a
batch size fails somewhere inside, as a comparison of text with a number.
"""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np

from ..core.errors import UsageError
from .arguments import PathLike

P = ParamSpec("P")
R = TypeVar("R")
LONGEST = 60
"""Characters of a value that an error shows; what is longer, it names by its type."""
WORDS = {
    NoneType: "None",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    os.PathLike: "a path",
    Mapping: "a dict",
}
PLURALS = {str: "texts", int: "whole numbers", PathLike: "texts or paths"}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which raises UsageError for arguments of other types than it has annotated.

    NumPy's numbers become Python's, and any iterable may stand for a sequence.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _argument(name, value, signature.parameters[name].annotation)
        return function(*bound.args, **bound.kwargs)

    return call


def _argument(name: str, value: object, kind: object) -> object:
    try:
        return _any_of(value, kind)
    except TypeError:
        shown = repr(value)
        shown = shown if len(shown) <= LONGEST else f"an object of type {type(value).__name__}"
        raise UsageError(f"{name}: {shown}, expected {expected(kind)}") from None


def _fitting(value: Any, kind: Any) -> Any:
    """The value, if it is of this kind; numbers and sequences as Python's own. Raises TypeError otherwise."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if kind in (int, float) and isinstance(value, bool):
        raise TypeError
    if kind in (int, float) and isinstance(value, np.integer):
        return int(value)
    if kind is float and isinstance(value, int | np.floating):
        return value if isinstance(value, int) else float(value)
    if origin is Literal and isinstance(value, str):
        return value  # which text is known, the function says itself: it may suggest what was meant
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str) and len(value) == len(parts):
        return tuple(_any_of(one, part) for one, part in zip(value, parts, strict=True))
    if origin is Sequence and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return [_any_of(one, parts[0]) for one in value]
    if (origin is Mapping and isinstance(value, Mapping)) or (origin is os.PathLike and isinstance(value, os.PathLike)):
        return value
    if origin is None and isinstance(value, kind):
        return value
    raise TypeError


def _any_of(value: object, kind: object) -> object:
    for one in _kinds(kind):
        try:
            return _fitting(value, one)
        except TypeError:
            continue
    raise TypeError


def _kinds(kind: object) -> tuple[object, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def expected(kind: object) -> str:
    """The kinds of an annotation in words: `int | None` is "a whole number or None"."""
    words = list(dict.fromkeys(word for one in _kinds(kind) for word in _words(one)))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _words(kind: Any) -> list[str]:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return [repr(part) for part in parts]
    if origin is tuple:
        return [f"{len(parts)} values, each {expected(parts[0])}"]
    if origin is Sequence:
        return [f"a list of {PLURALS[parts[0]]}"]
    return [WORDS[origin or kind]]
