"""All kinds of sources become one stream of entries."""

import glob
import io
import os
import sys
from pathlib import Path

import pytest
from PIL import Image
from rtk.core.card import Input
from rtk.core.errors import UsageError
from rtk.infer.decode import decode_chunk
from rtk.infer.sources.entry import Entry
from rtk.infer.sources.listing import count, entries


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with b.png, a.jpg, notes.txt, sub/c.PNG and an empty folder."""
    for name in ("b.png", "a.jpg", "notes.txt", "sub/c.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*paths: str, stdin: bytes = b"") -> list[str]:
    return [entry.name for entry in entries(paths, stdin=io.BytesIO(stdin))]


def test_a_folder_gives_its_image_files_in_order(tree: Path) -> None:
    assert names(".") == ["./a.jpg", "./b.png", "./sub/c.PNG"]


def test_a_file_that_is_named_explicitly_may_have_any_suffix(tree: Path) -> None:
    assert names("notes.txt") == ["notes.txt"]


def test_a_glob_is_sorted_and_may_include_sub_folders(tree: Path) -> None:
    assert names("*.*") == ["a.jpg", "b.png", "notes.txt"]
    assert names("**/*.PNG") == ["sub/c.PNG"]


def test_sources_keep_their_order(tree: Path) -> None:
    assert names("sub", "b.png", "a.jpg") == ["sub/c.PNG", "b.png", "a.jpg"]


@pytest.mark.parametrize(
    "stdin",
    [
        b"b.png\na.jpg\n",
        b"b.png\r\n\r\na.jpg\r\n",
        b"b.png\r\na.jpg\r",
        b"b.png\na.jpg",
        b"b.png\0a.jpg\0",
        b"\n\nb.png\n\na.jpg",
    ],
)
def test_paths_come_from_standard_input(tree: Path, stdin: bytes) -> None:
    assert names("-", stdin=stdin) == ["b.png", "a.jpg"]


def test_names_that_end_with_nul_may_contain_newlines(tree: Path) -> None:
    for name in ("two\nlines.png", "return.png\r"):
        (tree / name).write_bytes(b"x")
    assert names("-", stdin=b"two\nlines.png\0return.png\r\0a.jpg\0") == ["two\nlines.png", "return.png\r", "a.jpg"]


def test_standard_input_that_is_closed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="^-: standard input is closed"):
        list(entries(["-"]))


def test_a_name_that_is_not_utf8_is_kept(tree: Path) -> None:
    raw = os.fsencode(tree) + b"/\xff.png"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    assert [os.fsencode(name) for name in names("-", stdin=raw)] == [raw]


def test_a_source_without_images_is_an_entry_with_the_reason(tree: Path) -> None:
    found = list(entries(["empty", "*.gif", "gone.png", "cifar10:foo", "shapes:", "mnist:foo"]))
    assert found == [
        Entry("empty", "no images in this folder"),
        Entry("*.gif", "the pattern matches no file"),
        Entry("gone.png", "no such file"),
        Entry("cifar10:foo", "unknown split; known: train, test"),
        Entry("shapes:", "unknown split; known: train, test"),
        Entry("mnist:foo", "no such file"),
    ]


def test_an_existing_file_with_the_name_of_a_pattern_is_not_a_pattern(tree: Path) -> None:
    (tree / "[1].png").write_bytes(b"x")
    assert names("[1].png") == ["[1].png"]


@pytest.mark.parametrize("name", ["0.png", "0.tar", "0.npy"])
def test_a_link_to_a_name_that_is_too_long_does_not_affect_other_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("x" * 300)
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    chunk = decode_chunk(list(entries([f"{tmp_path}/*"])), Input(8, 8, 3))
    assert chunk.errors == ["cannot be read: File name too long", ""]


def test_folders_in_a_circle_of_links_are_searched_once(tree: Path) -> None:
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "sub" / "itself").symlink_to("itself")
    (tree / "other").symlink_to("sub")
    assert names(".") == ["./a.jpg", "./b.png", "./other/c.PNG"]
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere" / "link").symlink_to(tree / "sub")
    assert names("elsewhere") == ["elsewhere/link/c.PNG", "elsewhere/link/up/a.jpg", "elsewhere/link/up/b.png"]


@pytest.mark.parametrize(
    "pattern",
    [
        "**", "**/", "./**", "sub/**", "s*/**", "**/*", "**/*.png", "**/*.[pP]*", "**/.*", "**/.hid*/*", "**/sub/*.PNG",
        "**/sub/**/c.*", "**/**/*.png", "su**/*", "*//**//c*", "**/[[]x]/*", "[[]x]/**", "gone/**/*",
    ],
)  # fmt: skip
def test_a_glob_without_links_matches_what_python_matches(tree: Path, pattern: str) -> None:
    for name in ("sub/deep/sub/c.PNG", "[x]/in.png", ".hidden/d.png", "sub/.e.png"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    for pattern_here in (pattern, f"{glob.escape(str(tree))}/{pattern}"):
        expected = {name for name in glob.glob(pattern_here, recursive=True) if not os.path.isdir(name)}
        assert names(pattern_here) == (sorted(expected) or [pattern_here])


def test_a_glob_searches_folders_in_a_circle_of_links_once(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to("../sub")
    (tree / "other").symlink_to("sub")
    assert names("sub/**/*.PNG") == ["sub/c.PNG"]
    assert names("**/*.*") == ["a.jpg", "b.png", "notes.txt", "other/c.PNG"]
    assert names("**/sub/*.PNG") == ["sub/c.PNG"]
    assert names("*/**/*.PNG", "*/*.PNG") == ["other/c.PNG", "other/c.PNG", "sub/c.PNG"]


def test_an_unreadable_folder_is_reported(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refusing(path: str) -> object:
        if path.endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = list(entries(["."]))
    assert [entry.name for entry in found] == ["./a.jpg", "./b.png", "./sub"]
    assert found[-1].error == "the folder cannot be read: Permission denied"


def test_a_million_entries_are_listed_one_by_one(tree: Path) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"a.jpg\n" * 10_000

    listed = entries(["-"], stdin=Endless())  # type: ignore[arg-type]
    for _ in range(100_000):
        assert next(listed).name == "a.jpg"


@pytest.mark.parametrize("path", ["", "a\0b", "a\0/*", "x" * 5_000, "[", "mnist:test", "/" * 100 + "gone"])
def test_unusual_paths_are_reported_as_missing(path: str) -> None:
    (entry,) = entries([path])
    assert entry.name == path
    assert entry.error in ("no such file", "the pattern matches no file")


def test_entries_are_counted_if_listing_tells_their_number(tree: Path) -> None:
    for paths in ([".", "gone.png", "*.gif", "cifar10:gone"], ["sub"], []):
        assert count(paths) == len(list(entries(paths)))
    assert count(["."]) == 3
    (tree / "a.tar").touch()
    for unknown in (["-"], ["a.tar"], [".", "a.tar"], ["cifar10:test"]):
        assert count(unknown) is None
