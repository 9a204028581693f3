"""Text for people: as wide as the terminal, and safe to print."""

import pytest
from rtk.core.text import fitting_table, outline, terminal_width, wrapped


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


def test_a_first_word_that_only_fits_without_the_start_of_the_line_moves_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert wrapped("0123456789abcdef end", first="checksum: ") == "checksum:\n  0123456789abcdef\n  end"
    assert wrapped("/a/path/of-twenty-two-x", first="path: ") == "path: /a/path/of-twenty-two-x"


def test_a_terminal_narrower_than_the_indent_gets_one_word_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "2")
    assert wrapped("one two", first="> ", rest="    ") == "> one\n    two"


def test_wrapped_empty_text_keeps_the_start_of_the_line() -> None:
    assert wrapped("") == ""
    assert wrapped("", first="name: ") == "name:"


def test_an_outline_shows_names_values_and_their_parts() -> None:
    facts = {
        "name": "x",
        "a long name of it": 1,
        "sizes": [1, 20_000],
        "steps": [{"lr": 0.1}, {"lr": None}],
        "none": {},
    }
    assert outline(facts).splitlines() == [
        "name          x",
        "a long name of it 1",
        "sizes         1, 20,000",
        "steps",
        "  1:",
        "    lr: 0.1",
        "  2:",
        "    lr: none",
        "none",
    ]


def test_a_table_that_is_too_wide_becomes_one_block_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "a", "size": 1_000, "problem": ""}, {"name": "b", "size": 2, "problem": "damaged"}]
    monkeypatch.setenv("COLUMNS", "20")
    assert fitting_table(rows) == "name   size  problem\na     1,000\nb         2  damaged"
    monkeypatch.setenv("COLUMNS", "19")
    assert fitting_table(rows).splitlines() == [
        "name          a",
        "size          1,000",
        "",
        "name          b",
        "size          2",
        "problem       damaged",
    ]
    assert fitting_table([]) == "(none)"
