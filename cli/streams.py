"""Standard output and error that may be closed, full, or a pipe whose reader has ended.

No such stream may cost an output file, so a command never fails while it prints. What cannot be printed is dropped.
The failure of standard output is reported when the command ends; a reader that has ended, as in `| head`, is none.
"""

import errno
import io
import os
import select
import sys
from typing import Any


class _Lasting(io.FileIO):
    """A stream that remembers its first error instead of raising it."""

    failed: OSError | None = None

    def write(self, content: Any) -> int:
        written: int | None = None
        while self.failed is None and written is None:
            try:
                written = super().write(content)
                if written is None:  # a pipe that does not block is full
                    select.select([], [self.fileno()], [])
            except OSError as error:
                self.failed = error
        return memoryview(content).nbytes if written is None else written


def make_lasting() -> None:
    """Replace standard output and error of this process; other streams, such as those of tests, stay."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: otherwise the next file that is opened would take its number, and what is printed
            flags = os.O_WRONLY if descriptor == 2 else os.O_RDONLY
            os.set_inheritable(os.open(os.devnull, flags), True)
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)


def _lasting(stream: Any, descriptor: int) -> Any:
    if stream is not None and not (type(stream) is io.TextIOWrapper and stream.fileno() == descriptor):
        return stream
    buffer = io.BufferedWriter(_Lasting(descriptor, "w", closefd=False))
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding if stream is not None else "utf-8",
        errors="backslashreplace",  # file names may not fit the encoding
        line_buffering=stream is None or stream.line_buffering,
        write_through=stream is not None and stream.write_through,
    )


def stdout_failure() -> OSError | None:
    """Why what was printed on standard output did not arrive; None if all of it did so far."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failed if isinstance(raw, _Lasting) else None


def end_of_output() -> str:
    """Print what still waits. Returns why standard output did not arrive; empty if it did, or if its reader ended."""
    sys.stdout.flush()
    failure = stdout_failure()
    return "" if failure is None or failure.errno == errno.EPIPE else failure.strerror or str(failure)
