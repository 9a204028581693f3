"""Dataclasses read back from JSON."""

import dataclasses
import types
import typing
from typing import Any


def restored(kind: Any, value: Any) -> Any:
    """A value of JSON as the type that it was: dataclasses, tuples and lists of them, everything else as it is.

    Keys that a dataclass has no field for are left aside; a field without a key keeps its default.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if value is None:
        return None
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {field.name: value[field.name] for field in dataclasses.fields(kind) if field.name in value}
        return kind(**{name: restored(hints[name], one) for name, one in known.items()})  # type: ignore[operator]
    if origin in (tuple, list):
        return origin(restored(inner[0], one) for one in value)
    if origin in (typing.Union, types.UnionType):
        return restored(next(one for one in inner if one is not type(None)), value)
    return value
