"""A file of answers that can be resumed: whatever ends the process, only the work of the last moment is lost.

While FILE is being made, its rows are in FILE.part, and what identifies the run is in FILE.part.json. At the end
FILE.part becomes FILE in one step. A resumed run keeps the complete rows, checks that they belong to the same images,
and classifies again from the start of the last batch. So the batches are those of an uninterrupted run, and with them
the last digit of every probability.
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

from ...core.data.sources.entry import Entry
from ...core.errors import OutputError, RtkError, UsageError
from ...core.files import locked, writing
from ..classify import Answer, BatchEnds
from .formats import Format, RowFormat
from .rows import file_of_line, file_text, heading, lines

_log = logging.getLogger(__name__)

FLUSH_S = 0.5
"""Rows stay in this process's buffer no longer than this."""
RESTART = "start again without --resume"


@dataclass(frozen=True)
class RunKey:
    """What two runs must have in common for one to resume the other."""

    model: str
    backend: str
    format: Format
    top_k: int
    batch_size: int
    fit: str
    csv_bom: bool = False


def unfinished_backend(target: Path) -> str | None:
    """The backend of the unfinished run that a run with --resume continues; None without such a run.

    Also None if the files of the unfinished run are damaged: ResumableOutput refuses those.
    """
    part, key_file = _unfinished_files(target)
    if not part.exists():
        return None
    try:
        key = json.loads(key_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    backend = key.get("backend") if isinstance(key, dict) else None
    return backend if isinstance(backend, str) else None


def _unfinished_files(target: Path) -> tuple[Path, Path]:
    """The rows of an unfinished run, and what identifies the run. Links are followed."""
    real = Path(os.path.realpath(target))
    return real.with_name(f"{real.name}.part"), real.with_name(f"{real.name}.part.json")


class ResumableOutput:
    """The rows of one run. Use it in a `with`: without `finish`, it keeps the rows and logs how to resume."""

    def __init__(self, target: Path, key: RunKey, *, resume: bool) -> None:
        """Raises OutputError if the file cannot be written, UsageError if the run to resume has another key."""
        self.target = Path(os.path.realpath(target))
        self.part, self._key_file = _unfinished_files(target)
        self.name, self.key = target, key
        self.text: RowFormat = key.format if key.format in ("csv", "tsv") else "jsonl"
        self.rows = 0
        """Rows in the file, including those of the earlier run."""
        self.unreadable_before = 0
        """How many rows of the earlier run have an error."""
        self._repeated = 0
        """Answers that are computed again although their rows exist, to start at a batch boundary."""
        self._heading = heading(self.text, key.top_k, mark=key.csv_bom)
        if os.path.isdir(target):
            raise OutputError(f"{target}: cannot be written: Is a directory")
        with self._write_errors(), contextlib.ExitStack() as stack:
            stack.enter_context(locked(self._key_file))
            self.is_finished = resume and self.target.exists() and not self.part.exists()
            """Whether there is nothing to resume because the earlier run finished."""
            if resume and self.part.exists():
                self._check_key()
            elif not self.is_finished:
                self._start_again()
            else:
                self._key_file.unlink(missing_ok=True)
            self._lock = stack.pop_all()

    def _check_key(self) -> None:
        try:
            before = dict(json.loads(self._key_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{self._key_file}: missing or damaged; {RESTART}") from error
        for name, now in asdict(self.key).items():
            if (then := before.get(name)) != now:
                difference = f"was started with {name.replace('_', ' ')} {then}, not {now}"
                raise UsageError(f"{self.part}: {difference}; {RESTART}")

    def _start_again(self) -> None:
        self.part.unlink(missing_ok=True)
        self._key_file.write_text(json.dumps(asdict(self.key)), encoding="utf-8")  # complete before the part exists
        self.part.write_text(self._heading, encoding="utf-8")

    def remaining(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the entries to classify, from the start of the batch that the last row belongs to.

        Raises UsageError if the entries are not those of the existing rows.
        """
        iterator = iter(entries)
        last_batch: list[Entry] = []  # entries of the existing rows after the last complete batch
        ends, complete_bytes = BatchEnds(self.key.batch_size), 0
        for number, line in self._existing_lines():
            if not line.endswith(b"\n"):
                break
            complete_bytes += len(line)
            if number == 1 and self._heading:
                continue
            entry, failed = self._matching_entry(line, number, next(iterator, None))
            self.rows += 1
            self.unreadable_before += failed
            last_batch.append(entry)
            if ends.ends_with(readable=not failed):
                last_batch.clear()
        with self._write_errors():
            if not complete_bytes and self._heading:
                self.part.write_text(self._heading, encoding="utf-8")
            else:
                os.truncate(self.part, complete_bytes)
        self._repeated = len(last_batch)
        yield from last_batch
        del last_batch
        yield from iterator

    def _existing_lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield number and content of the lines in the part. Errors of the caller, between them, are not converted."""
        with self._write_errors(), self.part.open("rb") as file:
            yield from enumerate(file, 1)

    def _matching_entry(self, line: bytes, number: int, entry: Entry | None) -> tuple[Entry, bool]:
        """The entry, which must be the one of this row, and whether the row has an error. Raises UsageError."""
        try:
            name, failed = file_of_line(line.decode("utf-8"), self.text)
        except ValueError as error:
            raise UsageError(f"{self.part}: damaged in line {number}; {RESTART}") from error
        if entry is None or name != file_text(entry.name, self.text):
            raise UsageError(
                f"{self.part}: line {number} is about {name}, but the sources now have "
                f"{entry.name if entry else 'no image'} there; {RESTART}"
            )
        return entry, failed

    def new(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """The answers to `remaining`, without those that already have rows."""
        iterator = iter(answers)
        first = next(iterator, None)  # this runs `remaining`, which sets `_repeated`
        every = itertools.chain([] if first is None else [first], iterator)
        return itertools.islice(every, self._repeated, None)

    def write(self, answers: Iterable[Answer]) -> None:
        """Append the answers as rows."""
        with _appended(self.part, shown=self.name) as file:
            for line in lines(answers, self.text, top_k=self.key.top_k, with_heading=False):
                file.write(line.encode())
                self.rows += 1

    def finish(self) -> None:
        """Turn the rows into FILE."""
        with self._write_errors():
            if self.key.format == "parquet":
                self._finish_parquet()
            else:
                _to_disk(self.part)
                self.part.replace(self.target)
            self._key_file.unlink(missing_ok=True)

    def _finish_parquet(self) -> None:
        from .parquet import parquet_from_jsonl

        # A fixed name: the next run replaces the file if this process is killed.
        made = self.target.with_name(f"{self.target.name}.part.parquet")
        with made.open("wb") as file:
            parquet_from_jsonl(self.part, file, top_k=self.key.top_k)
        _to_disk(made)
        made.replace(self.target)
        self.part.unlink()

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Convert the system's errors to OutputError."""
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.name}: cannot be written: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._lock.close()
        if error is None or isinstance(error, UsageError) or not self.part.exists():
            return
        if self.rows == 0 and isinstance(error, RtkError):
            self.part.unlink(missing_ok=True)
            self._key_file.unlink(missing_ok=True)
        else:
            _log.warning(f"{self.rows:,} answers are in {self.part}; to resume, run the same command with --resume")


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _appended(path: Path, *, shown: Path) -> Iterator[IO[bytes]]:
    """Open the file for appending; what is written reaches the system within FLUSH_S. `shown`: its name in errors."""
    closed = threading.Event()
    with writing(path, append=True, shown=shown) as file:

        def flush_regularly() -> None:
            while not closed.wait(FLUSH_S):
                with contextlib.suppress(OSError, ValueError):  # the next write, or close, raises the same error
                    file.flush()

        flushing = threading.Thread(target=flush_regularly, daemon=True)
        flushing.start()
        try:
            yield file
        finally:
            closed.set()
            flushing.join()
