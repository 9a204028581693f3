"""The comparison of rtk classify on a terminal with rtk classify without one."""

from pathlib import Path

import pytest
from rtk.core.data.datasets import Dataset, Split
from rtk.tools import terminal_rate


@pytest.mark.torch
def test_both_ways_classify_every_image_and_the_ratio_is_printed(
    shapes64: Split, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal_rate, "open_dataset", lambda name: Dataset(name, ("a",), lambda split: shapes64))
    terminal_rate.main(images=80, rounds=2)
    printed, errors = capfd.readouterr()
    assert errors == ""
    assert printed.count("terminal: ") == printed.count("file: ") - 1 == 2
    assert "expected at least 0.97, 80 images, 2 runs each" in printed


def test_a_command_that_fails_ends_the_comparison_with_its_exit_code(tmp_path: Path) -> None:
    for terminal in (True, False):
        with pytest.raises(SystemExit, match="^3$"):
            terminal_rate.classify_s(tmp_path / "missing", tmp_path, terminal=terminal)
