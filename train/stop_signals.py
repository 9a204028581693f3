"""Ctrl-C and SIGTERM as a wish that the training heeds between two steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A training that was told to stop, and that has saved what it needs to go on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        """Of the signal."""


class Wish:
    """Whether a signal has come, and which."""

    def __init__(self) -> None:
        self.number = 0
        """Of the first signal that came; 0 before."""

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler. Ctrl-C for a second time no longer waits for the step to end."""
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number


@contextlib.contextmanager
def stop_signals() -> Iterator[Wish]:
    """While the block runs, signals are noted instead of ending the process; only the main thread can ask for that."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.signal(number, wish.note) for number in STOPS}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
