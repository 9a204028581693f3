"""Values of command line options of `rtk classify`; this module imports nothing heavy."""

from typing import Literal, get_args

TextFormat = Literal["table", "csv", "jsonl"]
Format = Literal["table", "csv", "jsonl", "parquet"]
"""How answers are written."""
TEXT_FORMATS: tuple[TextFormat, ...] = get_args(TextFormat)
FILE_FORMATS: tuple[Format, ...] = ("csv", "jsonl", "parquet")
"""Formats that are also suffixes of files."""
TABLE_SUFFIXES = ("", ".txt")
"""Suffixes of files that hold a table."""
Fit = Literal["crop", "letterbox"]
"""How images of other proportions become the model's size: the same values as in core.data.images, which loads
Pillow."""
