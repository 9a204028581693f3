"""Which commands import the code that a checkpoint names, and which ask first or need none."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import networks

CommandLine = Callable[..., tuple[str, str]]

MODULE = "nets_of_others"
ASKS = f"wants to import {MODULE}; if you trust it, add --allow-code {MODULE}"


@pytest.fixture
def forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that makes this process like a new one: nothing is allowed, and the module is not loaded.

    The cache is the test's own: the same run gives the same checkpoint, whose graph another test may have exported.
    """
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "own-cache"))
    monkeypatch.syspath_prepend(tmp_path)

    def again() -> None:
        monkeypatch.setattr("rtk.core.models.allowed_code._allowed", set[str]())
        monkeypatch.delitem(sys.modules, MODULE, raising=False)

    again()
    return again


@pytest.fixture
def run(tmp_path: Path, class_folders: Path, forget: Callable[[], None], command_line: CommandLine) -> Path:
    """A run of a small network of other code, in the folder where its module is."""
    shutil.copy(networks.__file__, tmp_path / f"{MODULE}.py")
    options = ("--recipe", "quick", "--epochs", "1", "--compile", "off", "--no-eval", "--out", "run")
    command_line("train", f"{MODULE}:Mobile", "--net-arg", "width=4", "--dataset", str(class_folders), *options)
    forget()
    return tmp_path / "run"


@pytest.mark.torch
def test_commands_ask_before_they_import_code_that_a_checkpoint_names(
    run: Path, class_folders: Path, forget: Callable[[], None], command_line: CommandLine
) -> None:
    best, picture = str(run / "best.pt"), str(next(class_folders.rglob("*.png")))
    printed, _ = command_line("inspect", best)
    assert f"{MODULE}:Mobile(width=4)" in printed
    assert MODULE not in sys.modules
    commands = {
        ("export", best): 1,
        ("classify", picture, "-m", best, "--backend", "torch"): 1,
        ("classify", picture, "-m", best, "--backend", "onnx"): 1,
        ("eval", best, "--backend", "torch", "--dataset", str(class_folders)): 1,
        ("bench", best, "--backend", "torch", "--batch", "2", "--seconds", "0.1", "--no-baselines"): 1,
    }
    for command, code in commands.items():
        _, err = command_line(*command, code=code)
        assert ASKS in " ".join(err.split()), command
        assert "exporting" not in err
        assert MODULE not in sys.modules
    for command in commands:
        command_line(*command, "--allow-code", MODULE)
        assert MODULE in sys.modules
        forget()


@pytest.mark.torch
def test_a_run_is_resumed_and_its_weights_are_used_only_with_permission(
    run: Path,
    class_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    forget: Callable[[], None],
    command_line: CommandLine,
) -> None:
    network = (f"{MODULE}:Mobile", "--net-arg", "width=4", "--dataset", str(class_folders))
    options = ("--recipe", "finetune", "--epochs", "2", "--compile", "off", "--no-eval", "--out", "second")
    with monkeypatch.context() as patch:
        patch.setattr("rtk.train.run._Run._end_epoch", _terminated)
        command_line("train", *network, "--weights", str(run / "best.pt"), *options, code=128 + signal.SIGTERM)
    forget()
    _, err = command_line("train", "--resume", "second", code=1)
    assert ASKS in " ".join(err.split())
    command_line("train", "--resume", "second", "--no-eval", "--allow-code", MODULE)


def _terminated(self: Any, row: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    self._save(self.card, self._weights())


@pytest.mark.torch
@pytest.mark.usefixtures("without_self_check")
@pytest.mark.parametrize("arch", ["Mobile", "Attentive", "Flat"])
def test_a_network_that_is_named_is_measured_without_another_permission(
    arch: str, tmp_path: Path, forget: Callable[[], None], command_line: CommandLine
) -> None:
    forget()
    shutil.copy(networks.__file__, tmp_path / f"{MODULE}.py")
    quick = ("--image-size", "32", "--batch", "1", "--seconds", "0.1", "--backend", "torch", "--no-baselines")
    printed, _ = command_line("bench", f"{MODULE}:{arch}", *quick)
    assert "for 32 x 32 x 3 images and 1,000 classes; nothing is trained" in " ".join(printed.split())
    _, err = command_line("bench", f"{MODULE}:{arch}", "--net-arg", "witdh=8", *quick, code=2)
    assert "unexpected keyword argument 'witdh'" in err


@pytest.mark.torch
def test_a_graph_of_such_a_network_needs_no_code(
    run: Path, class_folders: Path, forget: Callable[[], None], command_line: CommandLine
) -> None:
    command_line("export", str(run / "best.pt"), "--allow-code", MODULE)
    forget()
    (run.parent / f"{MODULE}.py").unlink()
    graph = next(run.glob("*.onnx"))
    printed, _ = command_line("classify", str(class_folders), "-m", str(graph), "--backend", "onnx")
    assert len(printed.splitlines()) >= 24


@pytest.mark.torch
def test_a_graph_in_the_cache_is_made_anew_when_the_code_has_changed(
    run: Path, class_folders: Path, forget: Callable[[], None], command_line: CommandLine
) -> None:
    picture = str(next(class_folders.rglob("*.png")))
    command = ("classify", picture, "-m", str(run / "best.pt"), "--backend", "onnx", "--allow-code", MODULE)
    assert "exporting to ONNX" in command_line(*command)[1]
    assert "exporting to ONNX" not in command_line(*command)[1]
    forget()
    source = run.parent / f"{MODULE}.py"
    source.write_text(source.read_text() + "\n# changed\n")
    err = " ".join(command_line(*command)[1].split())
    assert f"the code of its network, {MODULE}:Mobile, has changed; it is not used, and made again" in err
    assert "exporting to ONNX" not in command_line(*command)[1]
