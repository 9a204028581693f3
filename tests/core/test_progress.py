"""A bar is drawn for a terminal alone, and learns on its way how much there is."""

import io
import time

import pytest
from rtk.core.progress import progress_bar


class Terminal(io.StringIO):
    """Standard error as a terminal, or not."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def waits_for(self, words: str) -> bool:
        deadline = time.monotonic() + 20
        while words not in self.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        return words in self.getvalue()


def test_nothing_is_drawn_or_counted_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal(is_terminal=False)
    monkeypatch.setattr("sys.stderr", stderr)

    def total() -> int:
        raise AssertionError

    with progress_bar("classifying", total, unit="images") as advance:
        advance(3)
    assert stderr.getvalue() == ""


@pytest.mark.parametrize("total", [40, lambda: 40])
def test_a_total_that_is_found_out_is_shown_as_one_that_was_known(
    monkeypatch: pytest.MonkeyPatch, total: object
) -> None:
    stderr = Terminal(is_terminal=True)
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("classifying", total, unit="images") as advance:  # type: ignore[arg-type]
        advance(10)
        assert stderr.waits_for("10/40")
    assert "classifying" in stderr.getvalue()


def test_a_total_that_cannot_be_told_leaves_the_bar_going(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal(is_terminal=True)
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("classifying", lambda: None, unit="images") as advance:
        advance(10)
        assert stderr.waits_for("10/?")
