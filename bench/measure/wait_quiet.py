"""Waiting until other processes leave the cores alone."""

import logging
import time
from collections.abc import Callable

from ...core.errors import LimitError
from .cell import quiet_cores
from .other_load import core_count, read_clocks
from .timing import wait_until_idle

WINDOW_S = 0.25
"""The load is averaged over this time: many of the system's ticks of 10 ms."""
WAIT_LIMIT_S = 600.0

_log = logging.getLogger(__name__)


def wait_until_quiet() -> None:
    """Wait until other processes take next to nothing of the cores.

    Returns at once where the system does not report their load. Raises LimitError after WAIT_LIMIT_S.
    """
    started_at, said = time.monotonic(), False
    while True:
        wait_until_idle()
        others = other_cores_now()
        if others is None or others <= quiet_cores(core_count()):
            return
        if time.monotonic() - started_at > WAIT_LIMIT_S:
            raise LimitError(
                f"--wait-quiet: after {WAIT_LIMIT_S:.0f} s other processes still take {others / core_count():.0%} of "
                f"the {core_count()} cores; end them, or measure without --wait-quiet"
            )
        if not said:
            _log.info(f"waiting: other processes take {others / core_count():.0%} of the {core_count()} cores")
            said = True


def other_cores_now() -> float | None:
    """Cores that other processes take during WINDOW_S; None where the system does not report it."""
    before = read_clocks()
    time.sleep(WINDOW_S)
    return read_clocks().other_cores_since(before)


def before_each_round(*, wait: bool) -> Callable[[], None]:
    """What a measurement calls before each round: nothing, or `wait_until_quiet`.

    Only the first wait raises; a later one that takes too long is the last, so that no round is lost.
    """
    state = {"first": True, "wait": wait}

    def before_round() -> None:
        if not state["wait"]:
            return
        try:
            wait_until_quiet()
        except LimitError as error:
            if state["first"]:
                raise
            _log.warning(f"{error}; the other rounds are measured without waiting")
            state["wait"] = False
        state["first"] = False

    return before_round
