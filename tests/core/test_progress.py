"""A progress bar is only for a terminal, and may get its total while it runs."""

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
        deadline = time.monotonic() + 120
        while words not in self.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        return words in self.getvalue()


def test_without_a_terminal_nothing_is_printed_or_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal(is_terminal=False)
    monkeypatch.setattr("sys.stderr", stderr)

    def total() -> int:
        raise AssertionError

    with progress_bar("classifying", total, unit="images") as advance:
        advance(3)
    assert stderr.getvalue() == ""


@pytest.mark.parametrize("total", [40, lambda: 40])
def test_a_total_from_a_function_is_shown_like_a_known_total(monkeypatch: pytest.MonkeyPatch, total: object) -> None:
    stderr = Terminal(is_terminal=True)
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("classifying", total, unit="images") as advance:  # type: ignore[arg-type]
        advance(10)
        assert stderr.waits_for("10/40")
    assert "classifying" in stderr.getvalue()


def test_the_bar_runs_without_a_known_total(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal(is_terminal=True)
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("classifying", lambda: None, unit="images") as advance:
        advance(10)
        assert stderr.waits_for("10/?")


def test_a_million_images_cost_the_bar_no_update_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.progress import Progress

    stderr, updates = Terminal(is_terminal=True), 0
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    original = {name: getattr(Progress, name) for name in ("advance", "update")}

    def counted(name: str) -> object:
        def call(*arguments: object, **options: object) -> None:
            nonlocal updates
            updates += 1
            original[name](*arguments, **options)

        return call

    for name in original:
        monkeypatch.setattr(Progress, name, counted(name))
    with progress_bar("classifying", 1_000_000, unit="images") as advance:
        for _ in range(1_000_000):
            advance(1)
        assert stderr.waits_for("1000000/1000000")
    assert updates < 1_000  # four per second
