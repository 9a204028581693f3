"""Dataclasses from JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest
from rtk.core.records import restored


@dataclass(frozen=True)
class Part:
    size: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Whole:
    count: int
    part: Part
    parts: list[Part] = field(default_factory=list)
    other: Part | None = None
    notes: dict[str, Any] = field(default_factory=dict)


WHOLE = Whole(3, Part(0.5, ("a", "b")), [Part(1)], Part(2.0), {"x": [1, None]})


@pytest.mark.parametrize("strict", [False, True])
def test_a_dataclass_survives_json(strict: bool) -> None:
    assert restored(Whole, json.loads(json.dumps(asdict(WHOLE))), strict=strict) == WHOLE
    assert restored(Whole, {"count": 1, "part": {"size": 1}}, strict=strict) == Whole(1, Part(1))


def test_unknown_keys_are_ignored_unless_strict() -> None:
    value = {"count": 1, "part": {"size": 1, "colour": "red"}}
    assert restored(Whole, value) == Whole(1, Part(1))
    with pytest.raises(TypeError, match=r"^unknown field part\.colour$"):
        restored(Whole, value, strict=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": "1"}, "count is str, expected int"),
        ({"count": True}, "count is bool, expected int"),
        ({"count": None}, "count is NoneType, expected int"),
        ({"part": None}, "part is NoneType, expected dict"),
        ({"part": {"size": "big"}}, "part.size is str, expected float"),
        ({"part": {"size": 1, "names": "ab"}}, "part.names is str, expected list"),
        ({"part": {"size": 1, "names": [1]}}, "part.names is int, expected str"),
        ({"part": {}}, "missing field part.size"),
        ({"notes": []}, "notes is list, expected dict"),
    ],
)
def test_strict_names_the_field_of_another_type(change: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError) as error:
        restored(Whole, asdict(WHOLE) | change, strict=True)
    assert str(error.value) == message


@pytest.mark.parametrize("value", [None, 3, [], "x"])
def test_a_value_that_is_not_an_object_is_no_dataclass(value: object) -> None:
    with pytest.raises(TypeError):
        restored(Whole, value, strict=True)
