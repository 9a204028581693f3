"""Any file or array becomes pixels of the model's size."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError
from rtk.core.card import Input
from rtk.core.data.images import model_image, native_image
from rtk.core.errors import ImageError

RGB32 = Input(32, 32, 3)
GREY28 = Input(28, 28, 1)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def solid(mode: str, colour: object, *, side: int = 32) -> Image.Image:
    return Image.new(mode, (side, side), colour)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG whose header has that size, without pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.fixture
def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


# Images of the right size do not change.


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_an_image_of_the_right_size_does_not_change(noise: NDArray[np.uint8], kind: str) -> None:
    assert np.array_equal(model_image(encoded(Image.fromarray(noise), kind), RGB32), noise)


def test_a_grey_image_of_the_right_size_does_not_change(noise: NDArray[np.uint8]) -> None:
    grey = noise[:28, :28, 0]
    pixels = model_image(encoded(Image.fromarray(grey)), GREY28)
    assert pixels.shape == (28, 28, 1)
    assert np.array_equal(pixels[..., 0], grey)


def test_paths_bytes_open_files_and_arrays_give_the_same_pixels(tmp_path: Path, noise: NDArray[np.uint8]) -> None:
    content = encoded(Image.fromarray(noise))
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with path.open("rb") as file:
        results = [model_image(source, RGB32) for source in (path, str(path), content, file, noise)]
    assert all(np.array_equal(result, noise) for result in results)


def test_the_result_is_writable_and_contiguous(noise: NDArray[np.uint8]) -> None:
    pixels = model_image(encoded(Image.fromarray(noise)), RGB32)
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    assert pixels.dtype == np.uint8


# Modes.


@pytest.mark.parametrize(
    ("image", "kind", "rgb"),
    [
        (solid("1", 1), "PNG", (255, 255, 255)),
        (solid("L", 77), "PNG", (77, 77, 77)),
        (solid("LA", (200, 0)), "PNG", (0, 0, 0)),
        (solid("LA", (200, 255)), "PNG", (200, 200, 200)),
        (solid("RGB", (10, 20, 30)), "PNG", (10, 20, 30)),
        (solid("RGBA", (10, 20, 30, 255)), "PNG", (10, 20, 30)),
        (solid("RGBA", (10, 20, 30, 0)), "PNG", (0, 0, 0)),
        (solid("RGBA", (200, 100, 50, 51)), "PNG", (40, 20, 10)),  # 51 / 255 is a fifth
        (solid("CMYK", (255, 0, 0, 0)), "TIFF", (0, 255, 255)),
        (solid("CMYK", (0, 0, 0, 255)), "TIFF", (0, 0, 0)),
        (solid("YCbCr", (128, 128, 128)), "TIFF", (128, 128, 128)),
        (solid("I;16", 0x4D12), "PNG", (0x4D, 0x4D, 0x4D)),
        (solid("I;16", 0x00F0), "PNG", (0xF0, 0xF0, 0xF0)),  # 8 bits in 16
        (solid("I;16", 0x0C00), "PNG", (191, 191, 191)),  # 12 bits in 16: 3,072 of 4,095
        (solid("I;16", 0xFFFF), "TIFF", (255, 255, 255)),
        (solid("I", 0x4D12), "TIFF", (0x4D, 0x4D, 0x4D)),
        (solid("I", -5), "TIFF", (0, 0, 0)),
        (solid("I", 2_000_000), "TIFF", (255, 255, 255)),
        (solid("F", 0.5), "TIFF", (128, 128, 128)),
        (solid("F", 130.9), "TIFF", (131, 131, 131)),
        (solid("F", -3.0), "TIFF", (0, 0, 0)),
        (solid("F", float("nan")), "TIFF", (0, 0, 0)),
        (solid("F", float("-inf")), "TIFF", (0, 0, 0)),
        (solid("F", float("inf")), "TIFF", (255, 255, 255)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
)
def test_every_mode_becomes_rgb(image: Image.Image, kind: str, rgb: tuple[int, int, int]) -> None:
    pixels = model_image(encoded(image, kind), RGB32)
    assert pixels.shape == (32, 32, 3)
    assert pixels.reshape(-1, 3).tolist() == [list(rgb)] * 1024


@pytest.mark.parametrize("channels", [1, 3])
def test_lab_and_premultiplied_grey_are_read(channels: int) -> None:
    size = Input(32, 32, channels)
    white = model_image(encoded(solid("LAB", (255, 128, 128)), "TIFF"), size)  # L* 100, a* and b* 0
    assert white.shape == (32, 32, channels)
    assert white.min() >= 254
    content = bytearray(encoded(solid("LA", (100, 128)), "TIFF"))  # tag 338, ExtraSamples, distinguishes La from LA
    tag = content.index(struct.pack("<HHI", 338, 3, 1))
    content[tag + 8] = 1
    assert Image.open(io.BytesIO(content)).mode == "La"
    pixels = model_image(bytes(content), size)
    assert pixels.min() == pixels.max()
    assert abs(int(pixels.max()) - 100) <= 1  # premultiplied values do not change on black


def palette_image() -> Image.Image:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 250, 150, 50, 9, 8, 7])
    image.paste(2, (0, 0, 32, 16))
    return image


def test_a_palette_becomes_its_colours() -> None:
    pixels = model_image(encoded(palette_image()), RGB32)
    assert pixels[0, 0].tolist() == [9, 8, 7]
    assert pixels[31, 31].tolist() == [250, 150, 50]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"], ids=["index", "bytes"])
def test_a_transparent_palette_entry_becomes_black(transparency: int | bytes) -> None:
    pixels = model_image(encoded(palette_image(), transparency=transparency), RGB32)
    assert pixels[0, 0].tolist() == [9, 8, 7]
    assert pixels[31, 31].tolist() == [0, 0, 0]


def test_the_transparent_part_of_a_gif_becomes_black() -> None:
    pixels = model_image(encoded(palette_image(), "GIF", transparency=1), RGB32)
    assert pixels[31, 31].tolist() == [0, 0, 0]


def test_a_transparent_colour_becomes_black_in_training_and_inference() -> None:
    content = encoded(solid("RGB", (10, 20, 30)), transparency=(10, 20, 30))
    assert model_image(content, RGB32).max() == 0
    assert native_image(content).max() == 0


def test_grey_is_the_luma_of_a_colour() -> None:
    for colour, grey in (((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)):  # ITU-R 601
        assert model_image(encoded(solid("RGB", colour)), GREY28)[0, 0, 0] == grey


def test_the_first_frame_is_used() -> None:
    frames = [solid("RGB", (200, 0, 0)), solid("RGB", (0, 200, 0))]
    content = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert model_image(content, RGB32)[0, 0].tolist() == [200, 0, 0]


def test_a_colour_profile_changes_nothing(noise: NDArray[np.uint8]) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(model_image(encoded(Image.fromarray(noise), icc_profile=profile), RGB32), noise)


# EXIF: where each orientation puts the corner that is stored first (EXIF 2.32, tag 274).


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize(
    ("orientation", "row", "column"),
    [(1, 0, 0), (2, 0, -1), (3, -1, -1), (4, -1, 0), (5, 0, 0), (6, 0, -1), (7, -1, -1), (8, -1, 0)],
)
def test_images_are_rotated_as_exif_says(orientation: int, row: int, column: int, side: int) -> None:
    image = solid("RGB", 0, side=side)
    image.paste((255, 255, 255), (0, 0, side // 2, side // 2))
    exif = Image.Exif()
    exif[274] = orientation
    content = encoded(image, exif=exif)
    pixels = model_image(content, RGB32)
    lit = {(r, c): int(pixels[r, c, 0]) for r in (0, -1) for c in (0, -1)}
    assert lit == {corner: 255 * (corner == (row, column)) for corner in lit}
    assert np.array_equal(native_image(content)[row, column], [255, 255, 255])


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 9,
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12",
    ],
)
def test_damaged_exif_does_no_harm(exif: bytes) -> None:
    content = encoded(solid("RGB", (90, 90, 90), side=40), "JPEG", exif=exif)
    assert model_image(content, RGB32)[0, 0].tolist() == [90, 90, 90]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_invalid_exif_does_no_harm(kind: str) -> None:
    content = encoded(solid("RGB", (90, 90, 90), side=40), kind, exif=b"no TIFF header at all", lossless=True)
    assert model_image(content, RGB32)[0, 0].tolist() == [90, 90, 90]


def test_one_altered_byte_of_exif_does_no_harm() -> None:
    exif = Image.Exif()
    exif[274], exif[282], exif[305], exif[34665] = 6, 72.0, "a camera", {36867: "2020:01:01 00:00:00", 33434: 0.01}
    content = encoded(solid("RGB", (90, 90, 90), side=40), "JPEG", exif=exif)
    start = content.index(b"Exif\0\0") + 6
    for place in range(start, start + len(exif.tobytes()) - 6):
        for value in (1, 2, 3, 5, 7, 255):
            altered = content[:place] + bytes([value]) + content[place + 1 :]
            assert model_image(altered, RGB32)[0, 0].tolist() == [90, 90, 90], (place, value)


# Sizes.


def test_scaling_down_is_antialiased() -> None:
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255  # a chess board of single pixels: every average is 127.5
    pixels = model_image(encoded(Image.fromarray(board.astype(np.uint8))), RGB32)
    assert pixels.min() >= 126
    assert pixels.max() <= 129


def test_scaling_keeps_flat_colours() -> None:
    for size in ((3, 3), (31, 33), (500, 333), (1, 1)):
        pixels = model_image(encoded(Image.new("RGB", size, (12, 34, 56))), RGB32)
        assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[12, 34, 56]]


def test_a_long_image_is_cropped_to_its_centre() -> None:
    image = Image.new("RGB", (96, 32))
    image.paste((255, 255, 255), (32, 0, 64, 32))
    assert model_image(encoded(image), RGB32).min() == 255
    assert model_image(encoded(image.transpose(Image.Transpose.ROTATE_90)), RGB32).min() == 255


def test_the_models_height_and_width_are_not_mixed_up() -> None:
    pixels = model_image(encoded(solid("RGB", 7)), Input(height=24, width=48, channels=3))
    assert pixels.shape == (24, 48, 3)


def test_an_image_keeps_its_own_size_as_native_image(noise: NDArray[np.uint8]) -> None:
    assert native_image(encoded(Image.fromarray(noise[:20]))).shape == (20, 32, 3)
    for mode in ("1", "L", "I;16"):
        assert native_image(encoded(Image.new(mode, (7, 5)))).shape == (5, 7, 1)
    assert native_image(encoded(palette_image())).shape == (32, 32, 3)


# Arrays.


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 1), (32, 32, 3), (32, 32, 4), (50, 40, 3)])
def test_arrays_are_accepted(shape: tuple[int, ...]) -> None:
    array = np.full(shape, 255, np.uint8)
    assert model_image(array, RGB32).min() == 255
    assert model_image(array, GREY28).shape == (28, 28, 1)


def test_an_array_that_is_not_contiguous_is_accepted(noise: NDArray[np.uint8]) -> None:
    assert np.array_equal(model_image(noise[::-1, :, ::-1], RGB32), noise[::-1, :, ::-1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((32, 32, 3), np.float32), r"array: float32 \(32, 32, 3\); expected uint8 H x W or H x W x 1, 3 or 4"),
        (np.zeros((32, 32, 2), np.uint8), r"array: uint8 \(32, 32, 2\); expected"),
        (np.zeros((3, 32, 32), np.uint8), r"array: uint8 \(3, 32, 32\); expected"),
        (np.zeros((4,), np.uint8), r"array: uint8 \(4,\); expected"),
        (np.zeros((0, 32, 3), np.uint8), r"array: \(0, 32, 3\): an empty image"),
    ],
)
def test_arrays_of_other_shapes_or_types_are_refused(array: NDArray[np.uint8], message: str) -> None:
    with pytest.raises(ImageError, match=f"^{message}"):
        model_image(array, RGB32)


# Warnings.


def test_threads_that_decode_restore_the_warning_filters() -> None:
    content, before, interval = encoded(solid("RGB", 0, side=8)), list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: model_image(content, RGB32), range(400)))
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters == before


def test_warnings_of_pillow_are_not_shown(recwarn: pytest.WarningsRecorder) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 9
    content = encoded(solid("RGB", 0), "JPEG", exif=exif)
    with pytest.warns(UserWarning, match="EXIF"):
        Image.open(io.BytesIO(content)).getexif()
    recwarn.clear()
    model_image(content, RGB32)
    assert not recwarn.list


# Hostile files.


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png: no such file$"):
        model_image(tmp_path / "none.png", RGB32)
    with pytest.raises(ImageError, match=f"^{tmp_path}: not a regular file$"):
        model_image(tmp_path, RGB32)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png: not a regular file$"):
        model_image(tmp_path / "pipe.png", RGB32)


def test_the_error_for_a_broken_link_has_the_reason(tmp_path: Path) -> None:
    for number, (target, reason) in enumerate(
        {
            "x" * 300: "cannot be read: File name too long",
            "1.png": "cannot be read: Too many levels of",
            "gone": "no such",
        }.items()
    ):
        (tmp_path / f"{number}.png").symlink_to(target)
        for source in (tmp_path / f"{number}.png", f"{tmp_path}/{number}.png"):
            with pytest.raises(ImageError, match=rf"/{number}\.png: {reason}"):
                model_image(source, RGB32)


def test_a_file_removed_while_it_is_read_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no image")

    def removed(file: object) -> None:
        path.unlink()
        raise UnidentifiedImageError

    monkeypatch.setattr(Image, "open", removed)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read: No such file or directory$"):
        model_image(path, RGB32)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty\.png: empty file$"):
        model_image(tmp_path / "empty.png", RGB32)
    with pytest.raises(ImageError, match=r"^image: empty file$"):
        model_image(b"", RGB32)


def test_a_text_file_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("certainly not an image" * 99)
    with pytest.raises(ImageError, match=r"text\.png: not an image that Pillow reads$"):
        model_image(tmp_path / "text.png", RGB32)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_truncated_file_is_an_image_error(noise: NDArray[np.uint8], kind: str, share: float) -> None:
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(ImageError, match=r"^cut: (damaged image: .+|not an image that Pillow reads)$"):
        model_image(content[: int(len(content) * share)], RGB32, name="cut")


def test_random_damage_raises_no_other_error(noise: NDArray[np.uint8]) -> None:
    random = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "ICO", "TGA", "JPEG2000", "PPM"):
        content = np.frombuffer(encoded(Image.fromarray(noise), kind), np.uint8)
        for _ in range(25):
            damaged = content.copy()
            places = random.integers(0, len(content), random.integers(1, 20))
            damaged[places] = random.integers(0, 256, len(places))
            with contextlib.suppress(ImageError):  # a damaged file may still be an image
                assert model_image(damaged.tobytes(), RGB32).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (8_001, 8_000, "big: 8001 x 8000 pixels; at most 64,000,000 are read"),
        (60_000, 60_000, "big: too large; at most 64,000,000 pixels are read"),
        (2_000_000_000, 2_000_000_000, "big: too large; at most 64,000,000 pixels are read"),
        (1, 100_000, "big: 1 x 100000 pixels: too long and thin; one side may be at most 200 times the other"),
        (201, 1, "big: 201 x 1 pixels: too long and thin; one side may be at most 200 times the other"),
    ],
)
def test_enormous_images_are_refused_before_they_are_decoded(width: int, height: int, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        model_image(png_of_size(width, height), RGB32, name="big")
    assert str(caught.value) == message


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    path.write_bytes(png_of_size(9_000, 9_000))
    before = open_files()
    for _ in range(5):
        with pytest.raises(ImageError):
            model_image(path, RGB32)
    assert open_files() == before


# Nothing is printed by libraries.


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_a_damaged_tiff_prints_nothing_past_python(
    noise: NDArray[np.uint8], capfd: pytest.CaptureFixture[str], compression: str
) -> None:
    content = bytearray(encoded(Image.fromarray(noise), "TIFF", compression=compression))
    content[50:80] = bytes(range(30))  # in the compressed pixels
    with contextlib.suppress(ImageError):
        native_image(bytes(content))
    assert capfd.readouterr().err == ""


def test_what_pillow_logs_is_not_printed() -> None:
    program = (
        "import logging; from rtk.core.data import images; log = logging.getLogger('PIL.TiffImagePlugin')\n"
        "with images._PILLOW: log.warning('while rtk reads an image')\n"
        "log.warning('of the program')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "of the program\n")
