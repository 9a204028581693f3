"""make gpu goes on after a step that fails, but not after Ctrl-C."""

import sys
from pathlib import Path

import pytest
from rtk.tools import gpu_checks


def exit_with(code: int) -> list[str]:
    return [sys.executable, "-c", f"import sys; sys.exit({code})"]


def test_a_failed_step_is_counted_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_checks, "steps", lambda out: {"a": exit_with(1), "b": exit_with(0)})
    assert gpu_checks.run_steps(tmp_path, []) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


# A shell may have started the tests in the background, where SIGINT is ignored.
INTERRUPTED = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize("stopped", [exit_with(130), [sys.executable, "-c", INTERRUPTED]])
def test_ctrl_c_in_a_step_ends_all(stopped: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_checks, "steps", lambda out: {"a": stopped, "b": exit_with(0)})
    monkeypatch.setattr(sys, "argv", ["gpu_checks", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        gpu_checks.main()
    assert ended.value.code == 130
    assert not (tmp_path / "b.txt").exists()
