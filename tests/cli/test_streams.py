"""Standard output and error that are closed, full, or read by nobody: no output file is lost."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rtk.core.data.synthetic_shapes import draw_shapes

Shell = Callable[..., "subprocess.CompletedProcess[str]"]
MODEL = "resnet20v1-cifar10"
ROWS = 401
"""Enough for several blocks of a pipe's buffer, and one image that is missing."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 400 small images."""
    folder = tmp_path_factory.mktemp("photos")
    for number, image_HWC in enumerate(draw_shapes(400, seed=11)[0]):
        Image.fromarray(image_HWC).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def shell(tmp_path: Path, photos: Path) -> Shell:
    """A function that runs a command line of bash in tmp_path, with rtk, classify and the model as functions."""

    def run(line: str) -> "subprocess.CompletedProcess[str]":
        rtk = f'rtk() {{ {sys.executable} -m rtk "$@"; }}'
        classify = f'classify() {{ rtk classify {photos} gone.png -m {MODEL} --workers 0 "$@"; }}'
        words = ["bash", "-c", f"{rtk}; {classify}; {line}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert "Traceback" not in done.stderr + done.stdout
        assert "Exception ignored" not in done.stderr
        return done

    return run


def rows_of(path: Path) -> int:
    return len(path.read_text().splitlines()) - 1


@pytest.mark.parametrize(
    ("name", "closed"),
    [
        ("a.csv", ">&-"),
        ("a.csv", "2>&-"),
        ("a.csv", "<&- >&- 2>&-"),
        ("a.txt", "> /dev/full 2> /dev/full"),
        ("a.txt", "2>&1 | true"),
    ],
)
def test_no_output_file_is_lost_when_a_stream_is_closed(shell: Shell, tmp_path: Path, closed: str, name: str) -> None:
    done = shell(f"set -o pipefail; classify -o {name} {closed}")
    assert done.returncode == 3
    assert rows_of(tmp_path / name) == ROWS - name.endswith("txt")
    assert "rtk:" not in (tmp_path / name).read_text()
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("closed", ["> /dev/full", "2>&1 | head -1"])
def test_other_outputs_are_complete_although_the_table_is_not(shell: Shell, tmp_path: Path, closed: str) -> None:
    shell(f"classify --report a.html --sort-into to {closed}")
    assert "401 images, 1 of them unreadable" in (tmp_path / "a.html").read_text()
    assert len(list((tmp_path / "to").rglob("*.png"))) == ROWS - 1


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("classify >&-", "Bad file descriptor"),
        ("rtk inspect resnet20v1-cifar10 > /dev/full", "No space left on device"),
        ("rtk --help >&-", "Bad file descriptor"),
    ],
)
def test_results_that_cannot_be_printed_are_one_line_and_exit_code_1(shell: Shell, command: str, reason: str) -> None:
    done = shell(command.replace("classify", "rtk classify shapes:test --workers 0 -m resnet20v1-cifar10"))
    assert done.stderr == f"rtk: standard output: cannot be written: {reason}\n"
    assert done.returncode == 1


@pytest.mark.parametrize("command", ["rtk --help", "rtk inspect resnet20v1-cifar10"])
def test_a_reader_that_has_ended_is_no_error(shell: Shell, command: str) -> None:
    done = shell(f"set -o pipefail; export PYTHONUNBUFFERED=1; {command} | true")
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_log_line_never_lands_on_standard_output(shell: Shell) -> None:
    assert shell("rtk inspect gone.pt 2>&-").stdout == ""


def test_warnings_of_libraries_are_not_printed(shell: Shell, tmp_path: Path) -> None:
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 32L, 32L, 3L), }".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(2 * 32 * 32 * 3)
    (tmp_path / "python2.npy").write_bytes(content)
    command = f"rtk classify python2.npy --workers 0 -m {MODEL}"
    done = shell(command)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""
    assert "Python 2" in shell(f"PYTHONWARNINGS=default {command}").stderr


def test_a_pipe_that_does_not_block_gets_everything(tmp_path: Path, photos: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    words = [sys.executable, "-m", "rtk", "classify", str(photos), "-m", MODEL, "--top-k", "10"]
    process = subprocess.Popen(words, stdout=writing, cwd=tmp_path)
    os.close(writing)
    with os.fdopen(reading) as file:
        assert len({line.split()[0] for line in file if ".png" in line}) == 400
    assert process.wait() == 0
