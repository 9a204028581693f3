"""Augmentation against loops over single pixels, and the values of `--augment`."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from rtk.core.errors import UsageError
from rtk.train.augment.affine import bilinear_samples, inside_index, random_maps
from rtk.train.augment.augmenter import Augmenter, scaled
from rtk.train.augment.options import Augmentation, augmentation_with
from rtk.train.augment.pixelwise import mixed

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Crops and flips.


@pytest.fixture
def images() -> torch.Tensor:
    """12 noise images of 6 x 5 pixels, in which all windows are different."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8))


def augmenter(images: torch.Tensor, **settings: Any) -> Augmenter:
    return Augmenter(images, Augmentation(**settings), generator=generator())


def windows(images: torch.Tensor, padding: int, *, mirrored: bool) -> list[dict[bytes, tuple[int, int]]]:
    """For each image, every crop of the padded image with its offset, by NumPy."""
    array = images.numpy()
    mean = np.round(array.reshape(-1, 3).mean(axis=0)).astype(np.uint8)
    _, height, width, _ = array.shape
    found = []
    for image in array:
        padded = np.empty((height + 2 * padding, width + 2 * padding, 3), np.uint8)
        padded[:] = mean
        padded[padding:-padding, padding:-padding] = image
        crops = {}
        for row in range(2 * padding + 1):
            for column in range(2 * padding + 1):
                crop = padded[row : row + height, column : column + width]
                crops[(crop[:, ::-1] if mirrored else crop).tobytes()] = (row, column)
        found.append(crops)
    return found


def test_crops_are_exact_windows_of_the_padded_image_and_all_occur(images: torch.Tensor) -> None:
    crops, random, seen = windows(images, 2, mirrored=False), generator(), set()
    views_of = augmenter(images, crop=2)
    for _ in range(40):
        order = torch.randperm(12, generator=random)
        for index, view in zip(order.tolist(), views_of.views(order, epoch=0, generator=random), strict=True):
            assert view.dtype == torch.uint8
            seen.add(crops[index][view.numpy().tobytes()])
    assert seen == {(row, column) for row in range(5) for column in range(5)}


def test_random_flips_mirror_half_of_the_views_and_nothing_else(images: torch.Tensor) -> None:
    plain, mirrored = windows(images, 2, mirrored=False), windows(images, 2, mirrored=True)
    views_of, random, index, flipped = augmenter(images, crop=2, flip="random"), generator(), torch.arange(12), 0
    for _ in range(100):
        for number, view in enumerate(views_of.views(index, epoch=0, generator=random)):
            content = view.numpy().tobytes()
            assert (content in plain[number]) != (content in mirrored[number])
            flipped += content in mirrored[number]
    assert 0.45 < flipped / 1200 < 0.55  # 3.5 standard errors


def test_alternate_flips_show_both_sides_in_any_two_epochs(images: torch.Tensor) -> None:
    views_of, index = augmenter(images, flip="alternate"), torch.arange(12)
    epochs = [views_of.views(index, epoch=epoch, generator=generator(epoch)) for epoch in range(4)]
    sides = [[torch.equal(view, image) for view, image in zip(views, images, strict=True)] for views in epochs]
    for views in epochs:
        for view, image in zip(views, images, strict=True):
            assert torch.equal(view, image) or torch.equal(view, image.flip(1))
    assert sides[0] == sides[2]
    assert sides[1] == sides[3] == [not side for side in sides[0]]
    assert len(set(sides[0])) == 2  # not all images are flipped in the same epoch


def test_without_augmentation_the_images_are_unchanged(images: torch.Tensor) -> None:
    assert torch.equal(augmenter(images).views(torch.arange(12), epoch=1, generator=generator()), images)


def test_scaled_images_are_weighted_means_of_the_pixels_that_they_cover() -> None:
    columns = torch.tensor([0, 0, 90, 90, 180, 180, 255, 255], dtype=torch.uint8)
    image_NHWC = columns[None, None, :, None].expand(1, 8, 8, 3)
    half_HW = scaled(image_NHWC, 4, 4)[0, :, :, 0]
    # The antialiasing triangle spans four pixels, with weights 1 3 3 1: (3 * 0 + 3 * 0 + 1 * 90) / 7 at the border.
    assert half_HW[0].tolist() == [13, 90, 178, 244]
    assert (half_HW == half_HW[0]).all()
    assert scaled(image_NHWC, 8, 8) is image_NHWC


def test_erasing_has_its_stated_frequency_and_area() -> None:
    images = torch.full((4_000, 32, 32, 3), 7, dtype=torch.uint8)
    views = augmenter(images, erasing=0.5).views(torch.arange(4_000), epoch=0, generator=generator())
    changed_NHW = (views != 7).any(dim=3)
    hit = changed_NHW.flatten(1).any(dim=1)
    assert 0.47 < float(hit.float().mean()) < 0.53  # 3.8 standard errors
    shares = []
    for mask in changed_NHW[hit].numpy():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all(), "one full rectangle"
        shares.append(box.size / 1024)
    # the published bounds are 0.02 and 0.4; sides are whole pixels
    assert 0.015 < min(shares) < 0.03
    assert 0.37 < max(shares) < 0.43
    assert 0.19 < np.mean(shares) < 0.22  # the middle of the bounds, 0.21, minus what is cut from long rectangles
    assert 125 < float(views[changed_NHW].float().mean()) < 130  # noise of 0 to 255


def test_the_same_generator_gives_the_same_views(images: torch.Tensor) -> None:
    views_of = augmenter(images, crop=2, flip="random", erasing=0.5)
    first, second = (views_of.views(torch.arange(12), epoch=3, generator=generator(9)) for _ in range(2))
    assert torch.equal(first, second)


# Borders.


@pytest.mark.parametrize(
    ("fill", "row"),
    [
        ("constant", "M M M M a b c M M M M"),
        ("nearest", "a a a a a b c c c c c"),
        ("reflect", "c c b a a b c c b a a"),
        ("wrap", "c a b c a b c a b c a"),
    ],
)
def test_a_crop_beyond_the_border_shows_the_requested_fill(fill: Any, row: str) -> None:
    values = {"a": 10, "b": 70, "c": 100, "M": 60}  # M: the mean of the three
    image_NHWC = torch.tensor([10, 70, 100], dtype=torch.uint8).reshape(1, 1, 3, 1).expand(1, 3, 3, 1)
    padded_NHWC = augmenter(image_NHWC, crop=4, fill=fill).padded_NHWC
    assert padded_NHWC.shape == (1, 11, 11, 1)
    assert padded_NHWC[0, 5, :, 0].tolist() == [values[letter] for letter in row.split()]
    across = [values["M"]] * 4 + [70] * 3 + [values["M"]] * 4 if fill == "constant" else [70] * 11
    assert padded_NHWC[0, :, 5, 0].tolist() == across


def test_an_index_far_beyond_the_border_is_mapped_inside() -> None:
    index = torch.tensor([-7, -6, 6, 7])
    assert inside_index(index, 3, "reflect").tolist() == [0, 0, 0, 1]  # ... b c c b a | a b c | c b a a b
    assert inside_index(index, 3, "wrap").tolist() == [2, 0, 0, 1]


# Maps and sampling.


def composed(angle: float, down: float, right: float, shear: float, tall: float, wide: float) -> np.ndarray:
    """Rotation, shift, shear and zoom as 3 x 3 matrices, multiplied in this order as in ImageDataGenerator."""
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    shift = np.array([[1, 0, down], [0, 1, right], [0, 0, 1.0]])
    lean = np.array([[1, -math.sin(shear), 0], [0, math.cos(shear), 0], [0, 0, 1]])
    return turn @ shift @ lean @ np.diag([tall, wide, 1.0])


def test_affine_maps_are_the_product_of_the_four_matrices() -> None:
    wanted = Augmentation(rotation=30, shift=0.25, shear=20, zoom=0.3)
    maps = random_maps(50, 16, 12, wanted, CPU, generator(4)).double().numpy()
    random = generator(4)
    draws = [2 * torch.rand(50, generator=random).double().numpy() - 1 for _ in range(6)]
    for number, row in enumerate(maps):
        angle, down, right, shear, tall, wide = (draw[number] for draw in draws)
        matrix = composed(
            math.radians(30 * angle), 4 * down, 3 * right, math.radians(20 * shear), 1 + 0.3 * tall, 1 + 0.3 * wide
        )
        np.testing.assert_allclose(row[:4].reshape(2, 2), matrix[:2, :2], atol=1e-6)
        np.testing.assert_allclose(row[4:], matrix[:2, 2], atol=1e-6)


def test_maps_stay_within_the_requested_limits() -> None:
    maps = random_maps(5_000, 32, 32, Augmentation(shift=0.1), CPU, generator())
    assert torch.equal(maps[:, :4], torch.tensor([1.0, 0.0, 0.0, 1.0]).expand(5_000, 4))
    assert 3.19 < float(maps[:, 4:].abs().max()) <= 3.2  # a tenth of 32
    assert float(maps[:, 4:].mean().abs()) < 0.06  # 3 standard errors: 3.2 / sqrt(3) / sqrt(10,000)
    maps = random_maps(5_000, 32, 32, Augmentation(shear=0.2), CPU, generator())
    assert float(maps[:, 1].abs().max()) <= math.radians(0.2)  # degrees, so very little
    maps = random_maps(5_000, 32, 32, Augmentation(zoom=0.2), CPU, generator())
    assert 0.8 <= float(maps[:, [0, 3]].min()) < 0.801
    assert 1.199 < float(maps[:, [0, 3]].max()) <= 1.2
    assert len(set(maps[0, [0, 3]].tolist())) == 2  # separate factors for height and width


@pytest.mark.parametrize("fill", ["constant", "nearest", "reflect", "wrap"])
def test_sampling_equals_a_loop_over_pixels(images: torch.Tensor, fill: Any) -> None:
    random = np.random.default_rng(1)
    rows, columns = random.uniform(-9, 15, (2, 12, 6, 5)).astype(np.float32)
    rows[0], columns[0] = np.mgrid[0:6, 0:5]  # whole pixels
    found = bilinear_samples(
        images, torch.from_numpy(rows), torch.from_numpy(columns), fill, torch.tensor([1, 2, 3], dtype=torch.uint8)
    )
    array = images.numpy().astype(np.float64)

    def inside(place: int, size: int) -> int | None:
        match fill:
            case "constant":
                return place if 0 <= place < size else None
            case "nearest":
                return min(max(place, 0), size - 1)
            case "wrap":
                return place % size
        forth_and_back = [*range(size), *reversed(range(size))]
        return forth_and_back[place % (2 * size)]

    def pixel(number: int, row: int, column: int) -> np.ndarray:
        row_in, column_in = inside(row, 6), inside(column, 5)
        return np.array([1.0, 2, 3]) if row_in is None or column_in is None else array[number, row_in, column_in]

    for number in range(12):
        for row in range(6):
            for column in range(5):
                y, x = rows[number, row, column], columns[number, row, column]
                top, left = math.floor(y), math.floor(x)
                value = sum(
                    (1 - abs(y - at_y)) * (1 - abs(x - at_x)) * pixel(number, at_y, at_x)
                    for at_y in (top, top + 1)
                    for at_x in (left, left + 1)
                )
                np.testing.assert_allclose(found[number, row, column], value, atol=2e-3)
    assert torch.equal(found[0], images[0].float())


def test_a_quarter_turn_rotates_the_image() -> None:
    image = torch.arange(25, dtype=torch.uint8).reshape(1, 5, 5, 1)
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    # row' = -(column - 2) + 2, column' = (row - 2) + 2: the map of a rotation by 90 degrees
    turned = bilinear_samples(image, (4 - columns)[None], rows[None], "constant", torch.zeros(1))
    assert torch.equal(turned[0, ..., 0], torch.rot90(image[0, ..., 0].float(), -1))


def test_a_shift_by_whole_pixels_moves_the_image_and_fills_with_the_nearest(images: torch.Tensor) -> None:
    views = augmenter(images, shift=2, fill="nearest").views(torch.arange(12), epoch=0, generator=generator(5))
    assert views.dtype == torch.float32
    random = generator(5)
    torch.randint(1, (12, 1), generator=random), torch.randint(1, (12, 1), generator=random)  # crops without a border
    down, right = (2 * (2 * torch.rand(12, generator=random) - 1) for _ in range(2))
    rows = torch.arange(6.0)[None, :, None] + down[:, None, None]
    columns = torch.arange(5.0)[None, None, :] + right[:, None, None]
    expected = bilinear_samples(images, rows.expand(12, 6, 5), columns.expand(12, 6, 5), "nearest", torch.zeros(3))
    torch.testing.assert_close(views, expected)


# Brightness, channel shift, cutout, mixup.


def test_brightness_multiplies_and_clips() -> None:
    images = torch.tensor([100, 250], dtype=torch.uint8).reshape(1, 1, 2, 1).expand(3_000, 4, 2, 1)
    views = augmenter(images, brightness=0.3).views(torch.arange(3_000), epoch=0, generator=generator())
    factors = views[:, 0, 0, 0] / 100
    assert 0.7 <= float(factors.min()) < 0.701
    assert 1.299 < float(factors.max()) <= 1.3
    torch.testing.assert_close(views[:, 3, 1, 0], (250 * factors).clamp(max=255))


def test_a_channel_shift_adds_to_all_channels_and_clips_to_the_images_extremes() -> None:
    images = torch.tensor([[40, 100, 200], [90, 110, 130]], dtype=torch.uint8).reshape(1, 1, 2, 3)
    views = augmenter(images.expand(2_000, 2, 2, 3), channel_shift=30).views(
        torch.arange(2_000), epoch=0, generator=generator()
    )
    shift = views[:, 0, 0, 1] - 100  # far from both extremes
    assert -30 <= float(shift.min()) < -29.9
    assert 29.9 < float(shift.max()) <= 30
    expected = (images.float() + shift[:, None, None, None]).clamp(40, 200)
    torch.testing.assert_close(views, expected.expand(2_000, 2, 2, 3))


def test_cutout_shows_the_mean_colour_in_a_square_clipped_at_the_border() -> None:
    images = torch.empty((1_000, 9, 9, 3), dtype=torch.uint8)
    images[:500], images[500:] = torch.tensor([1, 2, 3]), torch.tensor([9, 12, 15])
    views = augmenter(images, cutout=4).views(torch.arange(1_000), epoch=0, generator=generator())
    hidden = (views == torch.tensor([5, 7, 9])).all(dim=3)
    assert torch.equal(views[~hidden], images[~hidden])
    random = generator()
    torch.randint(1, (1_000, 1), generator=random), torch.randint(1, (1_000, 1), generator=random)
    centres = [torch.randint(9, (1_000,), generator=random) for _ in range(2)]
    for mask, row, column in zip(hidden, centres[0].tolist(), centres[1].tolist(), strict=True):
        expected = np.zeros((9, 9), bool)
        expected[max(row - 2, 0) : row + 2, max(column - 2, 0) : column + 2] = True
        assert np.array_equal(mask.numpy(), expected)


def test_mixup_uses_one_share_and_returns_the_partners_labels() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 3, 1), dtype=np.uint8))
    labels = torch.arange(8)
    shares = []
    for seed in range(400):
        views, mix = mixed(images, labels, 0.2, generator(seed))
        partners = mix.labels_B  # the labels are the images' numbers
        assert sorted(partners.tolist()) == list(range(8))
        share = float(mix.share)
        expected = (1 - share) * images.double() + share * images[partners].double()
        torch.testing.assert_close(views.double(), expected, atol=1e-3, rtol=0)
        shares.append(share)
    assert 0 <= min(shares) < 1e-3
    assert 0.4 < max(shares) <= 0.5
    # Beta(0.2, 0.2) has a variance of 1 / (4 * 1.4): the mean square of its distance from a half
    assert np.mean((0.5 - np.array(shares)) ** 2) == pytest.approx(0.1786, abs=0.015)


def test_all_changes_together_keep_shape_and_range_and_are_repeatable(images: torch.Tensor) -> None:
    everything = augmenter(
        images, crop=2, flip="random", shift=0.2, rotation=20, zoom=0.2, shear=10, channel_shift=20, brightness=0.3,
        erasing=0.5, cutout=2, fill="reflect",
    )  # fmt: skip
    first, second = (everything.views(torch.arange(12), epoch=0, generator=generator(3)) for _ in range(2))
    assert first.shape == images.shape
    assert first.dtype == torch.float32
    assert 0 <= float(first.min()) <= float(first.max()) <= 255
    assert torch.equal(first, second)
    assert not torch.equal(first, everything.views(torch.arange(12), epoch=0, generator=generator(4)))
    assert scaled(first, 3, 3).dtype == torch.float32


# Values of --augment.


def test_options_change_the_augmentation_of_a_recipe() -> None:
    base = Augmentation(crop=0.125, flip="random")
    assert augmentation_with(base, []) == base
    assert augmentation_with(base, ["rotation=15", "cutout=8"]) == Augmentation(
        crop=0.125, flip="random", rotation=15, cutout=8
    )
    assert augmentation_with(base, ["none", "channel-shift=20"]) == Augmentation(channel_shift=20)
    assert augmentation_with(base, ["flip=none", "fill=wrap", "crop=4"]) == Augmentation(crop=4, fill="wrap")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["rotate=15"],
            "--augment 'rotate' is unknown; did you mean rotation? known: none, crop, flip, shift, rotation",
        ),
        (["rotation"], "--augment rotation=: expected a number, such as rotation=0.1"),
        (["zoom=much"], "--augment zoom=much: expected a number, such as zoom=0.1"),
        (["zoom=1.5"], "--augment zoom=1.5: expected 0 to 0.99"),
        (["channel-shift=-1"], "--augment channel-shift=-1: expected 0 to 255"),
        (["mixup=nan"], "--augment mixup=nan: expected 0 to 100"),
        (["flip=up"], "--augment flip 'up' is unknown; known: none, random, alternate"),
        (["crop=4", "fill=zero"], "--augment fill 'zero' is unknown; known: constant, nearest, reflect, wrap"),
        (["crop=4", "crop=2"], "--augment crop: given twice; expected once"),
        (["crop=4", "none"], "--augment none: expected first, because it removes the recipe's augmentation"),
        (["mixup=0.01"], "--augment mixup=0.01: expected 0, or 0.05 to 100"),
        (
            ["none", "fill=wrap"],
            "--augment fill=wrap: has no effect without pixels outside the image; add one of crop, shift",
        ),
    ],
)
def test_invalid_options_are_rejected(options: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        augmentation_with(Augmentation(crop=0.125), options)
    assert str(caught.value).startswith(message)
