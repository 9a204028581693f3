"""The cache is found, or replaced by a temporary one, for every user on every machine."""

import errno
import logging
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.homeless import be_homeless, rtk_homeless, run_homeless
from rtk.core import paths
from rtk.core.errors import OutputError
from rtk.core.files import temporary_folder, write_whole
from rtk.core.paths import as_published, cache_dir, cache_dirs, cache_path, only_a_cache
from rtk.core.zoo import zoo_file


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary cache of these tests."""
    folder = tmp_path / "temporary"
    monkeypatch.setattr(paths, "temporary_cache", lambda: folder)
    paths._say_once.cache_clear()
    yield folder
    paths._say_once.cache_clear()


def test_without_a_home_folder_the_cache_is_temporary_and_one_line_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    be_homeless(monkeypatch)
    assert cache_dir() == temporary
    for name in ("a", "b"):
        write_whole(cache_path("graphs", name), name)
    assert (temporary / "graphs" / "a").read_text() == "a"
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    (line,) = caplog.messages
    assert line == (
        f"no home folder; the cache is in {temporary}; set RTK_CACHE_DIR to a folder that can be written and that lasts"
    )


@pytest.mark.parametrize(
    ("variable", "value", "regular"),
    [
        ("HOME", "/dev/null/x", "/dev/null/x/.cache/rtk"),
        ("HOME", "/proc/nowhere", "/proc/nowhere/.cache/rtk"),
        ("XDG_CACHE_HOME", "/dev/null/x", "/dev/null/x/rtk"),
        ("RTK_CACHE_DIR", "/proc/nowhere", "/proc/nowhere"),
    ],
)
def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_one(
    variable: str,
    value: str,
    regular: str,
    monkeypatch: pytest.MonkeyPatch,
    temporary: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    be_homeless(monkeypatch)
    monkeypatch.setenv(variable, value)
    assert cache_dir() == Path(regular)
    assert cache_path("graphs", "a") == temporary / "graphs" / "a"
    assert cache_path("graphs", "b") == temporary / "graphs" / "b"
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        f"{regular}: cannot be written; the cache is in {temporary}; set RTK_CACHE_DIR"
    )


def test_a_cache_that_can_only_be_read_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    regular = tmp_path / "regular"
    monkeypatch.setenv("RTK_CACHE_DIR", str(regular))
    write_whole(cache_path("data", "kept"), "old")
    can_write = paths.can_write
    monkeypatch.setattr(paths, "can_write", lambda folder: can_write(folder) and not folder.is_relative_to(regular))
    assert cache_path("data", "kept") == regular / "data" / "kept"
    assert cache_path("data", "new") == temporary / "data" / "new"
    write_whole(cache_path("data", "new"), "new")
    assert [cache_path("data", name).read_bytes() for name in ("kept", "new")] == [b"old", b"new"]
    assert cache_dirs() == [regular, temporary]


def test_a_temporary_cache_that_others_can_write_is_not_used(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, tmp_path: Path
) -> None:
    be_homeless(monkeypatch)
    temporary.mkdir()
    temporary.chmod(0o777)
    (temporary / "engines").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    paths._folder_of_this_process.cache_clear()
    try:
        found = cache_path("graphs", "a")
        assert not found.is_relative_to(temporary)
        assert stat.S_IMODE(found.parent.parent.stat().st_mode) == 0o700
        assert cache_dirs() == []
    finally:
        paths._folder_of_this_process.cache_clear()


def test_a_link_in_the_place_of_the_temporary_cache_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    temporary.symlink_to(tmp_path / "elsewhere")
    be_homeless(monkeypatch)
    assert not cache_path("graphs", "a").resolve().is_relative_to(tmp_path / "elsewhere")


def test_no_place_for_a_cache_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    be_homeless(monkeypatch)
    monkeypatch.setattr(paths, "temporary_cache", lambda: Path("/proc/nowhere"))

    def full(**options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    paths._folder_of_this_process.cache_clear()
    with pytest.raises(
        OutputError, match="no temporary folder: No space left on device; set RTK_CACHE_DIR to a folder"
    ):
        cache_path("graphs", "a")


def test_a_full_cache_costs_one_line_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with only_a_cache("the engine is"):
        raise OutputError("x: cannot be written: No space left on device")
    assert caplog.messages == [
        "x: cannot be written: No space left on device; the engine is not kept for the next time; "
        "set RTK_CACHE_DIR to a folder that can be written"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_text_of_a_user_without_a_home_folder_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert as_published("/home/ada/x /y") == "~/x /y"
    be_homeless(monkeypatch)
    assert as_published("/home/ada/x /y") == "/home/ada/x /y"


def test_a_published_report_does_not_say_where_rtk_is_installed() -> None:
    text = f"onnx: {zoo_file('resnet20v1-cifar10', '.onnx')} (sha256 0123)"
    assert as_published(text) == "onnx: rtk/core/zoo/resnet20v1-cifar10.onnx (sha256 0123)"


def test_no_room_for_temporary_files_is_one_line_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: object, **options: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "mkdtemp", none)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    with (
        pytest.raises(OutputError, match=r"^no temporary folder can be written: No usable.*; set TMPDIR to a folder"),
        temporary_folder(None),
    ):
        pass


@pytest.mark.parametrize(
    "words",
    [pytest.param(["models"], marks=pytest.mark.torch), ["cache", "ls"], ["cache", "verify"], ["cache", "clear"]],
)
def test_light_commands_run_without_a_home_folder(words: list[str], tmp_path: Path) -> None:
    done = rtk_homeless(*words, temporary=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.torch
def test_curves_are_drawn_without_a_home_folder_and_without_a_complaint(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from rtk.train.run_folder import RunFolder
row = {"epoch": 1, "lr": 0.1, "train_accuracy": 0.5, "train_loss": 1.0}
RunFolder(Path(".")).write_curves([row], title="a")
"""
    done = run_homeless(code, temporary=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "temporary cache directory" not in done.stderr  # Matplotlib's complaint
    assert "MPLCONFIGDIR" not in done.stderr
    assert (tmp_path / "curves.png").is_file()


def test_images_are_classified_without_a_home_folder(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    for backend in ("onnx", "openvino"):
        done = rtk_homeless(
            "classify", "black.png", "-m", "resnet20v1-cifar10", "--backend", backend, temporary=tmp_path
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("black.png")
