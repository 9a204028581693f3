"""The pieces of a training: schedule, recipes, augmentation, sampling, averaging, scoring, device."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from rtk.core.errors import BackendError, UnknownNameError, UsageError
from rtk.train import device
from rtk.train.augment import Augmenter, scaled
from rtk.train.average import Average
from rtk.train.device import Arithmetic, choose_arithmetic, compiled
from rtk.train.evaluate import evaluate
from rtk.train.recipes import RECIPES, find_recipe
from rtk.train.sampling import Sampler
from rtk.train.schedule import image_side, learning_rate

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The learning rate and the images' size, worked out by hand.


@pytest.mark.parametrize(
    ("progress", "rate"),
    [
        (0.0, 0.0),
        (0.025, 0.1),  # half of the warm-up
        (0.05, 0.2),
        (0.2875, 0.1707106781),  # a quarter of the way down: 0.2 (1 + cos 45 degrees) / 2
        (0.525, 0.1),
        (0.7625, 0.0292893219),
        (1.0, 0.0),
    ],
)
def test_the_cosine_schedule_warms_up_and_falls_to_zero(progress: float, rate: float) -> None:
    assert learning_rate(RECIPES["rtk"], progress) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize(("progress", "rate"), [(0.0, 0.1), (0.499, 0.1), (0.5, 0.01), (0.749, 0.01), (0.75, 0.001)])
def test_the_papers_schedule_divides_by_ten_at_32_000_and_48_000_of_64_000(progress: float, rate: float) -> None:
    assert learning_rate(RECIPES["paper"], progress) == pytest.approx(rate)


@pytest.mark.parametrize(("epoch", "rate"), [(0, 1e-3), (79, 1e-3), (80, 1e-4), (119, 1e-4), (120, 1e-5), (160, 1e-6)])
def test_the_keras_schedule_divides_by_ten_after_80_120_and_160_of_200_epochs(epoch: int, rate: float) -> None:
    assert learning_rate(RECIPES["keras"], (epoch + 0.5) / 200) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("progress", "of_32", "of_28"),
    [(0.0, 16, 16), (0.2499, 16, 16), (0.25, 20, 16), (0.5, 24, 20), (0.75, 28, 24), (0.875, 32, 28), (0.999, 32, 28)],
)
def test_images_grow_to_their_own_size_in_steps_of_four(progress: float, of_32: int, of_28: int) -> None:
    recipe = RECIPES["rtk"]
    assert (image_side(recipe, progress, 32), image_side(recipe, progress, 28)) == (of_32, of_28)


def test_images_are_never_scaled_up_and_other_recipes_leave_them_alone() -> None:
    assert image_side(RECIPES["rtk"], 0.0, 3) == 3
    assert image_side(RECIPES["paper"], 0.0, 32) == 32


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"^recipe 'papers' is unknown; did you mean paper\? known: rtk, .*paper, keras"
    ):
        find_recipe("papers")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--epochs 0: expected 1 or more"),
        ({"batch_size": 1}, "--batch-size 1: expected 2 or more; batch norm needs them"),
        ({"lr": 0.0}, "--lr 0.0: expected a positive number"),
        ({"lr": math.nan}, "--lr nan: expected a positive number"),
        ({"lr": math.inf}, "--lr inf: expected a positive number"),
    ],
)
def test_values_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        replace(RECIPES["rtk"], **change)
    assert str(caught.value) == message


# Augmentation.


@pytest.fixture
def images() -> torch.Tensor:
    """12 noise images of 6 x 5 pixels: every window of them is unlike every other."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8))


def augmenter(images: torch.Tensor, **settings: Any) -> Augmenter:
    return Augmenter(images, **{"padding": 0, "flip": "none", "erasing": 0.0, "generator": generator(), **settings})


def windows(images: torch.Tensor, padding: int, *, mirrored: bool) -> list[dict[bytes, tuple[int, int]]]:
    """Of each image, every crop of its padded self, with its offset; by NumPy."""
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
    views_of = augmenter(images, padding=2)
    for _ in range(40):
        order = torch.randperm(12, generator=random)
        for index, view in zip(order.tolist(), views_of.views(order, epoch=0, generator=random), strict=True):
            assert view.dtype == torch.uint8
            seen.add(crops[index][view.numpy().tobytes()])
    assert seen == {(row, column) for row in range(5) for column in range(5)}


def test_random_flips_mirror_half_of_the_views_and_nothing_else(images: torch.Tensor) -> None:
    plain, mirrored = windows(images, 2, mirrored=False), windows(images, 2, mirrored=True)
    views_of, random, index, flipped = augmenter(images, padding=2, flip="random"), generator(), torch.arange(12), 0
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
    assert len(set(sides[0])) == 2  # the images do not all turn at once


def test_without_augmentation_the_images_are_themselves(images: torch.Tensor) -> None:
    assert torch.equal(augmenter(images).views(torch.arange(12), epoch=1, generator=generator()), images)


def test_scaled_images_are_means_of_the_pixels_that_they_cover() -> None:
    columns = torch.tensor([0, 0, 90, 90, 180, 180, 255, 255], dtype=torch.uint8)
    image_NHWC = columns[None, None, :, None].expand(1, 8, 8, 3)
    half_HW = scaled(image_NHWC, 4, 4)[0, :, :, 0]
    # The antialiasing triangle spans four pixels, with weights 1 3 3 1: (3 * 0 + 3 * 0 + 1 * 90) / 7 at the border.
    assert half_HW[0].tolist() == [13, 90, 178, 244]
    assert (half_HW == half_HW[0]).all()
    assert scaled(image_NHWC, 8, 8) is image_NHWC


def test_erasing_hits_as_often_and_as_much_as_it_says() -> None:
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
    assert 0.19 < np.mean(shares) < 0.22  # the middle of the bounds, 0.21, less what long rectangles lose at the edge
    assert 125 < float(views[changed_NHW].float().mean()) < 130  # noise of 0 to 255


def test_the_same_generator_gives_the_same_views(images: torch.Tensor) -> None:
    views_of = augmenter(images, padding=2, flip="random", erasing=0.5)
    first, second = (views_of.views(torch.arange(12), epoch=3, generator=generator(9)) for _ in range(2))
    assert torch.equal(first, second)


# Sampling.


def test_without_pruning_every_epoch_is_a_permutation() -> None:
    sampler = Sampler(50, pruning=0.0, device=CPU)
    sampler.record(torch.arange(50), torch.linspace(0, 1, 50))
    order, weights = sampler.draw(0.5, generator())
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() != list(range(50))
    assert weights.tolist() == [1.0] * 50


def test_nothing_is_pruned_before_its_loss_is_known() -> None:
    sampler = Sampler(50, pruning=0.5, device=CPU)
    order, weights = sampler.draw(0.0, generator())
    assert sorted(order.tolist()) == list(range(50))
    assert weights.tolist() == [1.0] * 50
    sampler.record(torch.arange(10), torch.linspace(0, 1, 10))
    order, weights = sampler.draw(0.1, generator())
    assert set(range(5, 50)) <= set(order.tolist())
    assert weights[10:].tolist() == [1.0] * 40


def test_everything_is_seen_in_the_last_eighth() -> None:
    sampler = Sampler(50, pruning=0.5, device=CPU)
    sampler.record(torch.arange(50), torch.linspace(0, 1, 50))
    assert len(sampler.draw(0.874, generator())[0]) < 50
    for progress in (0.875, 0.99):
        order, weights = sampler.draw(progress, generator())
        assert sorted(order.tolist()) == list(range(50))
        assert weights.tolist() == [1.0] * 50


def test_pruning_keeps_the_hard_images_and_the_expected_weight_of_every_image() -> None:
    sampler = Sampler(1_000, pruning=0.25, device=CPU)
    losses = torch.arange(1_000.0)
    sampler.record(torch.arange(1_000), losses)
    total, random, draws = torch.zeros(1_000), generator(), 2_000
    for _ in range(draws):
        order, weights = sampler.draw(0.5, random)
        assert len(set(order.tolist())) == len(order)
        total[order] += weights[order]
    average = total / draws
    assert average[500:].tolist() == [1.0] * 500  # of at least average loss: always there, weight one
    assert weights[:500].tolist() == pytest.approx([4 / 3] * 500)
    # standard error of one image 4/3 * sqrt(0.25 * 0.75 / 2,000) = 0.013, of the mean of 500 0.0006
    assert float(average[:500].mean()) == pytest.approx(1.0, abs=0.003)
    assert float((average[:500] - 1).abs().max()) < 0.065


def test_the_sampler_knows_the_latest_loss() -> None:
    sampler = Sampler(4, pruning=0.5, device=CPU)
    sampler.record(torch.tensor([2, 0]), torch.tensor([0.5, 0.25]))
    sampler.record(torch.tensor([0]), torch.tensor([0.125]))
    assert sampler.losses_N.tolist() == [0.125, math.inf, 0.5, math.inf]


# The moving average.


def small_model() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def test_the_average_is_the_one_of_a_hand_written_loop() -> None:
    model, random = small_model(), generator()
    average = Average(model, horizon_steps=100)
    expected = {name: value.double().numpy() for name, value in model.state_dict().items()}
    for step in range(1, 201):
        with torch.no_grad():
            for value in model.state_dict().values():
                if value.is_floating_point():
                    value.add_(torch.randn(value.shape, generator=random))
                else:
                    value.add_(1)
        average.step()
        if step % 5 == 0:
            decay = min(0.95, (1 + step / 5) / (10 + step / 5))
            for name, value in model.state_dict().items():
                expected[name] = decay * expected[name] + (1 - decay) * value.double().numpy()
    for name, value in average.current().items():
        if name.endswith("num_batches_tracked"):
            assert int(value) == 200
        else:
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)


def test_without_a_horizon_the_average_is_the_weights() -> None:
    model = small_model()
    average = Average(model, horizon_steps=0)
    with torch.no_grad():
        model[0].weight.add_(1)
    average.step()
    assert torch.equal(average.current()["0.weight"], model[0].weight)


def test_averaging_leaves_the_model_alone() -> None:
    model = small_model()
    average = Average(model, horizon_steps=10)
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        average.current()["0.weight"].add_(5)
    assert torch.equal(model[0].weight, before)


# Scores.


def test_a_score_counts_hits_and_averages_the_loss_over_all_images() -> None:
    class PixelAsLogits(torch.nn.Module):
        def forward(self, images_NHWC: torch.Tensor) -> torch.Tensor:
            return images_NHWC[:, 0, 0, :].float() / 10

    random = np.random.default_rng(0)
    images = random.integers(0, 25, (1_203, 1, 1, 4), dtype=np.uint8)  # not a multiple of the batch
    images = images * 4 + np.arange(4, dtype=np.uint8)  # no ties
    labels = random.integers(0, 4, 1_203)
    score = evaluate(PixelAsLogits(), torch.from_numpy(images), torch.from_numpy(labels), split="test")
    logits = images[:, 0, 0].astype(np.float64) / 10
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(1_203), labels]
    assert score.total == 1_203
    assert score.correct == (logits.argmax(axis=1) == labels).sum()
    assert score.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert score.split == "test"


# Where and how it runs.


def test_a_gpu_that_is_not_there_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"^--device cuda: this PyTorch \(.*\) finds no CUDA GPU$"):
        choose_arithmetic("cuda", "fp32")
    assert choose_arithmetic("auto", "fp32") == Arithmetic(CPU, None)


def test_precision_is_what_was_asked_for() -> None:
    assert choose_arithmetic("cpu", "fp32").precision == "fp32"
    assert choose_arithmetic("cpu", "bf16").precision == "bf16"
    assert choose_arithmetic("cpu", "auto").precision in ("fp32", "bf16")


def test_compilation_that_cannot_be_had_is_said_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    network, arithmetic = small_model(), Arithmetic(CPU, None)
    assert compiled(network, arithmetic, "off") == "not compiled"
    assert compiled(network, arithmetic, "auto").startswith("not compiled (no ")
    with pytest.raises(BackendError, match=r"^--compile on: torch\.compile needs a C\+\+ compiler$"):
        compiled(network, arithmetic, "on")
