"""The speed of training as a ratio to the loop that a user would write: `rtk bench-train`."""

import itertools
import math
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rtk.bench.baselines.keras_example import import_keras, keras_loop, keras_network
from rtk.bench.baselines.training import TrainingLoop, measure_training
from rtk.bench.baselines.training_loops import bare_loop, plain_loop
from rtk.bench.config import BenchConfig
from rtk.cli import app as cli
from rtk.core.card import ModelCard
from rtk.core.data.datasets import Split
from rtk.core.errors import BackendError, UsageError
from rtk.core.models.names import parse_architecture
from torch import device, from_numpy

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' generator, of SciPy and NumPy
CPU = device("cpu")


@pytest.fixture(scope="module")
def keras() -> Any:
    try:
        return import_keras("cpu")
    except BackendError as error:
        pytest.skip(f"needs Keras: {error}")


def steps_of(seconds: float) -> Iterator[int]:
    while True:
        time.sleep(seconds)
        yield 4


def test_each_loop_is_measured_with_its_own_batch(card: ModelCard, shapes64: Split) -> None:
    loops = [TrainingLoop("slow", steps_of(0.02), 4), TrainingLoop("slower", steps_of(0.04), 8)]
    config = BenchConfig(seconds=1.0)
    measured = measure_training(card, shapes64, loops, config, device="cpu", batch=8, advance=lambda count: None)
    cells = measured.cells
    assert not measured.interrupted
    assert [(cell.backend, cell.batch) for cell in cells] == [
        ("plain loop", 8),
        ("bare loop", 8),
        ("slow", 4),
        ("slower", 8),
    ]
    slow, slower = cells[2:]
    assert 0 < slow.images_per_s <= 4 / 0.02  # sleeping takes at least that long
    assert 0 < slower.images_per_s <= 8 / 0.04
    for cell in (slow, slower):
        assert cell.images_per_s == pytest.approx(cell.batch / np.median([np.mean(one) for one in cell.rounds]))


def test_a_loop_without_memory_stops_alone(card: ModelCard, shapes64: Split) -> None:
    def full() -> Iterator[int]:
        yield 4
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 4 GiB")

    loops = [TrainingLoop("full", full(), 4), TrainingLoop("slow", steps_of(0.02), 4)]
    config = BenchConfig(seconds=0.5)
    measured = measure_training(card, shapes64, loops, config, device="cpu", batch=8, advance=lambda count: None)
    cells = {cell.backend: cell for cell in measured.cells}
    assert cells["full"].error.startswith("full: out of GPU memory (2 GiB requested)")
    assert all(cells[name].rounds and not cells[name].error for name in ("plain loop", "bare loop", "slow"))


def test_the_plain_and_the_bare_loop_make_steps(card: ModelCard, shapes64: Split) -> None:
    images_NHWC, labels_N = from_numpy(shapes64.images_NHWC), from_numpy(shapes64.labels_N)
    for loop in (plain_loop(card, images_NHWC, labels_N, batch=24), bare_loop(card, CPU, batch=24)):
        assert list(itertools.islice(loop, 5)) == [24] * 5  # more than one epoch of two batches


def test_the_keras_example_has_the_documented_network(keras: Any, shapes64: Split) -> None:
    arch = parse_architecture("resnet20v1")
    network, _ = keras_network(keras, arch)
    assert sum(math.prod(weight.shape) for weight in network.trainable_weights) == 273_066  # as Keras prints for it
    kernels = [layer for layer in network.layers if type(layer).__name__ == "Conv2D"]
    assert [float(layer.kernel_regularizer.l2) for layer in kernels] == pytest.approx([1e-4] * 21)
    odd = Split(shapes64.images_NHWC[:40], shapes64.labels_N[:40])
    assert list(itertools.islice(keras_loop(keras, arch, odd.images_NHWC, odd.labels_N), 3)) == [32] * 3


def test_only_networks_of_the_keras_example_run_in_keras(keras: Any, shapes64: Split) -> None:
    with pytest.raises(UsageError, match=r"^the Keras example has no resnet18; expected a resnet of v1 or v2$"):
        keras_loop(keras, parse_architecture("resnet18"), shapes64.images_NHWC, shapes64.labels_N)


def test_without_keras_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(BackendError, match=r"\(No module named 'scipy.ndimage'\); pip install keras scipy$"):
        import_keras("cpu")


def test_bench_train_compares_rtk_with_every_loop(
    keras: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["resnet8v1", "--dataset", "shapes", "--keras", "--seconds", "1"]
    monkeypatch.setattr("sys.argv", ["rtk", "bench-train", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    printed = capsys.readouterr().out
    for name, batch in (("plain loop", 128), ("bare loop", 128), ("rtk", 128), (r"Keras 3\.\S+", 32)):
        assert re.search(rf"^{name} +{batch} ", printed, re.MULTILINE), printed
    ratio = r"[\d.]+( ±[\d.]+)? times"
    assert re.search(
        rf"\n\nrtk: {ratio} the plain loop(| \(busy\))\nplain loop: {ratio} the bare loop(| \(busy\))\n"
        rf"rtk: {ratio} Keras 3\.\S+(| \(busy\))\nrtk: [\d.]+ s per epoch of [\d,]+ images\n$",
        printed,
    )


def test_a_split_smaller_than_a_batch_is_refused(card: ModelCard, shapes64: Split) -> None:
    with pytest.raises(UsageError, match=r"^cifar10 has 64 training images, expected 100 or more: one batch$"):
        measure_training(
            card, shapes64, [], BenchConfig(seconds=1.0), device="cpu", batch=100, advance=lambda count: None
        )


def test_ctrl_c_prints_the_measurements_and_exits_as_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> Iterator[int]:
        raise KeyboardInterrupt
        yield 0

    monkeypatch.setattr("rtk.bench.baselines.training.bare_loop", lambda *arguments, batch: interrupted())
    monkeypatch.setattr("sys.argv", ["rtk", "bench-train", "resnet8v1", "--dataset", "shapes", "--seconds", "1"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    printed = capsys.readouterr()
    assert "Training resnet8v1 on shapes" in printed.out
    assert printed.err.endswith("rtk: stopped; the table holds what was measured until then\n")
