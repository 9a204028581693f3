"""The parts of a training: schedule, weight decay, recipes, sampling, averaging, evaluation, device."""

import math
import re
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from rtk.core.errors import BackendError, UnknownNameError, UsageError
from rtk.core.machine import this_machine
from rtk.core.models.model import build_network
from rtk.train import device
from rtk.train.config import Compile
from rtk.train.data.sampling import Sampler
from rtk.train.device import Arithmetic, Compilation, choose_arithmetic, compile_network
from rtk.train.evaluate import evaluate
from rtk.train.optim.ema import MovingAverage, share_kept
from rtk.train.optim.optimiser import decayed
from rtk.train.optim.schedule import image_side, learning_rate, plateau_rate, progress_at
from rtk.train.recipes import RECIPES, find_recipe
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The learning rate and the image size, with values calculated by hand.


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
    assert learning_rate(replace(RECIPES["paper"], slow_start=None), progress) == pytest.approx(rate)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (31_999, 0.1), (32_000, 0.01), (47_999, 0.01), (48_000, 0.001)])
@pytest.mark.parametrize("steps_per_epoch", [390, 351, 1_000])
def test_the_papers_schedule_counts_steps_for_any_number_of_steps_per_epoch(
    step: int, rate: float, steps_per_epoch: int
) -> None:
    recipe = replace(RECIPES["paper"], slow_start=None)
    epoch, in_epoch = divmod(step, steps_per_epoch)
    assert learning_rate(recipe, progress_at(recipe, epoch, in_epoch, steps_per_epoch)) == pytest.approx(rate)


def test_the_paper_trains_64_000_steps_on_any_data() -> None:
    # 50,000 // 128 = 390 steps an epoch, 164.1 epochs; 60,000 // 128 = 468, 136.8; 100 images are one batch
    assert [RECIPES["paper"].for_images(count).epochs for count in (50_000, 60_000, 100)] == [165, 137, 64_000]
    assert RECIPES["keras"].for_images(50_000).epochs == 200


def test_recipe_finetune_repeats_few_images_until_it_has_its_least_steps() -> None:
    """Batches of 32, 10 epochs, 400 steps: 15 steps an epoch need 27 epochs, 3 steps 134; 1,562 steps need no more."""
    assert [RECIPES["finetune"].for_images(count).epochs for count in (500, 100, 50_000)] == [27, 134, 10]
    assert RECIPES["finetune"].for_images(500).total_steps(500) == 27 * 15


def test_a_deep_network_has_a_low_rate_until_an_epochs_training_error_is_below_80_per_cent() -> None:
    recipe = RECIPES["paper"]
    errors = [0.85, 0.80, 0.79, 0.81]
    history = [{"train_accuracy": 1 - error} for error in errors]
    rates = [learning_rate(recipe, 0.01, history[:epochs]) for epochs in range(5)]
    assert rates == [0.01, 0.01, 0.01, 0.1, 0.1]  # after the first epoch below, the rate stays high


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 1e-3), (80, 1e-3), (81, 1e-4), (120, 1e-4), (121, 1e-5), (160, 1e-5), (161, 1e-6), (180, 1e-6), (181, 5e-7)],
)
@pytest.mark.parametrize("step", [0, 781, 1_562])
def test_the_keras_schedule_falls_after_epochs_80_120_160_and_180_counted_from_0(
    epoch: int, rate: float, step: int
) -> None:
    recipe = RECIPES["keras"]
    assert learning_rate(recipe, progress_at(recipe, epoch, step, 1_563)) == pytest.approx(rate)


def test_the_plateau_rule_waits_five_epochs_and_then_counts_again() -> None:
    """Calculated by hand: sqrt(0.1) = 0.316227766."""
    better = [1.0, 0.9, 0.8]
    same = [0.8, 0.79995, 0.81, 0.9]  # 0.79995 is not better by 1e-4
    assert plateau_rate(1e-3, better + same) == 1e-3
    assert plateau_rate(1e-3, [*better, *same, 0.8]) == pytest.approx(3.16227766e-4)
    assert plateau_rate(1e-3, [*better, *same, 0.8, *same]) == pytest.approx(3.16227766e-4)
    assert plateau_rate(1e-3, [*better, *same, 0.8, *same, 0.8]) == pytest.approx(1e-4)
    assert plateau_rate(1e-3, [*better, *same, 0.7, *same]) == 1e-3  # better in the fifth epoch


def test_the_plateau_rule_stops_at_its_floor() -> None:
    assert plateau_rate(1e-6, [1.0] * 6) == 5e-7  # 3.2e-7 is below the floor
    assert plateau_rate(1e-6, [1.0] * 60) == 5e-7
    assert plateau_rate(1e-7, [1.0] * 60) == 1e-7  # a rate that starts below the floor does not change


def test_the_plateau_schedule_uses_held_out_images_if_there_are_any() -> None:
    recipe = replace(RECIPES["keras"], schedule="plateau")
    falling = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    held_out = [{"holdout_loss": 1.0, "test_loss": loss} for loss in falling]
    assert learning_rate(recipe, 0.5, held_out) == pytest.approx(3.16227766e-4)
    assert learning_rate(recipe, 0.5, [{"test_loss": loss} for loss in falling]) == 1e-3


# Weight decay.


@pytest.mark.parametrize(
    ("decays", "count"),
    [
        # resnet8v1: 7 convolutions of 3 x 3 and 2 projections; 1 dense layer; biases of the ten; 7 batch norms of two
        ("convolutions", 9),
        ("matrices", 10),
        ("all", 10 + 10 + 14),
    ],
)
def test_the_number_of_parameters_that_decay(decays: Any, count: int) -> None:
    network = build_network("resnet8v1", in_channels=3, classes=10)
    assert sum(decayed(parameter, decays) for parameter in network.parameters()) == count


def test_the_keras_decay_is_1e_4_times_the_sum_of_squares_in_the_loss() -> None:
    weights = torch.tensor([0.5, -2.0, 3.0]).reshape(1, 3, 1, 1).requires_grad_()
    (1e-4 * (weights**2).sum()).backward()
    assert weights.grad is not None
    assert weights.grad.flatten().tolist() == pytest.approx([1e-4, -4e-4, 6e-4])  # 2e-4 times the weight
    assert RECIPES["keras"].weight_decay * np.array([0.5, -2.0, 3.0]) == pytest.approx([1e-4, -4e-4, 6e-4])


@pytest.mark.parametrize(
    ("progress", "of_32", "of_28"),
    # 3/4 of 32 is 24, of 28 it is 21, and the nearest multiple of four is 20
    [(0.0, 16, 16), (0.2499, 16, 16), (0.25, 24, 20), (0.4999, 24, 20), (0.5, 32, 28), (0.999, 32, 28)],
)
def test_images_grow_to_their_own_size_in_steps_of_four(progress: float, of_32: int, of_28: int) -> None:
    recipe = RECIPES["rtk"]
    assert (image_side(recipe, progress, 32), image_side(recipe, progress, 28)) == (of_32, of_28)


def test_images_are_never_scaled_up_and_other_recipes_do_not_scale_them() -> None:
    assert image_side(RECIPES["rtk"], 0.0, 3) == 3
    assert image_side(RECIPES["paper"], 0.0, 32) == 32


def test_every_recipe_names_its_source() -> None:
    assert all(recipe.source for recipe in RECIPES.values())


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"^recipe 'papers' is unknown; did you mean paper\? known: rtk, .*paper, keras"
    ):
        find_recipe("papers")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--epochs 0: expected 1 or more"),
        ({"batch_size": 1}, "--batch-size 1: expected 2 or more, for batch norm"),
        ({"lr": 0.0}, "--lr 0.0: expected a positive number"),
        ({"lr": math.nan}, "--lr nan: expected a positive number"),
        ({"lr": math.inf}, "--lr inf: expected a positive number"),
        ({"resize": 1_025}, "--resize 1025: expected 1 to 1024 pixels, or 0"),
    ],
)
def test_invalid_values_are_rejected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        replace(RECIPES["rtk"], **change)
    assert str(caught.value) == message


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


def test_the_last_eighth_sees_every_image() -> None:
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
    assert average[500:].tolist() == [1.0] * 500  # of at least average loss: always included, with weight one
    assert weights[:500].tolist() == pytest.approx([4 / 3] * 500)
    # standard error of one image 4/3 * sqrt(0.25 * 0.75 / 2,000) = 0.013, of the mean of 500 0.0006
    assert float(average[:500].mean()) == pytest.approx(1.0, abs=0.003)
    assert float((average[:500] - 1).abs().max()) < 0.065


def test_the_sampler_stores_the_latest_loss() -> None:
    sampler = Sampler(4, pruning=0.5, device=CPU)
    sampler.record(torch.tensor([2, 0]), torch.tensor([0.5, 0.25]))
    sampler.record(torch.tensor([0]), torch.tensor([0.125]))
    assert sampler.losses_N.tolist() == [0.125, math.inf, 0.5, math.inf]


# The moving average.


def small_model() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def test_the_average_equals_that_of_a_hand_written_loop() -> None:
    model, random = small_model(), generator()
    average = MovingAverage(model, horizon_steps=100)
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


def test_the_average_moves_in_two_operations_whatever_the_number_of_tensors() -> None:
    class Moves(TorchDispatchMode):
        names: ClassVar[list[str]] = []

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if any(word in str(function) for word in ("lerp", "copy_", "mul", "add")):
                self.names.append(str(function))
            return function(*args, **(kwargs or {}))

    average = MovingAverage(build_network("resnet8v1", in_channels=3, classes=10), horizon_steps=100)
    average.steps = 4
    with Moves():
        average.step()
    assert Moves.names == ["aten._foreach_lerp_.Scalar", "aten._foreach_copy_.default"]


@pytest.mark.parametrize(
    ("steps", "kept"),
    # after 1, 2 and 10 updates; (1 + n) / (10 + n) reaches 0.95 with the 170th
    [(5, 2 / 11), (10, 3 / 12), (50, 11 / 20), (845, 170 / 179), (850, 0.95), (9_000, 0.95)],
)
def test_a_young_average_forgets_faster(steps: int, kept: float) -> None:
    assert share_kept(0.95, steps) == pytest.approx(kept)


def test_without_a_horizon_the_average_equals_the_weights() -> None:
    model = small_model()
    average = MovingAverage(model, horizon_steps=0)
    with torch.no_grad():
        model[0].weight.add_(1)
    average.step()
    assert torch.equal(average.current()["0.weight"], model[0].weight)


def test_averaging_does_not_change_the_model() -> None:
    model = small_model()
    average = MovingAverage(model, horizon_steps=10)
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        average.current()["0.weight"].add_(5)
    assert torch.equal(model[0].weight, before)


# Evaluation.


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


# Device, precision and compilation.


def test_a_missing_gpu_is_an_error_if_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        BackendError,
        match=r"^--device cuda: this PyTorch \(.*\) finds no CUDA GPU; use --device cpu, or see: rtk doctor$",
    ):
        choose_arithmetic("cuda", "fp32")
    assert choose_arithmetic("auto", "fp32") == Arithmetic(CPU, None)


def test_the_precision_is_the_requested_one() -> None:
    assert choose_arithmetic("cpu", "fp32").precision == "fp32"
    assert choose_arithmetic("cpu", "bf16").precision == "bf16"
    assert choose_arithmetic("cpu", "auto").precision in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("features", "reason"),
    [(("avx2",), "no gain on this processor"), (("avx2", "amx_bf16"), "torch.compile needs a C++ compiler")],
)
def test_compilation_without_a_compiler_is_reported_or_an_error(
    monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    monkeypatch.setattr(device, "this_machine", lambda: replace(this_machine(), features=features))
    network, arithmetic = small_model(), Arithmetic(CPU, None)
    assert compile_network(network, arithmetic, "off") == Compilation("not compiled")
    assert compile_network(network, arithmetic, "auto") == Compilation(f"not compiled ({reason})")
    with pytest.raises(BackendError, match=r"^--compile on: torch\.compile needs a C\+\+ compiler$"):
        compile_network(network, arithmetic, "on")


def test_a_run_too_short_to_pay_the_compilation_back_is_compiled_only_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "this_machine", lambda: replace(this_machine(), features=("amx_bf16",)))
    monkeypatch.setattr(device, "_compile_problem", lambda *arguments: "")
    network, arithmetic, calls = small_model(), Arithmetic(CPU, None), []
    monkeypatch.setattr(network, "compile", lambda **settings: calls.append(settings))
    short = device.COMPILED_STEPS - 1
    assert compile_network(network, arithmetic, "auto", steps=short).description == "not compiled (too short a run)"
    assert not calls
    assert compile_network(network, arithmetic, "on", steps=short) == Compilation("compiled", compiled=True)
    assert compile_network(network, arithmetic, "auto", steps=short + 1).compiled
    assert compile_network(network, arithmetic, "auto").compiled
    assert len(calls) == 3


@pytest.mark.parametrize("mode", ["reduce-overhead", "cudagraphs", "on+cudagraphs"])
def test_cuda_graphs_are_refused_on_a_cpu(mode: Compile) -> None:
    with pytest.raises(
        BackendError, match=rf"^--compile {re.escape(mode)}: CUDA graphs need a GPU, .*; use --compile on$"
    ):
        compile_network(small_model(), Arithmetic(CPU, None), mode)


def test_cuda_graphs_need_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    gpu, recorded = Arithmetic(torch.device("cuda"), None), "steps recorded as CUDA graphs"
    expected = Compilation(f"not compiled, {recorded}", records_steps=True)
    assert compile_network(small_model(), gpu, "cudagraphs") == expected
    assert compile_network(small_model(), gpu, "auto", steps=1) == expected
    assert compile_network(small_model(), gpu, "auto", alone=False, steps=5_000).description == (
        "not compiled (torch.compile needs a C++ compiler)"
    )
    with pytest.raises(BackendError, match=r"^--compile on\+cudagraphs: torch.compile needs a C\+\+ compiler"):
        compile_network(small_model(), gpu, "on+cudagraphs")


@pytest.mark.parametrize(("on_gpu", "codes"), [(True, 1), (False, 3)])
def test_on_a_gpu_one_code_serves_all_image_sizes(on_gpu: bool, codes: int) -> None:
    network, counter = build_network("resnet8v1", in_channels=3, classes=10), CompileCounterWithBackend("eager")
    network.compile(backend=counter, **device.compile_settings({}, on_gpu=on_gpu))
    counts = []
    for side in (16, 16, 24, 32):
        network(torch.rand(4, 3, side, side)).sum().backward()
        counts.append(counter.frame_count)
    assert counts[0] == counts[1]  # the frames of one code
    assert counts[3] - counts[0] == codes - 1
    torch._dynamo.reset()


def test_a_compiler_that_fails_is_found_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(function: object, **settings: str) -> object:
        def call(values: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("Python.h: No such file\nand much more")

        return call

    monkeypatch.setattr(device.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch, "compile", failing)
    network = small_model()
    with pytest.raises(BackendError) as caught:
        compile_network(network, Arithmetic(CPU, None), "on")
    assert str(caught.value) == "--compile on: torch.compile fails here: RuntimeError: Python.h: No such file"
    monkeypatch.setattr(device, "this_machine", lambda: replace(this_machine(), features=("amx_bf16",)))
    assert compile_network(network, Arithmetic(CPU, None), "auto").description == (
        "not compiled (torch.compile fails here: RuntimeError: Python.h: No such file)"
    )
