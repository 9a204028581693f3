"""One rule for what is data and what is an image; and how samples of more than 8 bits become pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rtk.core.card import Input
from rtk.core.data import images
from rtk.core.data.deep_pixels import pixels_from_deep
from rtk.core.data.file_rules import LeftOut, begins_as_image, is_image_file, is_passed_over, passed_over_part
from rtk.core.data.images import ImageSize, image_size, model_image, native_image
from rtk.core.errors import ImageError


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._1.jpg", ".ipynb_checkpoints", ".Trash-1000", "__MACOSX", "thumbs.db", "Desktop.ini", "@eaDir",
     "lost+found", ".hidden\nline.png"],
)  # fmt: skip
def test_names_that_are_never_data(name: str) -> None:
    assert is_passed_over(name)
    assert passed_over_part(f"pets/{name}/1.jpg") == name


@pytest.mark.parametrize("name", ["a.jpg", "MACOSX", "thumbs", "..", ".", "eaDir", "lost"])
def test_names_that_may_be_data(name: str) -> None:
    assert not is_passed_over(name)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF", "ICO"])
def test_image_files_are_known_by_their_first_bytes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "no-suffix"
    Image.new("RGB", (16, 16), (9, 90, 200)).save(path, kind)
    assert is_image_file(str(path))
    assert model_image(path, Input(16, 16, 3)).shape == (16, 16, 3)


@pytest.mark.parametrize("content", [b"", b"P1 is a text", b"\0" * 40, b"label\ncat\n", b"%PDF-1.4", b"MZ\x90\0"])
def test_other_files_are_no_images(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert not is_image_file(str(tmp_path / "file"))
    assert not begins_as_image(content)
    assert not is_image_file(str(tmp_path))
    assert not is_image_file(str(tmp_path / "missing"))


def test_what_was_left_out_is_one_text() -> None:
    left_out = LeftOut()
    assert left_out.to_text() == ""
    for number in range(4):
        left_out.add_no_image(f"{number}.txt")
    left_out.passed_over.update([".DS_Store", ".DS_Store", "Thumbs.db"])
    assert left_out.to_text() == (
        "3 passed over (.DS_Store, Thumbs.db); 4 files that are no images (0.txt, 1.txt, 2.txt, ...)"
    )


# HEIC.


@pytest.fixture(scope="module")
def heic() -> bytes:
    """A HEIC image of one colour, 48 x 64."""
    heif = pytest.importorskip("pillow_heif")
    return bytes(_encoded(heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 40)))))


def _encoded(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, quality=100)
    return buffer.getvalue()


def test_heic_images_are_read(tmp_path: Path, heic: bytes) -> None:
    path = tmp_path / "photo"
    path.write_bytes(heic)
    assert is_image_file(str(path))
    for source in (path, str(path), heic, io.BytesIO(heic)):
        assert np.abs(native_image(source).astype(int) - [200, 30, 40]).max() <= 3  # the format is lossy
    assert image_size(heic) == ImageSize(48, 64, 3)


def test_without_the_package_the_error_names_it(tmp_path: Path, heic: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])  # it may be registered already
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    (tmp_path / "photo.heic").write_bytes(heic)
    with pytest.raises(ImageError) as caught:
        native_image(tmp_path / "photo.heic")
    assert str(caught.value) == (
        f"{tmp_path / 'photo.heic'}: a HEIC image; reading it needs the package pillow-heif: pip install pillow-heif"
    )


# Samples of more than 8 bits.


@pytest.mark.parametrize(
    ("samples", "bits", "expected", "guessed"),
    [
        (np.array([0, 0x8000, 0xFFFF], np.uint16), 16, [0, 128, 255], ""),
        (np.array([0, 5_000], np.uint16), 16, [0, 19], ""),
        (np.array([0, 2_048, 4_095], np.uint16), 16, [0, 128, 255], "0 to 4,095"),
        (np.array([0, 100, 255], np.uint16), 16, [0, 100, 255], "0 to 255"),
        (np.array([0, 0], np.uint16), 16, [0, 0], ""),
        (np.array([0, 70_000, 140_000], np.int32), 0, [0, 128, 255], "0 to 140,000"),
        (np.array([-1_000, 0, 1_000], np.int32), 0, [0, 128, 255], "-1,000 to 1,000"),
        (np.array([0.0, 0.5, 1.0]), 0, [0, 128, 255], ""),
        (np.array([0.0, 127.5, 255.0]), 0, [0, 128, 255], "0 to 255"),
        (np.array([0.0, 30_000.0]), 0, [0, 117], "0 to 65,535"),
        (np.array([-1.0, 0.0, 1.0]), 0, [0, 128, 255], "-1 to 1"),
        (np.array([np.nan, 0.0, 1.0, np.inf, -np.inf]), 0, [0, 0, 255, 255, 0], ""),
    ],
)
def test_deep_samples_are_scaled_from_their_range(
    samples: np.ndarray[Any, Any], bits: int, expected: list[int], guessed: str
) -> None:
    pixels, found = pixels_from_deep(samples, bits=bits)
    assert pixels.dtype == np.uint8
    assert (pixels.tolist(), found) == (expected, guessed)


def test_twelve_bits_in_sixteen_keep_256_grey_levels(tmp_path: Path) -> None:
    """The upper 8 of 16 bits would leave 16 levels."""
    samples = np.arange(4_096, dtype=np.uint16).reshape(64, 64)
    for suffix in ("png", "tif"):
        path = tmp_path / f"deep.{suffix}"
        Image.fromarray(samples).save(path)
        assert len(np.unique(native_image(path))) == 256


def test_a_float_picture_does_not_become_white(tmp_path: Path) -> None:
    samples = np.linspace(0, 40_000, 64 * 64, dtype=np.float32).reshape(64, 64)
    Image.fromarray(samples).save(tmp_path / "float.tif")
    pixels = native_image(tmp_path / "float.tif")
    assert (pixels.min(), pixels.max()) == (0, round(40_000 / 65_535 * 255))


# Sizes.


def test_the_size_is_that_of_the_turned_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("L", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert image_size(tmp_path / "turned.jpg") == ImageSize(30, 20, 1)
    assert native_image(tmp_path / "turned.jpg").shape == (30, 20, 1)


def test_stretching_changes_the_proportions() -> None:
    left_white = np.zeros((10, 40, 3), np.uint8)
    left_white[:, :20] = 255
    pixels = model_image(left_white, Input(16, 16, 3), fit="stretch")
    assert (pixels[:, 0].min(), pixels[:, -1].max()) == (255, 0)
    assert abs(pixels.mean() - 127.5) < 1
