"""Answers on their way into a file, so that nothing which ends the process costs more than the last moment's work.

While FILE is being made, its rows are in FILE.part, and what they belong to in FILE.part.json; at the end FILE.part
becomes FILE in one step. Going on keeps the rows that are whole, checks that they are those of the same images, and
answers from the beginning of the last batch, so that the batches, and with them the last digit of every probability,
are those of a run that was never ended.
"""

import contextlib
import itertools
import json
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self

from ...core.errors import OutputError, RtkError, UsageError
from ...core.files import locked
from ..classify import Answer, BatchEnds
from ..sources.entry import Entry
from .formats import Format, TextFormat
from .rows import columns, file_of_line, file_text, lines

_log = logging.getLogger(__name__)

FLUSH_S = 0.5
"""Rows wait in this process at most so long."""


@dataclass(frozen=True)
class RunKey:
    """What must be the same for a run to go on."""

    model: str
    backend: str
    format: Format
    top_k: int
    batch_size: int
    fit: str


class Journal:
    """The rows of one run. Use it in a `with`: left without `finish`, it keeps the rows and says how to go on."""

    def __init__(self, target: Path, key: RunKey, *, resume: bool) -> None:
        """Raises OutputError when nothing can be written there, UsageError when the other run was a different one."""
        self.target = Path(os.path.realpath(target))
        self.part = self.target.with_name(f"{self.target.name}.part")
        self._about = self.target.with_name(f"{self.target.name}.part.json")
        self.name, self.key = target, key
        self.text: TextFormat = "csv" if key.format == "csv" else "jsonl"
        self.rows = 0
        """Rows that are written, those from before included."""
        self.unreadable_before = 0
        """How many of the rows from before have an error."""
        self._again = 0
        self._heading = ",".join(columns(key.top_k)) + "\n" if self.text == "csv" else ""
        if os.path.isdir(target):
            raise OutputError(f"{target}: cannot be written: Is a directory")
        with self._writing(), contextlib.ExitStack() as stack:
            stack.enter_context(locked(self._about))
            self.is_whole = resume and self.target.exists() and not self.part.exists()
            """Whether there is nothing to go on with, for the other run has ended well."""
            if resume and self.part.exists():
                self._check_key()
            elif not self.is_whole:
                self.part.unlink(missing_ok=True)
                self._about.write_text(json.dumps(asdict(key)), encoding="utf-8")  # whole before there is a part
                self.part.write_text(self._heading, encoding="utf-8")
            else:
                self._about.unlink(missing_ok=True)
            self._keeping = stack.pop_all()

    def _check_key(self) -> None:
        try:
            before = json.loads(self._about.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{self._about}: missing or damaged; start anew without --resume") from error
        for name, now in asdict(self.key).items():
            if (then := before.get(name)) != now:
                what = f"was begun with {name.replace('_', ' ')} {then}, not {now}"
                raise UsageError(f"{self.part}: {what}; start anew without --resume")

    def remaining(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries that are still to be answered, from the beginning of the batch that the last row belongs to.

        Raises UsageError when the entries are not those of the rows that are there.
        """
        iterator = iter(entries)
        batch: list[Entry] = []  # of the rows since the last whole batch
        ends, size = BatchEnds(self.key.batch_size), 0
        with self._writing(), self.part.open("rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                if number == 0 and self._heading:
                    continue
                entry = next(iterator, None)
                try:
                    name, failed = file_of_line(line.decode("utf-8"), self.text)
                except ValueError as error:
                    raise UsageError(
                        f"{self.part}: damaged in line {number + 1}; start anew without --resume"
                    ) from error
                if entry is None or name != file_text(entry.name, self.text):
                    raise UsageError(
                        f"{self.part}: line {number + 1} is about {name}, but the image there is now "
                        f"{entry.name if entry else 'none'}: the sources have changed; start anew without --resume"
                    )
                self.rows += 1
                self.unreadable_before += failed
                batch.append(entry)
                if ends.with_this(readable=not failed):
                    batch.clear()
            if not size and self._heading:
                self.part.write_text(self._heading, encoding="utf-8")
            else:
                os.truncate(self.part, size)
        self._again = len(batch)
        yield from batch
        del batch
        yield from iterator

    def new(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """The answers to `remaining`, without those whose rows are there already."""
        iterator = iter(answers)
        first = next(iterator, None)  # only now it is known how many these are
        every = itertools.chain([] if first is None else [first], iterator)
        return itertools.islice(every, self._again, None)

    def write(self, answers: Iterable[Answer]) -> None:
        """Write the answers as rows."""
        with self._writing(), _appended(self.part) as file:
            for line in lines(answers, self.text, top_k=self.key.top_k, heading=False):
                file.write(line.encode())
                self.rows += 1

    def finish(self) -> None:
        """Make FILE of the rows."""
        with self._writing():
            if self.key.format == "parquet":
                from .parquet import parquet_from_jsonl

                made = self.target.with_name(f"{self.target.name}.part.parquet")  # a name to be found again, if killed
                with made.open("wb") as file:
                    parquet_from_jsonl(self.part, file, top_k=self.key.top_k)
                _to_disk(made)
                made.replace(self.target)
                self.part.unlink()
            else:
                _to_disk(self.part)
                self.part.replace(self.target)
            self._about.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.name}: cannot be written: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._keeping.close()
        if error is None or isinstance(error, UsageError) or not self.part.exists():
            return
        if self.rows == 0 and isinstance(error, RtkError):
            self.part.unlink(missing_ok=True)
            self._about.unlink(missing_ok=True)
        else:
            _log.warning(f"{self.rows:,} answers are in {self.part}; to go on: the same command with --resume")


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _appended(path: Path) -> Iterator[IO[bytes]]:
    """The file's end, for writing; what is written is in the system's hands at most FLUSH_S later."""
    closed = threading.Event()
    with path.open("ab") as file:

        def flush_now_and_then() -> None:
            while not closed.wait(FLUSH_S):
                with contextlib.suppress(OSError, ValueError):  # which whoever writes next, or closes, is told
                    file.flush()

        flushing = threading.Thread(target=flush_now_and_then, daemon=True)
        flushing.start()
        try:
            yield file
        finally:
            closed.set()
            flushing.join()
