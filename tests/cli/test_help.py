"""`--help` of every command: groups of options, at the width of the terminal."""

import dataclasses
import re
from collections.abc import Iterator

import pytest
import typer
from rtk.cli import app as cli
from rtk.cli.classify import ClassifyOptions
from rtk.core.text import WIDEST


def commands() -> Iterator[list[str]]:
    """The words of every command that help lists, groups of commands included."""

    def below(command: object, words: list[str]) -> Iterator[list[str]]:
        yield words
        for name, inner in getattr(command, "commands", {}).items():
            if not inner.hidden:
                yield from below(inner, [*words, name])

    return below(typer.main.get_command(cli.app), [])


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a command's help."""
    cli.app([*words, "--help"], standalone_mode=False)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
@pytest.mark.parametrize("columns", [80, 100])
def test_help_fits_the_terminal(
    words: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help_of(words, capsys)
    assert lines[0].startswith(f"Usage: {' '.join(['rtk', *words])}") or lines[0].startswith("Usage: ")
    assert [line for line in lines if len(line) > columns] == []


def test_help_uses_a_wide_terminal_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    widths = [len(line) for line in help_of(["train"], capsys)]
    assert 100 < max(widths) <= WIDEST


def test_the_list_of_commands_is_not_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = help_of([], capsys)
    assert not any(line.endswith("...") for line in lines[1:])
    assert all(len(summary) <= 60 for summary in cli.SUMMARIES.values())


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_placeholders_are_words_and_not_python_types(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(help_of(words, capsys))
    assert not re.search(r"<(str|int|float|path|list|int range)\b", text)
    assert "{" not in text


def test_usage_names_the_arguments_in_capitals(capsys: pytest.CaptureFixture[str]) -> None:
    assert help_of(["classify"], capsys)[0].endswith("classify [OPTIONS] PATHS...")
    assert help_of(["export"], capsys)[0].endswith("export [OPTIONS] MODEL...")
    assert help_of(["train"], capsys)[0].endswith("train [OPTIONS] [ARCH]")


@pytest.mark.parametrize("command", ["train", "export", "classify", "bench"])
def test_options_are_listed_in_groups(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = typer.main.get_command(cli.app).commands[command]  # type: ignore[attr-defined]
    shown = [one for one in found.params if one.param_type_name == "option" and not one.hidden]
    without = [one.name for one in shown if not one.rich_help_panel]
    assert len(shown) > 10
    assert without == []
    assert len({one.rich_help_panel for one in shown}) >= 3


def test_every_option_and_command_has_a_help_text() -> None:
    def check(command: object, words: list[str]) -> list[str]:
        missing = [] if command.help else [" ".join(words)]  # type: ignore[attr-defined]
        for one in command.params:  # type: ignore[attr-defined]
            if not getattr(one, "hidden", False) and not one.help:
                missing.append(" ".join([*words, one.name]))
        for name, inner in getattr(command, "commands", {}).items():
            missing += check(inner, [*words, name])
        return missing

    assert check(typer.main.get_command(cli.app), ["rtk"]) == []


def test_the_options_of_classify_have_the_names_and_defaults_of_their_fields() -> None:
    found = {one.name: one for one in typer.main.get_command(cli.app).commands["classify"].params}  # type: ignore[attr-defined]
    fields = {field.name: field for field in dataclasses.fields(ClassifyOptions)}
    assert found.keys() == fields.keys()
    assert {name: found[name].default for name in fields if name != "paths"} == {
        name: field.default for name, field in fields.items() if name != "paths"
    }
    spelled = {name: found[name].opts for name in ("model", "requested_format", "output", "link", "top_k")}
    assert spelled == {
        "model": ["--model", "-m"],
        "requested_format": ["--format"],
        "output": ["--output", "-o"],
        "link": ["--link"],
        "top_k": ["--top-k"],
    }


@pytest.mark.parametrize(("option", "least"), [("--batch-size", 1), ("--top-k", 1), ("--workers", 0)])
def test_classify_refuses_numbers_below_the_limit(option: str, least: int) -> None:
    command = typer.main.get_command(cli.app).commands["classify"]  # type: ignore[attr-defined]
    assert command.make_context("classify", ["a.png", option, str(least)])
    with pytest.raises(Exception) as caught:
        command.make_context("classify", ["a.png", option, str(least - 1)])
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]
