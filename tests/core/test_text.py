"""Lines as wide as the terminal."""

import pytest
from rtk.core.text import terminal_width, wrapped


@pytest.mark.parametrize(("columns", "width"), [("40", 40), ("80", 80), ("300", 120), ("", 80)])
def test_text_is_as_wide_as_the_terminal_but_at_most_120_columns(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.__stdout__", None)  # no terminal
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal_width() == width


def test_long_text_is_wrapped_under_a_hanging_indent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert wrapped("one two three four five", first="- ", rest="  ") == "- one two three four\n  five"
    assert wrapped("one two three four five") == "one two three four\n  five"


def test_a_long_word_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert wrapped("see /a/long/path/of-a/file.onnx there") == "see\n  /a/long/path/of-a/file.onnx\n  there"


def test_a_terminal_narrower_than_the_indent_gets_one_word_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "2")
    assert wrapped("one two", first="> ", rest="    ") == "> one\n    two"


def test_no_text_leaves_the_start_of_the_line() -> None:
    assert wrapped("") == ""
    assert wrapped("", first="name: ") == "name:"
