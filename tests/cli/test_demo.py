"""rtk demo ends with the first command that does not end well, and with its exit code."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rtk.cli import demo
from rtk.cli.options import INTERRUPTED
from rtk.core.errors import ParityError

STEPS = ["train", "export", "classify", "bench"]


def exiting(code: int) -> Callable[[], None]:
    def stop() -> None:
        raise typer.Exit(code)

    return stop


def ctrl_c() -> None:
    raise KeyboardInterrupt


def demo_with(fails: str, ending: Callable[[], None], done: list[str]) -> typer.Typer:
    """An app with rtk's demo, and in place of its commands some that note their name; the one named `fails` ends so."""
    app = typer.Typer()
    app.command()(demo.demo)

    def register(name: str) -> None:
        @app.command(name, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
        def command() -> None:
            done.append(name)
            if name == fails:
                ending()

    for name in STEPS:
        register(name)
    return app


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("ending", "code"), [(exiting(3), 3), (ctrl_c, INTERRUPTED)], ids=["exit code", "Ctrl-C"])
def test_a_command_that_fails_or_is_stopped_ends_the_demo_with_its_exit_code(
    step: str, ending: Callable[[], None], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []
    app = demo_with(step, ending, done)
    assert app(["demo", "--out", str(tmp_path)], standalone_mode=False) == code
    assert done == STEPS[: STEPS.index(step) + 1]
    printed = capsys.readouterr().out
    assert "output: " not in printed
    assert "success" not in printed


def test_an_error_of_a_command_ends_the_demo(tmp_path: Path) -> None:
    def refuse() -> None:
        raise ParityError("no parity")

    with pytest.raises(ParityError):
        demo_with("export", refuse, [])(["demo", "--out", str(tmp_path)], standalone_mode=False)


def test_a_demo_in_which_all_goes_well_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    assert not demo_with("none", ctrl_c, done)(["demo", "--out", str(tmp_path)], standalone_mode=False)
    assert done == STEPS
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("output: ")
    assert lines[-1] == "success: parity on every backend: under 0.5 points of accuracy are lost"
    assert "--require-parity 0.5" in next(line for line in lines if line.startswith("$ rtk bench"))


def test_the_command_line_passes_the_exit_code_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtk.cli import app as cli

    monkeypatch.setattr(cli, "app", demo_with("classify", exiting(3), []))
    monkeypatch.setattr(sys, "argv", ["rtk", "demo", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 3
