"""Dataclasses read from the JSON that dataclasses.asdict wrote."""

import dataclasses
import types
import typing
from typing import Any

from .json_text import number_from_json

PLAIN: dict[Any, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float), bool: (bool,), dict: (dict,)}
"""The values that JSON may hold for a field of each plain type; checked by `strict`."""


def restored(kind: Any, value: Any, *, strict: bool = False, name: str = "") -> Any:
    """Convert a value of JSON to the type that it was written from: dataclasses, and tuples and lists of them.

    Numbers that are not finite may be null or text, as json_text writes them. A field that is missing takes its
    default. Keys without a field are ignored, and plain values are not checked, unless `strict`. Raises TypeError, with
    the `name` of the field that is missing, unknown or of another type.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    optional = origin in (typing.Union, types.UnionType)
    if kind is float:
        value = number_from_json(value)
    if value is None and (optional or not strict):
        return None
    if optional:
        return restored(next(one for one in inner if one is not type(None)), value, strict=strict, name=name)
    if dataclasses.is_dataclass(kind):
        return _restored_dataclass(kind, value, strict=strict, name=name)
    if origin in (tuple, list):
        _check(value, (tuple, list), name)
        return origin(restored(inner[0], one, strict=strict, name=name) for one in value)
    if origin is dict and isinstance(value, dict) and (inner[1] is float or dataclasses.is_dataclass(inner[1])):
        return {key: restored(inner[1], one, strict=strict, name=f"{name}.{key}") for key, one in value.items()}
    if strict:
        _check(value, PLAIN.get(origin or kind, (object,)), name)
    return value


def _restored_dataclass(kind: Any, value: Any, *, strict: bool, name: str) -> Any:
    if isinstance(value, kind):
        return value
    _check(value, (dict,), name)
    prefix, fields = f"{name}." if name else "", dataclasses.fields(kind)
    required = {
        one.name for one in fields if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    }
    if missing := [one.name for one in fields if one.name in required - value.keys()]:
        raise TypeError(f"missing field {prefix}{missing[0]}")
    if strict and (unknown := sorted(value.keys() - {one.name for one in fields})):
        raise TypeError(f"unknown field {prefix}{unknown[0]}")
    hints = typing.get_type_hints(kind)
    return kind(
        **{
            one.name: restored(hints[one.name], value[one.name], strict=strict, name=f"{prefix}{one.name}")
            for one in fields
            if one.name in value
        }
    )


def _check(value: Any, expected: tuple[type, ...], name: str) -> None:
    # In Python, True is an int; in JSON it is no number.
    if not isinstance(value, expected) or (isinstance(value, bool) and int in expected):
        raise TypeError(f"{name or 'value'} is {type(value).__name__}, expected {expected[-1].__name__}")
