"""Values of command line options of `rtk classify`; this module imports nothing heavy."""

from typing import Literal, get_args

RowFormat = Literal["csv", "tsv", "jsonl"]
"""Formats with one line per answer, to which lines can be appended."""
TextFormat = Literal["table", "csv", "tsv", "json", "jsonl"]
Format = Literal["table", "csv", "tsv", "json", "jsonl", "parquet"]
"""How answers are written."""
TEXT_FORMATS: tuple[TextFormat, ...] = get_args(TextFormat)
FILE_FORMATS: tuple[Format, ...] = ("csv", "tsv", "json", "jsonl", "parquet")
"""Formats that are also suffixes of files."""
RESUMABLE_FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl", "parquet")
SPREADSHEET_FORMATS: tuple[Format, ...] = ("csv", "tsv")
TABLE_SUFFIXES = ("", ".txt")
"""Suffixes of files that hold a table."""
PAGE_SUFFIXES = ("", ".html", ".htm")
"""Suffixes of files that hold a contact sheet."""
"""How images of other proportions become the model's size: the same values as in core.data.images, which loads
Pillow."""
