"""Capture the log lines of rtk."""

import logging
from collections.abc import Callable
from typing import Any


class _Listener(logging.Handler):
    def __init__(self, listener: Callable[[str], Any]) -> None:
        super().__init__()
        self.listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        self.listener(record.getMessage())


def logged(listener: Callable[[str], Any], function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call the function and return its result. The listener gets each log line, and may raise to stop the call."""
    log, handler = logging.getLogger("rtk"), _Listener(listener)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        return function(*arguments, **options)
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
