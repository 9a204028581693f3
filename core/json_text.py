"""JSON that every reader accepts (RFC 8259): it has no numbers for infinity and "not a number"."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""What such numbers are called in files that rtk reads back, as in the JSON of Protocol Buffers."""


def json_text(
    value: Any,
    *,
    read_back: bool = False,
    indent: int | None = None,
    ensure_ascii: bool = True,
    default: Callable[[Any], Any] | None = None,
    compact: bool = False,
) -> str:
    """Return the value as JSON. Numbers that are not finite become null, or with `read_back` one of NAMES as text.

    `default`: converts values that JSON lacks, as for json.dumps. `compact`: without spaces between values.
    """
    finite, separators = _finite(value, read_back=read_back), (",", ":") if compact else None
    return json.dumps(
        finite, indent=indent, ensure_ascii=ensure_ascii, default=default, allow_nan=False, separators=separators
    )


def with_numbers_on_one_line(text: str) -> str:
    """Return indented JSON in which each list of numbers is on one line."""
    return re.sub(r"\[[\d\s.,e+-]*\]", lambda numbers: "".join(numbers[0].split()), text)


def number_from_json(value: Any) -> Any:
    """Return the number that json_text wrote, also when it is not finite; any other value unchanged."""
    if value is None:
        return math.nan
    return NAMES.get(value, value) if isinstance(value, str) else value


def _finite(value: Any, *, read_back: bool) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        if not read_back:
            return None
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {name: _finite(one, read_back=read_back) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one, read_back=read_back) for one in value]
    return value
