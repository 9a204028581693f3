"""Colour images of 16 bits are read with all their bits, whatever the file's format and order of bytes."""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from fakes.deep_files import deep_png, deep_tiff
from numpy.typing import NDArray
from PIL import Image
from rtk.core.card import Input
from rtk.core.data.images import Reading, native_image, read_image
from rtk.core.errors import ImageError

READING = Reading(Input(20, 30, 3))
FORMATS: dict[str, Callable[[NDArray[np.uint16]], bytes]] = {
    "png": deep_png,
    "tiff, little-endian": deep_tiff,
    "tiff, big-endian": partial(deep_tiff, order=">"),
    "tiff, little-endian, deflate": partial(deep_tiff, deflate=True),
    "tiff, big-endian, deflate": partial(deep_tiff, order=">", deflate=True),
    "tiff, little-endian, planes": partial(deep_tiff, planes=True),
    "tiff, big-endian, planes": partial(deep_tiff, order=">", planes=True),
}


def samples_to(end: int) -> NDArray[np.uint16]:
    """Samples 20 x 30 x 4 from 0 to `end`, which is among them in the colours and in alpha."""
    samples = np.random.default_rng(0).integers(0, end + 1, (20, 30, 4), dtype=np.uint16)
    samples[0, 0] = end
    return samples


def mapped(samples: NDArray[np.uint16], end: int) -> NDArray[np.uint8]:
    return np.floor(samples * 255.0 / end + 0.5).astype(np.uint8)


def on_black(pixels: NDArray[np.uint8], mode: str) -> NDArray[np.uint8]:
    rgba = Image.fromarray(pixels)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert(mode))


@pytest.mark.parametrize(("end", "guessed"), [(65_535, ""), (4_095, "0 to 4,095")])
@pytest.mark.parametrize("kind", FORMATS)
def test_all_bits_of_colours_are_read(kind: str, end: int, guessed: str) -> None:
    samples = samples_to(end)
    pixels, found = read_image(FORMATS[kind](samples[..., :3]), READING)
    np.testing.assert_array_equal(pixels, mapped(samples[..., :3], end))
    assert found == guessed


@pytest.mark.parametrize("end", [65_535, 4_095])
def test_a_fourth_channel_is_alpha_or_nothing(end: int) -> None:
    samples = samples_to(end)
    seen = on_black(mapped(samples, end), "RGB")
    for file in (deep_png(samples), deep_tiff(samples, extra=2), deep_tiff(samples, extra=2, order=">", deflate=True)):
        np.testing.assert_array_equal(read_image(file, READING)[0], seen)
    for file in (deep_tiff(samples, extra=0), deep_tiff(samples, extra=0, deflate=True)):
        np.testing.assert_array_equal(read_image(file, READING)[0], mapped(samples[..., :3], end))


def test_planes_that_libtiff_decodes_have_the_upper_8_bits() -> None:
    samples = samples_to(65_535)[..., :3]
    pixels, _ = read_image(deep_tiff(samples, planes=True, deflate=True), READING)
    np.testing.assert_array_equal(pixels, samples >> 8)


def test_a_plane_of_alpha_is_not_taken_for_bytes() -> None:
    with pytest.raises(ImageError, match="^image: not an image that Pillow reads$"):
        native_image(deep_tiff(samples_to(65_535), extra=2, planes=True))


def test_alpha_has_a_range_of_its_own() -> None:
    """Twelve bits of colour are often stored beside an alpha of sixteen."""
    samples = samples_to(4_095)
    samples[..., 3] = 65_535
    np.testing.assert_array_equal(read_image(deep_png(samples), READING)[0], mapped(samples[..., :3], 4_095))


@pytest.mark.parametrize("end", [65_535, 4_095])
def test_grey_with_alpha(end: int) -> None:
    samples = samples_to(end)[..., :2]
    pixels, _ = read_image(deep_png(samples), Reading(Input(20, 30, 1)))
    grey, alpha = mapped(samples[..., 0], end), mapped(samples[..., 1], end)
    np.testing.assert_array_equal(pixels[..., 0], on_black(np.stack([grey, grey, grey, alpha], axis=2), "L"))


def test_twelve_bits_of_colour_keep_256_levels() -> None:
    """The upper 8 of 16 bits would leave 16 levels."""
    ramp = np.repeat(np.arange(4_096, dtype=np.uint16).reshape(64, 64, 1), 3, axis=2)
    assert len(np.unique(native_image(deep_png(ramp)))) == 256


def test_open_files_and_damaged_files() -> None:
    whole = deep_png(samples_to(65_535)[..., :3])
    np.testing.assert_array_equal(native_image(io.BytesIO(whole)), native_image(whole))
    with pytest.raises(ImageError, match=r"^image: damaged image: "):
        native_image(whole[: len(whole) // 2])
