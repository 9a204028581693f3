"""Names of users in any script are drawn, and no library prints a message about them."""

import io
import subprocess
import sys

from rtk.core.fonts import fonts_for, plain_text

ANIMALS = "\u52a8\u7269"
COMBINING_CIRCLE = "\u20dd"
"""A character of STIXGeneral, which comes with matplotlib, that DejaVu Sans, its default, does not have."""


def test_a_font_that_has_the_characters_is_found() -> None:
    import matplotlib as mpl

    with fonts_for(f"a{COMBINING_CIRCLE}"):
        assert len(mpl.rcParams["font.family"]) == 2
    with fonts_for("abc \u043a\u043e\u0442"):  # DejaVu Sans has Cyrillic
        assert len(mpl.rcParams["font.family"]) == 1


def test_a_name_without_a_font_or_with_dollar_signs_is_drawn_without_a_message() -> None:
    program = f"""
import io
from rtk.core.fonts import fonts_for, plain_text
for text in ("{ANIMALS}", "\\U0010fffd", "a$x_$b", "$", "$\\\\frac$"):
    with fonts_for(text):
        from matplotlib.figure import Figure
        figure = Figure()
        figure.subplots().set(title=plain_text(text))
        figure.savefig(io.BytesIO(), format="png")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_dollar_signs_are_drawn_as_they_are() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    title = figure.subplots().set_title(plain_text("a$x$b"))
    figure.savefig(io.BytesIO(), format="png")
    plain = figure.axes[0].set_title("a$x$b", parse_math=False)
    assert title.get_window_extent().width == plain.get_window_extent().width
