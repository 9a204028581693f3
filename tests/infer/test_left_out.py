"""What rtk classify finds in folders and archives, by the same rule as training, and what it says about the rest."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import own_data
from PIL import Image
from rtk.core.card import Input
from rtk.core.data.decode import Decoder
from rtk.core.data.file_rules import LeftOut
from rtk.infer.sources.listing import entries

SIZE = Input(8, 8, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures with and without the suffix of an image, a text, and what systems leave beside them."""
    root = tmp_path / "photos"
    (root / "holiday").mkdir(parents=True)
    png = own_data.png(np.full((8, 8, 3), 70, np.uint8))
    for name in ("a.png", "b.JPG", "c.jfif", "d", "holiday/e.download"):
        (root / name).write_bytes(png)
    for name in (".DS_Store", "._a.png", "Thumbs.db", "desktop.ini"):
        (root / name).write_bytes(png)
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "lost+found"):
        (root / name).mkdir()
        (root / name / "x.png").write_bytes(png)
    (root / "BMW.txt").write_text("BMW is no picture")
    return root


def found(path: Path) -> tuple[list[str], str]:
    """The names of the images, and what was left out."""
    left_out = LeftOut()
    names = [entry.name for entry in entries([str(path)], left_out=left_out) if not entry.error]
    return names, left_out.to_text()


def test_a_folder_and_its_archives_hold_the_same_images(folder: Path, tmp_path: Path) -> None:
    names, left_out = found(folder)
    relative = ["a.png", "b.JPG", "c.jfif", "d", "holiday/e.download"]
    assert names == [str(folder / name) for name in relative]
    assert left_out == (
        f"8 passed over (.DS_Store, ._a.png, .ipynb_checkpoints, ...); 1 file that is no image ({folder / 'BMW.txt'})"
    )
    for kind in ("zip", "tar", "gztar"):
        archive = Path(shutil.make_archive(str(tmp_path / kind), kind, folder))
        inside, left_out = found(archive)
        assert sorted(name.partition("!/")[2].removeprefix("./") for name in inside) == relative
        assert left_out.startswith("8 passed over (")
        assert left_out.endswith(f"; 1 file that is no image ({archive}!/{'./' * ('tar' in kind)}BMW.txt)")


def test_a_file_that_is_named_is_classified_whatever_its_name(folder: Path) -> None:
    assert found(folder / "._a.png") == ([str(folder / "._a.png")], "")


def test_pictures_of_more_than_8_bits_are_read_as_in_training_and_counted(tmp_path: Path) -> None:
    for number in range(3):
        deep = np.full((8, 8), 1_000 * (number + 1), np.uint16)
        Image.fromarray(deep).save(tmp_path / f"{number}.png")
    with Decoder(SIZE, processes=0) as decoder:
        (chunk,) = decoder.chunks(entries([str(tmp_path)]))
        assert chunk.images_NHWC[:, 0, 0, 0].tolist() == [62, 125, 187]  # of 4,095
        assert decoder.guessed == {"0 to 4,095": 3}


def test_images_larger_than_the_limit_are_unreadable(tmp_path: Path) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "large.png")
    with Decoder(SIZE, processes=0, max_pixels=9_999) as decoder:
        (chunk,) = decoder.chunks(entries([str(tmp_path)]))
        assert chunk.errors == ["100 x 100 pixels; at most 9,999 are read"]
    with Decoder(SIZE, processes=0, max_pixels=10_000) as decoder:
        (chunk,) = decoder.chunks(entries([str(tmp_path)]))
        assert chunk.errors == [""]


@pytest.mark.torch
def test_the_command_says_what_it_left_out(folder: Path, command_line: Callable[..., tuple[str, str]]) -> None:
    printed, said = command_line("classify", str(folder), "--backend", "onnx", "--format", "csv")
    assert len(printed.splitlines()) == 1 + 5
    assert "left out: 8 passed over (.DS_Store, ._a.png, .ipynb_checkpoints, ...)" in " ".join(said.split())
