"""Every error that rtk raises on purpose, as a tree. Each message is one line: subject, what was found, what to do.

`exit_code` is what the command returns when the error reaches it: 1 something failed, 2 wrong usage, 3 some inputs
could not be read, 4 parity or a limit not met.
"""

import difflib
from collections.abc import Iterable


class RtkError(Exception):
    """The root of the tree; never raised itself."""

    exit_code = 1


class UsageError(RtkError):
    """An option, name or combination of options that makes no sense."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that rtk does not know; the message lists those that it knows."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        names = list(known)
        close = difflib.get_close_matches(name, names, n=1)
        guess = f"did you mean {close[0]}? " if close else ""
        super().__init__(f"{kind} {name!r} is unknown; {guess}{hint or 'known: ' + ', '.join(names)}")


class DataError(RtkError):
    """A data set that is missing, incomplete or not what its format says."""


class ArtifactError(RtkError):
    """A checkpoint, graph or engine that is missing, damaged, foreign or refused."""


class BackendError(RtkError):
    """A backend that cannot run here, or that failed while running."""


class ImageError(RtkError):
    """One image that cannot be read; the others go on."""

    exit_code = 3


class OutputError(RtkError):
    """A file or folder that cannot be written."""


class TrainingError(RtkError):
    """Training that cannot go on, such as a loss that is no longer finite."""


class LimitError(RtkError):
    """A benchmark that is worse than its limit allows."""

    exit_code = 4


class ParityError(RtkError):
    """A candidate whose answers differ from the reference's by more than was allowed."""

    exit_code = 4
