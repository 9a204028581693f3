"""Decoding goes on where the system lets no processes start, or not in the usual way."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rtk.core.card import Input
from rtk.core.data import decode
from rtk.core.data.decode import Decoder
from rtk.core.data.sources.entry import Entry

SIZE = Input(4, 4, 3)
PIXELS = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)
"""Of another size than the model's, so that they need decoding."""


def raising(error: Exception) -> Callable[..., None]:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(errno.EACCES, "Permission denied"),
        ImportError("This platform lacks a functioning sem_open implementation"),
        NotImplementedError("system provides too few semaphores"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_without_room_in_dev_shm_this_process_decodes_and_one_line_says_so(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decode, "ProcessPoolExecutor", raising(error))
    monkeypatch.setattr(decode, "IMAGES_BEFORE_POOL", 1)
    entries = [Entry(str(number), content=PIXELS) for number in range(300)]
    with Decoder(SIZE, processes=2) as decoder:
        assert decoder.start() is None
        names = [name for chunk in decoder.chunks(entries) for name in chunk.names]
        assert decoder.process_ids == []
    assert names == [str(number) for number in range(300)]
    (line,) = caplog.messages
    assert line.startswith("no decoding processes: ")
    assert "/dev/shm" in line
    assert "TMPDIR" in line


def test_a_process_that_cannot_be_added_costs_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def submit(self, *arguments: object) -> None:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

        def shutdown(self, **options: object) -> None:
            pass

    monkeypatch.setattr(decode, "_started_pool", lambda processes: Full())
    monkeypatch.setattr(decode, "IMAGES_BEFORE_POOL", 1)
    entries = [Entry(str(number), content=PIXELS) for number in range(300)]
    with Decoder(SIZE, processes=2) as decoder:
        assert [name for chunk in decoder.chunks(entries) for name in chunk.names] == [e.name for e in entries]


def test_decoding_processes_start_although_the_path_of_temporary_files_is_too_long_for_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)  # a socket's path has at most 107 bytes (man 7 unix)
    folder.mkdir()
    code = """
import os
from rtk.core.card import Input
from rtk.core.data.decode import Decoder
with Decoder(Input(4, 4, 3), processes=1) as decoder:
    print(decoder.start().submit(os.getpid).result() != os.getpid(), len(decoder.process_ids))
"""
    environment = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True 1\n", "")
