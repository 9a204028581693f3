"""All kinds of sources become one stream of entries."""

import codecs
import errno
import glob
import gzip
import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rtk.core.card import Input
from rtk.core.data.decode import decode_chunk
from rtk.core.data.sources.entry import Entry
from rtk.core.errors import UsageError
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


LIST = "b.png\r\nempty/\u4e00\u3000.png\r\n\r\na.jpg\r\n"  # U+4E00 and U+3000 have a zero byte


@pytest.mark.parametrize(
    "stdin",
    [
        codecs.BOM_UTF8 + LIST.encode(),
        codecs.BOM_UTF16_LE + LIST.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + LIST.encode("utf-16-be"),
        LIST.encode("utf-16-le"),
        LIST.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + LIST.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + LIST.encode("utf-32-be"),
        LIST.encode("utf-16-le")[:-4],
    ],
)
def test_a_list_from_powershell_is_read_in_its_encoding(tree: Path, stdin: bytes) -> None:
    assert names("-", stdin=stdin) == ["b.png", "empty/\u4e00\u3000.png", "a.jpg"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_single_path_in_utf_16_needs_no_newline(tree: Path, encoding: str) -> None:
    assert names("-", stdin="./b.png".encode(encoding)) == ["./b.png"]


def test_a_long_list_in_utf_16_is_read_to_its_end(tree: Path) -> None:
    many = [f"{number}.png" for number in range(50_000)]
    for end in ("\n", "\r\n"):
        assert names("-", stdin="".join(name + end for name in many).encode("utf-16")) == many


@pytest.mark.parametrize(
    "stdin", [b".\0./a.jpg\0./b.png\0", b".\0./1.png\0./3.png\0", b"a\0b\0", b"1\0\xe4\xb8\x80.png\0"]
)
def test_short_names_that_end_with_nul_are_not_taken_for_utf_16(tree: Path, stdin: bytes) -> None:
    expected = [entry.name for path in stdin.decode().split("\0")[:-1] for entry in entries([path])]
    assert names("-", stdin=stdin) == expected


def test_a_nul_in_one_line_of_a_list_affects_no_other_line(tree: Path) -> None:
    assert names("-", stdin=b"b.png\na\0.jpg\na.jpg\n") == ["b.png", "a\0.jpg", "a.jpg"]
    many = b"b.png\n" * 20_000
    assert names("-", stdin=many + b"a\0.jpg\na.jpg\n")[-3:] == ["b.png", "a\0.jpg", "a.jpg"]


@pytest.mark.parametrize("root", ["/", "//", "/.", "/../", "b.png\n/\n", "b.png\0/\0"])
def test_the_root_folder_is_never_searched_because_of_standard_input(tree: Path, root: str) -> None:
    with pytest.raises(UsageError, match=r"^-: standard input holds the root folder .*: rtk classify //?$"):
        names("-", stdin=root.encode())


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_an_image_on_standard_input_is_refused(tree: Path, format_: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, format_)
    with pytest.raises(UsageError, match="^-: standard input holds an image, expected paths; .*: rtk classify FILE$"):
        names("-", stdin=buffer.getvalue())


@pytest.mark.parametrize(
    ("module", "kind"), [("zipfile", "archive"), ("tarfile", "archive"), ("gzip", "archive"), ("numpy", "array")]
)
def test_an_archive_or_array_on_standard_input_is_refused(tmp_path: Path, module: str, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(b"x" * 600)
    target = tmp_path / "made"
    match module:
        case "zipfile":
            with zipfile.ZipFile(target, "w") as archive:
                archive.write(tmp_path / "a.png")
        case "tarfile":
            with tarfile.open(target, "w") as tar:
                tar.add(tmp_path / "a.png")
        case "gzip":
            target.write_bytes(gzip.compress(b"x"))
        case _:
            with target.open("wb") as file:
                np.save(file, np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match=f"^-: standard input holds an {kind}, expected paths"):
        names("-", stdin=target.read_bytes())


def test_standard_input_that_is_a_folder_is_an_error() -> None:
    class Folder(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise IsADirectoryError(errno.EISDIR, "Is a directory")

    with pytest.raises(UsageError, match="^-: standard input cannot be read: Is a directory; expected paths on it$"):
        list(entries(["-"], stdin=Folder()))  # type: ignore[arg-type]


def test_a_line_with_a_dash_is_a_file(tree: Path) -> None:
    (tree / "-").write_bytes(b"x")
    assert names("-", "b.png", stdin=b"-\na.jpg\n") == ["./-", "a.jpg", "b.png"]


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
