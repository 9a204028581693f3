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


def wait_until_quiet(*, limit_s: float | None = None) -> None:
    """Wait until other processes take next to nothing of the cores.

    Returns at once where the system does not report their load. Raises LimitError after `limit_s`, by default
    WAIT_LIMIT_S.
    """
    limit_s = WAIT_LIMIT_S if limit_s is None else limit_s
    started_at, said = time.monotonic(), False
    while True:
        wait_until_idle()
        others = other_cores_now()
        if others is None or others <= quiet_cores(core_count()):
            return
        if time.monotonic() - started_at > limit_s:
            raise LimitError(
                f"--wait-quiet: after {limit_s:.0f} s other processes still take {others / core_count():.0%} of "
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
    """What a measurement calls before each round: nothing, or `wait_until_quiet`; WAIT_LIMIT_S holds for all rounds.

    Only the first wait raises; when the time is over later, the other rounds are measured without waiting.
    """
    if not wait:
        return lambda: None
    left_s, rounds = WAIT_LIMIT_S, 0

    def before_round() -> None:
        nonlocal left_s, rounds
        if left_s <= 0:
            return
        started_at = time.monotonic()
        try:
            wait_until_quiet(limit_s=left_s)
        except LimitError as error:
            if not rounds:
                raise
            _log.warning(f"{error}; the other rounds are measured without waiting")
            left_s = 0.0
        left_s -= time.monotonic() - started_at
        rounds += 1

    return before_round
