"""Ctrl-C and SIGTERM as a request that the training checks between two steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal stopped the training, and everything that resuming needs is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        """The number of the signal."""


class StopRequest:
    """The first stop signal that has arrived."""

    def __init__(self) -> None:
        self.number = 0
        """The number of the signal; 0 if none has arrived."""

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. A second Ctrl-C raises KeyboardInterrupt at once instead of waiting for the step's end."""
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Within the block, stop signals set the request instead of ending the process.

    Python allows this in the main thread only; in any other thread signals keep their effect.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.handle) for number in STOPS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
