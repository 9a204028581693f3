"""Names of models as names of files: letters and digits of any script, and `. _ + -`."""

import re
import unicodedata
from collections.abc import Callable

from .errors import UsageError

LONGEST_BYTES = 100
"""A file system allows 255: what follows the name are suffixes, and the random part of a temporary file."""
SUFFIXES = (".pt", ".onnx", ".engine")
"""What a name must not end with, because rtk adds it."""

WEIGHT_SUFFIXES = (".pth", ".pt", ".pt2", ".ckpt", ".bin", ".safetensors")
"""Usual suffixes of weight files, in lower case. What such a file holds decides its content."""


def safe_name(text: str, *, ascii_only: bool = False, longest: int = LONGEST_BYTES) -> str:
    """Return the text as a name that is safe for files, shells and URLs; empty if no character of it is.

    Other characters, such as spaces, commas, quotes, slashes and line ends, become one underscore between the words
    that they separate. A safe name stays as it is. `ascii_only`: letters and digits of ASCII alone, and no `+`.
    `longest`: bytes at most; the rest is cut off.
    """
    allowed = _is_ascii if ascii_only else _is_safe
    kept = "".join(c if allowed(c) else " " for c in unicodedata.normalize("NFC", text))
    words = [word.lstrip(".-") for word in kept.split()]  # a name must be neither hidden nor look like an option
    name = "_".join(word for word in words if word)
    return name.encode()[:longest].decode(errors="ignore")


def check_name(name: str) -> None:
    """Raise UsageError for a --name that is no safe name; the message has a similar name that is."""
    found = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    safe = safe_name(name.removesuffix(found) if found else name)
    if safe != name or not name:
        expected = (
            f"letters, digits and . _ + -, at most {LONGEST_BYTES} bytes" if not found else f"no {found} at its end"
        )
        raise UsageError(f"--name {name!r}: expected {expected}" + (f"; try --name {safe}" if safe else ""))


def named_after(stem: str, card_name: Callable[[], str]) -> str:
    """Return the name of a model's files: the stem of the file that the user named, or the card's name for a run's.

    All runs have a `best.pt` and a `last.pt`; `best.int8` is the stem of a graph that an earlier rtk made of one.
    `card_name` reads the card, which is not needed otherwise.
    """
    head, dot, rest = stem.partition(".")
    return (safe_name(card_name()) or head) + dot + rest if head in ("best", "last") else stem


def _is_safe(character: str) -> bool:
    """Letters, marks and numbers: scripts such as Devanagari need marks within words."""
    return unicodedata.category(character)[0] in "LMN" or character in "._+-"


def _is_ascii(character: str) -> bool:
    return re.fullmatch("[A-Za-z0-9._-]", character) is not None
