"""Preprocessing in the model: its results compared with NumPy, and its statistics of the training images."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint
from rtk.core.card import Input, ModelCard, Preprocessing
from rtk.core.data.datasets import Split
from rtk.core.errors import UsageError
from rtk.core.models.model import build_model, exact_logits
from rtk.core.models.normalise import Normalise, build_normalise, resize_factor
from rtk.core.probe import probe_images
from rtk.train.data.preprocessing import PREPROCESSES
from rtk.train.data.statistics import learn_maps, preprocessing_of, whitening_matrix
from rtk.train.recipes import RECIPES


@pytest.fixture(scope="module")
def split() -> Split:
    """400 images of 5 x 4 pixels with similar neighbours."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 30, (400, 6, 5, 3))
    smooth = 128 + noise[:, :-1, :-1] + noise[:, 1:, 1:] + 5 * np.arange(4)[:, None]
    return Split(smooth.clip(0, 255).astype(np.uint8), np.arange(400) % 10)


def prepared(split: Split, name: str, **changes: object) -> tuple[Preprocessing, Normalise]:
    recipe = replace(RECIPES["quick"], preprocess=name, **changes)
    preprocessing = preprocessing_of(recipe, split)
    normalise = build_normalise(preprocessing, Input(*split.images_NHWC.shape[1:]))
    learn_maps(normalise, preprocessing, split)
    return preprocessing, normalise


def by_numpy(name: str, pixels_NHWC: np.ndarray) -> np.ndarray:
    """Apply that preprocessing to images, N x H x W x C with values of 0 to 1."""
    each = {"axis": (1, 2, 3), "keepdims": True}
    match name:
        case "unit":
            return pixels_NHWC
        case "center":
            return pixels_NHWC - pixels_NHWC.mean(axis=(0, 1, 2))
        case "standard":
            return (pixels_NHWC - pixels_NHWC.mean(axis=(0, 1, 2))) / pixels_NHWC.std(axis=(0, 1, 2))
        case "mean-image":
            return pixels_NHWC - pixels_NHWC.mean(axis=0)
        case "samplewise":
            return (pixels_NHWC - pixels_NHWC.mean(**each)) / pixels_NHWC.std(**each)
        case "samplewise-center":
            return pixels_NHWC - pixels_NHWC.mean(**each)
        case "imagenet":
            return (pixels_NHWC - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        case "zca":  # as Keras: singular values of the centred images
            flat = (pixels_NHWC - pixels_NHWC.mean(axis=0)).reshape(len(pixels_NHWC), -1)
            left, singular, _ = np.linalg.svd(flat.T, full_matrices=False)
            matrix = left @ np.diag(1 / np.sqrt(singular**2 / len(flat) + 1e-6)) @ left.T
            return (flat @ matrix).reshape(pixels_NHWC.shape)
    raise AssertionError(name)


@pytest.mark.parametrize("name", [name for name in PREPROCESSES if name != "weights"])  # those of other images
def test_preprocessed_pixels_match_numpy(split: Split, name: str) -> None:
    _, normalise = prepared(split, name)
    found_NHWC = normalise(torch.from_numpy(split.images_NHWC)).permute(0, 2, 3, 1).double().numpy()
    np.testing.assert_allclose(found_NHWC, by_numpy(name, split.images_NHWC / 255), atol=1e-4)


def test_whitened_values_are_uncorrelated_and_of_variance_one(split: Split) -> None:
    _, normalise = prepared(split, "zca")
    flat = normalise(torch.from_numpy(split.images_NHWC)).flatten(1).double().numpy()
    covariance = flat.T @ flat / len(flat)
    assert np.abs(covariance - np.eye(60)).max() < 2e-3  # the epsilon reduces the variance a little


def test_the_whitening_matrix_of_two_pixels_matches_the_calculation_by_hand() -> None:
    """Values a + b and a - b with variances of a and b of 0.04 and 0.01: eigenvalues 0.08 and 0.02 at 45 degrees."""
    signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    pairs = np.array([[51 * a + 25.5 * b, 51 * a - 25.5 * b] for a, b in signs]) + 127.5
    mean_CHW = np.full((1, 1, 2), 0.5)
    assert np.array_equal(pairs, pairs.astype(np.uint8))
    matrix = whitening_matrix(Split(pairs.astype(np.uint8).reshape(4, 1, 2, 1), np.zeros(4, np.int64)), mean_CHW)
    large, small = 1 / np.sqrt(0.08 + 1e-6), 1 / np.sqrt(0.02 + 1e-6)
    half_sum, half_difference = (large + small) / 2, (large - small) / 2
    assert matrix.flatten().tolist() == pytest.approx([half_sum, half_difference, half_difference, half_sum])


def test_whitening_is_not_rounded_while_training_in_bf16(split: Split) -> None:
    _, normalise = prepared(split, "zca")
    images = torch.from_numpy(split.images_NHWC)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = normalise(images)
    assert torch.equal(rounded, normalise(images))


def test_an_image_without_contrast_stays_finite(split: Split) -> None:
    _, normalise = prepared(split, "samplewise")
    assert float(normalise(torch.full((1, 5, 4, 3), 90, dtype=torch.uint8)).abs().max()) < 0.1


def test_grey_images_are_repeated_to_three_channels(split: Split) -> None:
    grey = Split(split.images_NHWC[..., :1], split.labels_N)
    for name in ("unit", "standard", "mean-image", "samplewise", "imagenet"):
        preprocessing, normalise = prepared(grey, name, rgb=True)
        assert preprocessing.channels == 3
        found_NHWC = normalise(torch.from_numpy(grey.images_NHWC)).permute(0, 2, 3, 1).double().numpy()
        three_NHWC = np.repeat(grey.images_NHWC / 255, 3, axis=3)
        np.testing.assert_allclose(found_NHWC, by_numpy(name, three_NHWC), atol=1e-5)
    assert prepared(split, "unit", rgb=True)[0].channels == 3  # RGB images are not repeated
    assert prepared(grey, "unit")[0].channels == 1


def test_images_are_scaled_last_and_between_the_centres_of_their_pixels() -> None:
    image = torch.tensor([0, 100, 200, 40], dtype=torch.uint8).reshape(1, 1, 4, 1).expand(1, 2, 4, 1)
    normalise = build_normalise(Preprocessing((0.0,), (1 / 255,), resize=(4, 8)), Input(2, 4, 1))
    # at a quarter and three quarters between two centres; the value of the border outside
    row = [0, 25, 75, 125, 175, 160, 80, 40]
    torch.testing.assert_close(normalise(image)[0, 0], torch.tensor([row] * 4, dtype=torch.float32))


def test_the_factor_gives_every_size_exactly_in_float32() -> None:
    sides = range(1, 130)
    for side in sides:
        for to in (*sides, 224, 256, 1_024):
            scale = resize_factor(side, to)
            assert int(np.float32(scale) * np.float32(side)) == int(scale * side) == to
            assert scale == np.float32(scale) == pytest.approx(to / side, rel=2e-7)


def test_images_that_training_has_scaled_down_are_scaled_by_the_same_factor() -> None:
    normalise = build_normalise(Preprocessing((0.0,), (1.0,), resize=(96, 96)), Input(28, 28, 1))
    assert normalise(torch.zeros(1, 28, 28, 1, dtype=torch.uint8)).shape == (1, 1, 96, 96)
    assert normalise(torch.zeros(1, 14, 14, 1, dtype=torch.uint8)).shape == (1, 1, 48, 48)


@pytest.mark.parametrize(
    ("name", "side", "channels", "rgb", "message"),
    [
        ("zca", 64, 3, False, "--preprocess zca: images of 64 x 64 x 3 have 12,288 values, expected at most 4,096"),
        ("zca", 8, 1, True, "--preprocess zca: not possible with --rgb on grey images; add --no-rgb"),
        (
            "imagenet",
            8,
            1,
            False,
            "--preprocess imagenet: the images are grey; add --rgb, which repeats them to 3 channels",
        ),
    ],
)
def test_preprocessing_that_does_not_fit_the_images_is_refused(
    name: str, side: int, channels: int, rgb: bool, message: str
) -> None:
    images = Split(np.zeros((2, side, side, channels), np.uint8), np.zeros(2, np.int64))
    with pytest.raises(UsageError) as caught:
        prepared(images, name, rgb=rgb)
    assert str(caught.value) == message


def test_a_checkpoint_keeps_the_whole_preprocessing(
    card: ModelCard, split: Split, tmp_path: Path, randomise: Callable[..., None]
) -> None:
    preprocessing, normalise = prepared(split, "zca", resize=8)
    chosen = replace(card, input=Input(5, 4, 3), preprocessing=preprocessing)
    model = build_model(chosen).eval()
    randomise(model.network, seed=0)
    model.normalise.load_state_dict(normalise.state_dict())
    save_checkpoint(tmp_path / "a.pt", chosen, model.state_dict())
    images = torch.from_numpy(split.images_NHWC[:8])
    with torch.inference_mode():
        assert torch.equal(load_checkpoint(tmp_path / "a.pt").model()(images), model(images))


# The truth that fp32 rounds.


@pytest.mark.parametrize("arch", ["resnet8v1", "resnet11v2", "resnet18d2l", "resnet8v1+plain8"])
@pytest.mark.parametrize(
    "options",
    [{}, {"per_pixel": True}, {"image_mean": True, "image_deviation": True}, {"whitening": True}, {"resize": (12, 12)}],
    ids=lambda options: "+".join(options) or "mean and deviation",
)
def test_exact_logits_are_the_models_before_rounding(
    card: ModelCard, randomise: Callable[..., None], arch: str, options: dict[str, Any]
) -> None:
    preprocessing = replace(card.preprocessing, **options)
    model = build_model(replace(card, arch=arch, input=Input(8, 8, 3), preprocessing=preprocessing)).eval()
    for network in getattr(model.network, "members", [model.network]):
        randomise(network, seed=1)
    images_NHWC = probe_images(4, Input(8, 8, 3))
    with torch.inference_mode():
        rounded_NK = model(torch.from_numpy(images_NHWC)).numpy()
    exact_NK = exact_logits(model, images_NHWC)
    assert exact_NK.dtype == np.float64
    assert (exact_NK != exact_NK.astype(np.float32)).any(), "fp64 from the first operation to the last"
    assert 0 < np.abs(rounded_NK - exact_NK).max() < 1e-4 * np.abs(exact_NK).max()
    assert rounded_NK.dtype == np.float32
    assert all(value.dtype != torch.float64 for value in model.state_dict().values()), "the model itself is unchanged"
