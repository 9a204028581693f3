"""The architectures: parameters, names, padding, and agreement with an independent definition in Keras.

The Keras networks are those of bench/baselines/keras_example.py, which follow the published description of Keras'
CIFAR-10 ResNet example; they run on Keras' torch backend.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported anywhere

from typing import Any

import numpy as np
import pytest
import torch
from rtk.bench.baselines.keras_example import keras_network
from rtk.core.errors import UnknownNameError, UsageError
from rtk.core.models.initialise import initialise
from rtk.core.models.model import build_network
from rtk.core.models.names import known_architectures, parse_architecture
from rtk.core.models.resnet_cifar import SameConv2d

# Parameters for 32 x 32 x 3 images and ten classes: trainable, and with the running means and variances of batch norm.
# Keras prints these counts for the networks of the example.

PARAMETERS = {
    "resnet20v1": (273_066, 274_442),
    "resnet32v1": (467_946, 470_218),
    "resnet44v1": (662_826, 665_994),
    "resnet56v1": (857_706, 861_770),
    "resnet110v1": (1_734_666, 1_742_762),
    "resnet164v1": (2_611_626, 2_623_754),
    "resnet20v2": (570_602, 574_090),
    "resnet56v2": (1_663_338, 1_673_738),
    "resnet110v2": (3_302_442, 3_323_210),
    "resnet164v2": (4_941_546, 4_972_682),
}


@pytest.mark.parametrize("arch", PARAMETERS)
def test_parameter_counts_are_the_published_ones(arch: str) -> None:
    with torch.device("meta"):  # only shapes
        network = build_network(arch, in_channels=3, classes=10)
    trainable = sum(parameter.numel() for parameter in network.parameters())
    statistics = sum(b.numel() for name, b in network.named_buffers() if name.endswith(("mean", "var")))
    assert (trainable, trainable + statistics) == PARAMETERS[arch]


@pytest.mark.parametrize(("arch", "convolutions"), [("resnet20v1", 21), ("resnet56v1", 57), ("resnet29v2", 31)])
def test_the_depth_is_the_number_of_layers_without_projections(arch: str, convolutions: int) -> None:
    """v1 of depth d has d - 1 convolutions, a dense layer and 2 projections; v2 has 3 projections."""
    with torch.device("meta"):
        network = build_network(arch, in_channels=3, classes=10)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules()) == convolutions


# Names.


def test_every_known_architecture_name_is_parsed() -> None:
    assert known_architectures() == [
        *(f"resnet{depth}v1" for depth in (20, 32, 44, 56, 110, 164)),
        *(f"resnet{depth}v2" for depth in (20, 29, 56, 110, 164, 1001)),
        *(f"plain{depth}" for depth in (20, 32, 44, 56)),
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        "resnet18d2l",
    ]
    for name in known_architectures():
        assert parse_architecture(name).family.named(parse_architecture(name).depth) == name


@pytest.mark.parametrize(("name", "depth"), [("resnet8v1", 8), ("resnet14v1", 14), ("resnet11v2", 11), ("plain8", 8)])
def test_depths_that_are_not_listed_work_too(name: str, depth: int) -> None:
    assert parse_architecture(name).depth == depth


@pytest.mark.parametrize(
    "name",
    [
        "vgg16",
        "resnet20",
        "resnet20v3",
        "ResNet20v1",
        "resnet020v1",
        "resnet-20v1",
        "resnet\uff12\uff10v1",
        "",
        "resnet20v1\n",
        "resnet19",
        "resnet34d2l",
        "plain",
    ],
)
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(
        UnknownNameError,
        match=r"^architecture .* is unknown; .*known: resnet20v1, .*, resnet152, resnet18d2l; "
        r"for a network of your own: package\.module:function$",
    ):
        parse_architecture(name)


def test_the_error_for_a_misspelt_name_suggests_a_known_one() -> None:
    with pytest.raises(UnknownNameError, match=r"'resnet20_v1' is unknown; did you mean resnet20v1\? known: "):
        parse_architecture("resnet20_v1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet21v1", "architecture 'resnet21v1': depth 21 is not 6n+2; nearest: 20 or 26 (known: resnet20v1, "),
        ("resnet55v2", "architecture 'resnet55v2': depth 55 is not 9n+2; nearest: 47 or 56 (known: resnet20v1, "),
        ("plain55", "architecture 'plain55': depth 55 is not 6n+2; nearest: 50 or 56 (known: resnet20v1, "),
        ("resnet3v1", "architecture 'resnet3v1': depth 3 is not 6n+2; nearest: 8 (known: "),
        ("resnet2v2", "architecture 'resnet2v2': depth 2 is not 9n+2; nearest: 11 (known: "),
    ],
)
def test_the_error_for_an_invalid_depth_names_the_nearest_depths(name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_architecture(name)
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


# Padding and sizes.


def padded_by_tensorflow(x_NCHW: torch.Tensor, *, kernel: int, stride: int) -> torch.Tensor:
    """TensorFlow's rule for `same`: ceil(size / stride) output rows; the larger half of the padding is at the end."""
    pads: list[int] = []
    for size in (x_NCHW.shape[3], x_NCHW.shape[2]):
        out = -(-size // stride)
        total = max((out - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return torch.nn.functional.pad(x_NCHW, pads)


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (7, 7), (7, 8), (8, 5), (1, 1), (2, 3)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2)])
def test_convolutions_pad_as_tensorflow_does(size: tuple[int, int], kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    convolution = SameConv2d(2, 3, kernel=kernel, stride=stride)
    x = torch.randn(1, 2, *size, generator=generator)
    padded = padded_by_tensorflow(x, kernel=kernel, stride=stride)
    expected = torch.nn.functional.conv2d(padded, convolution.weight, convolution.bias, stride=stride)
    assert expected.shape[2:] == (-(-size[0] // stride), -(-size[1] // stride))
    torch.testing.assert_close(convolution(x), expected)


@pytest.mark.parametrize("arch", ["resnet8v1", "resnet11v2", "plain8", "resnet18", "resnet50", "resnet18d2l"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (32, 32), (96, 96), (17, 30)])
def test_any_image_size_and_channel_count_works(arch: str, channels: int, size: tuple[int, int]) -> None:
    network = build_network(arch, in_channels=channels, classes=7).eval()
    with torch.inference_mode():
        logits_NK = network(torch.zeros(2, channels, *size))
    assert logits_NK.shape == (2, 7)
    assert torch.isfinite(logits_NK).all()


@pytest.mark.parametrize("arch", ["resnet8v1", "resnet11v2"])
def test_initialisation_has_the_variance_of_he_and_is_reproducible(arch: str) -> None:
    networks = [build_network(arch, in_channels=3, classes=10) for _ in range(2)]
    for network in networks:
        initialise(network, torch.Generator().manual_seed(5))
    for (name, first), second in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(first, second), name
        if first.ndim == 4 and first.numel() > 5_000:
            fan_in = first[0].numel()
            assert float(first.detach().var()) == pytest.approx(2 / fan_in, rel=0.1)
            assert float(first.detach().abs().max()) <= 2.28 * (2 / fan_in) ** 0.5  # 2 / 0.8796


# Agreement with Keras, weight for weight.


def weights_in_keras_layout(network: torch.nn.Module) -> list[list[np.ndarray[Any, Any]]]:
    """Return the weights of each layer in the order and layout of Keras."""
    weights: list[list[torch.Tensor]] = []
    for layer in network.modules():
        match layer:
            case torch.nn.Conv2d(weight=weight, bias=bias):
                weights.append([weight.permute(2, 3, 1, 0), bias])
            case torch.nn.BatchNorm2d():
                weights.append([layer.weight, layer.bias, layer.running_mean, layer.running_var])
            case torch.nn.Linear(weight=weight, bias=bias):
                weights.append([weight.T, bias])
    return [[weight.detach().numpy() for weight in layer] for layer in weights]


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras", reason="needs Keras: pip install -e '.[test]'")


def both(keras: Any, randomise: Any, version: int, depth: int) -> tuple[torch.nn.Module, Any, list[Any]]:
    """Return our network and the one of Keras with the same random weights and statistics, and the layers of Keras."""
    ours = build_network(f"resnet{depth}v{version}", in_channels=3, classes=10)
    randomise(ours, seed=depth)
    theirs, layers = keras_network(keras, parse_architecture(f"resnet{depth}v{version}"))
    for layer, weights in zip(layers, weights_in_keras_layout(ours), strict=True):
        layer.set_weights(weights)
    return ours, theirs, layers


@pytest.mark.parametrize(("version", "depth"), [(1, 20), (2, 20), (2, 29)])
def test_logits_agree_with_the_keras_example(keras: Any, randomise: Any, version: int, depth: int) -> None:
    ours, theirs, _ = both(keras, randomise, version, depth)
    images = np.random.default_rng(0).normal(0, 1, (16, 32, 32, 3)).astype(np.float32)
    with torch.inference_mode():
        ours_NK = ours.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        theirs_NK = theirs(images, training=False).numpy()
    assert np.ptp(ours_NK) > 1  # the logits differ enough for a comparison
    assert np.abs(ours_NK - theirs_NK).max() <= 1e-4


@pytest.mark.parametrize(("version", "depth"), [(1, 20), (2, 29)])
def test_batch_norm_updates_its_statistics_as_keras_does(keras: Any, randomise: Any, version: int, depth: int) -> None:
    """One pass in training mode changes the running statistics in the same way: momentum and epsilon are the same."""
    ours, theirs, layers = both(keras, randomise, version, depth)
    before = [[weight.copy() for weight in layer] for layer in weights_in_keras_layout(ours)]
    images = np.random.default_rng(0).normal(0, 1, (16, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        ours.train()(torch.from_numpy(images).permute(0, 3, 1, 2))
        theirs(images, training=True)
    after = weights_in_keras_layout(ours)
    moved = [abs(new - old).max() for a, b in zip(after, before, strict=True) for new, old in zip(a, b, strict=True)]
    assert max(moved) > 1e-3
    for layer, weights in zip(layers, after, strict=True):
        for our_weight, their_weight in zip(weights, layer.weights, strict=True):
            # torch uses the unbiased variance, Keras the biased one: they differ by 1 / 1,024 for the smallest maps
            np.testing.assert_allclose(our_weight, their_weight.value.detach(), atol=1e-5, rtol=1e-3)
