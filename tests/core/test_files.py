"""Files are written whole or not at all."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from rtk.core.errors import OutputError
from rtk.core.files import make_folder, sha256_of, whole_file, write_whole


def stopped_after(write: Callable[[bytes], int], content: bytes, *, by: BaseException) -> None:
    write(content)
    raise by


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_bytes_and_text_are_written(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"\0\1")
    write_whole(tmp_path / "b", "Grüße\n")
    assert (tmp_path / "a").read_bytes() == b"\0\1"
    assert (tmp_path / "b").read_bytes() == b"Gr\xc3\xbc\xc3\x9fe\n"
    assert names(tmp_path) == ["a", "b"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as file:
        stopped_after(file.write, b"new", by=RuntimeError())
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        stopped_after(file.write, b"new", by=KeyboardInterrupt())
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with whole_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("target", ["a", "/dev/null"])
def test_an_error_of_reading_an_input_is_not_blamed_on_the_output(tmp_path: Path, target: str) -> None:
    with pytest.raises(FileNotFoundError) as caught, whole_file(tmp_path / target) as file:
        file.write((tmp_path / "gone").read_bytes())
    assert caught.value.filename == str(tmp_path / "gone")
    assert names(tmp_path) == []


def test_a_write_that_fails_is_an_output_error_also_if_a_library_hides_it() -> None:
    def save_with_a_library(write: Callable[[bytes], int]) -> None:
        try:
            write(b"x" * 1_000_000)
        except OSError as error:
            raise RuntimeError("the library gives no reason") from error

    with (
        pytest.raises(OutputError, match=r"^/dev/full: cannot be written: No space left on device$"),
        whole_file(Path("/dev/full")) as file,
    ):
        save_with_a_library(file.write)


def test_a_full_device_is_an_output_error() -> None:
    with pytest.raises(OutputError, match=r"^/dev/full: cannot be written: No space left on device$"):
        write_whole(Path("/dev/full"), "x")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    program = """
        import resource, sys
        from pathlib import Path
        from rtk.core.errors import OutputError
        from rtk.core.files import write_whole
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_whole(Path(sys.argv[1]), b"n" * 100_000)
        except OutputError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{path}: cannot be written: File too large\n"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    program = """
        import os, signal, sys
        from pathlib import Path
        from rtk.core.files import whole_file
        with whole_file(Path(sys.argv[1])) as file:
            file.write(b"new")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_folder_with_the_name_of_the_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="a: cannot be written: Is a directory"):
        write_whole(tmp_path / "a", "x")
    assert names(tmp_path) == ["a"]


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="none/a: cannot be written: No such file or directory"):
        write_whole(tmp_path / "none" / "a", "x")


def test_a_file_with_the_name_of_the_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file/a: cannot be written: Not a directory"):
        write_whole(tmp_path / "file" / "a", "x")
    with pytest.raises(OutputError, match="file: the folder cannot be created: File exists"):
        make_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="file/sub: the folder cannot be created: Not a directory"):
        make_folder(tmp_path / "file" / "sub")


def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "new"


def test_a_dangling_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_pipe_is_written_directly() -> None:
    program = "from pathlib import Path; from rtk.core.files import write_whole; write_whole(Path('/dev/stdout'), 'x')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "x"


def test_folders_are_made_with_their_parents_and_may_exist(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_sha256_matches_the_example_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
