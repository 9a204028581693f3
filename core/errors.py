"""All errors that rtk raises on purpose. Each message is one line: subject, what was found, what to do.

`exit_code` is the exit code of a command that ends with the error: 1 something failed, 2 wrong usage, 3 some inputs
cannot be read, 4 parity or a limit is not met, 5 too few images to decide on parity.
"""

import difflib
import logging
from collections.abc import Iterable

_log = logging.getLogger(__name__)


class RtkError(Exception):
    """Base class of all errors; it is never raised itself."""

    exit_code = 1


class UsageError(RtkError):
    """An option, a name or a combination of options that is not valid."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ask for the most similar of the known names; empty if none is similar."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


class UnknownNameError(UsageError):
    """A name that rtk does not know; the message lists the known names."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        names = list(known)
        meant = did_you_mean(name, names)
        super().__init__(
            f"{kind} {name!r} is unknown; {meant + ' ' if meant else ''}{hint or 'known: ' + ', '.join(names)}"
        )


class DataError(RtkError):
    """A data set that is missing, incomplete or not in its format."""


class ArtifactError(RtkError):
    """A checkpoint, graph or engine that is missing, damaged, refused or from another program."""


class BackendError(RtkError):
    """A backend that cannot run on this machine, or that failed while it ran."""


class UnavailableError(BackendError):
    """A library that is not installed, or that does not support this machine's GPU; nothing has failed."""


class OtherGpuError(ArtifactError):
    """An engine that has no code for this machine's GPU; nothing has failed."""


class ImageError(RtkError):
    """One image that cannot be read; the other images are still processed."""

    exit_code = 3


class OutputError(RtkError):
    """A file or folder that cannot be written."""


class TrainingError(RtkError):
    """Training that cannot continue, for example because the loss is not finite."""


class LimitError(RtkError):
    """A benchmark result that is worse than its limit."""

    exit_code = 4


class ParityError(RtkError):
    """A candidate whose answers differ from the reference by more than is allowed."""

    exit_code = 4


class InconclusiveError(RtkError):
    """A candidate in which no fault was found, but too few images to show what --require-parity asks."""

    exit_code = 5


def noted(error: RtkError) -> str:
    """The text of an error that a report notes while the command goes on; `rtk --debug` prints its traceback."""
    _log.debug(str(error), exc_info=error)
    return str(error)
