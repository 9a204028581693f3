"""The formats in which answers are written."""

from typing import Literal, get_args

Format = Literal["table", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
