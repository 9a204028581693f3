"""Text of users in pictures that matplotlib draws: names in any script, whatever fonts the machine has."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

PLACEHOLDERS = "Last Resort"
"""A font of matplotlib that has a box for every character."""


@contextlib.contextmanager
def fonts_for(text: str) -> Iterator[None]:
    """Draw with fonts that have the characters of the text while the block runs.

    A character that no installed font has is drawn as a box. matplotlib's own messages about fonts are not printed.
    """
    log, nowhere = logging.getLogger("matplotlib"), logging.NullHandler()
    log.addHandler(nowhere)  # without a handler, Python prints them
    try:
        import matplotlib as mpl

        with mpl.rc_context({"font.family": _families(text)}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
            yield
    finally:
        log.removeHandler(nowhere)


def plain_text(text: str) -> str:
    """The text for matplotlib, which would read what is between two dollar signs as a formula."""
    return text.replace("$", r"\$")


def _families(text: str) -> list[str]:
    """The default fonts, and of the installed ones those that have further characters of the text."""
    import matplotlib as mpl
    from matplotlib import font_manager

    families = list(mpl.rcParams["font.family"])
    if text.isascii():
        return families
    missing = {ord(c) for c in text if not c.isspace()} - _characters(font_manager.findfont("DejaVu Sans"))
    for entry in font_manager.fontManager.ttflist if missing else ():
        if entry.name.startswith(PLACEHOLDERS):
            continue
        if found := missing & _characters(entry.fname):
            missing -= found
            families.append(entry.name)
        if not missing:
            break
    return families


def _characters(path: str) -> set[int]:
    """The code points that a font file has; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return set(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return set()
