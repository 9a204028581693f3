"""The choices of classification that its options name; nothing heavy is imported here."""

from typing import Literal, get_args

TextFormat = Literal["table", "csv", "jsonl"]
Format = Literal["table", "csv", "jsonl", "parquet"]
"""How answers are written."""
TEXT_FORMATS: tuple[TextFormat, ...] = get_args(TextFormat)
FORMATS: tuple[Format, ...] = get_args(Format)
Fit = Literal["crop", "letterbox"]
"""What becomes of images of other proportions than the model's: the same as in core.images, which loads Pillow."""
