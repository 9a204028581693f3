"""rtk import: a checkpoint of weights from elsewhere computes what the network computes, and says where it is from."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.card import Input
from rtk.core.errors import ArtifactError, UnknownNameError, UsageError
from rtk.core.models.model import build_network
from rtk.core.probe import probe_images
from rtk.workflow.import_weights import ImportConfig, Imported, import_weights
from rtk.workflow.known_preprocessing import KNOWN
from safetensors.torch import save_file
from torch import Tensor, nn

CLASSES = "a,b,c,d"


@pytest.fixture
def network(randomise: Callable[..., None]) -> nn.Module:
    """resnet8v1 for colour images of four classes."""
    built = build_network("resnet8v1", in_channels=3, classes=4)
    randomise(built, seed=5)
    return built.eval()


@pytest.fixture
def file(network: nn.Module, tmp_path: Path) -> Path:
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


def make(weights: Path, **changes: Any) -> Imported:
    settings: dict[str, Any] = {
        "arch": "resnet8v1",
        "classes": CLASSES,
        "image_size": "32",
        "preprocess": "unit",
        "out": weights.parent / "out",
    }
    return import_weights(ImportConfig(weights, **(settings | changes)))


def logits(path: Path, size: Input) -> Tensor:
    with torch.inference_mode():
        return load_checkpoint(path).model()(torch.from_numpy(probe_images(6, size)))


def expected(network: nn.Module, size: Input, mean: float = 0.0, std: float = 1.0, *, repeat: int = 1) -> Tensor:
    """The logits by PyTorch alone: pixel / 255, minus mean, / std."""
    pixels_NCHW = torch.from_numpy(probe_images(6, size).astype(np.float32)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        return network((pixels_NCHW.expand(-1, size.channels * repeat, -1, -1) - mean) / std)


def test_the_checkpoint_computes_what_the_network_computes(network: nn.Module, file: Path) -> None:
    made = make(file)
    assert made.path == file.parent / "out" / "mine.pt"
    size = Input(32, 32, 3)
    torch.testing.assert_close(logits(made.path, size), expected(network, size), atol=1e-4, rtol=1e-5)


def test_the_card_says_what_the_model_is_and_where_it_is_from(file: Path) -> None:
    card = load_checkpoint(make(file, preprocess="imagenet", name="birds", fit="letterbox").path).card
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (card.name, card.arch, card.dataset, card.classes) == ("birds", "resnet8v1", "unknown", tuple("abcd"))
    assert (card.input, card.fit, card.precision) == (Input(32, 32, 3), "letterbox", "fp32")
    assert card.preprocessing.to_text() == "/ 255, minus (0.4850, 0.4560, 0.4060), / (0.2290, 0.2240, 0.2250)"
    assert (card.training, card.score, card.data) == (None, None, None)
    assert card.notes == {"imported": {"file": "mine.pth", "sha256": sha256, "weights": "all, as they are"}}


def test_the_note_says_what_was_done_with_the_file(network: nn.Module, tmp_path: Path) -> None:
    weights = {f"module.{name}": value.half() for name, value in network.state_dict().items()}
    torch.save({"state_dict_ema": weights, "state_dict": {"other": torch.ones(1)}}, tmp_path / "a.pth.tar")
    made = make(tmp_path / "a.pth.tar")
    done = "its state_dict_ema (a moving average), not its state_dict; prefix module. removed; fp16 converted to fp32"
    assert made.card.notes["imported"]["weights"] == done
    assert made.source.endswith(f"; {done}")
    assert made.path.name == "a.pt"


def test_mean_and_std_are_taken_as_given(network: nn.Module, file: Path) -> None:
    made = make(file, preprocess=None, mean=(0.5,), std=(0.25, 0.25, 0.25))
    size = Input(32, 32, 3)
    torch.testing.assert_close(logits(made.path, size), expected(network, size, 0.5, 0.25), atol=1e-4, rtol=1e-5)


def test_grey_images_are_repeated_for_a_network_of_colours(network: nn.Module, file: Path) -> None:
    made = make(file, rgb=True)
    assert made.card.input == Input(32, 32, 1)
    found = logits(made.path, Input(32, 32, 1))
    torch.testing.assert_close(found, expected(network, Input(32, 32, 1), repeat=3), atol=1e-4, rtol=1e-5)


def test_a_network_of_grey_images_takes_grey_images(randomise: Callable[..., None], tmp_path: Path) -> None:
    grey = build_network("resnet8v1", in_channels=1, classes=4).eval()
    randomise(grey, seed=5)
    save_file(grey.state_dict(), tmp_path / "grey.safetensors")
    made = make(tmp_path / "grey.safetensors", image_size="28x24")
    size = Input(28, 24, 1)
    assert made.card.input == size
    torch.testing.assert_close(logits(made.path, size), expected(grey, size), atol=1e-4, rtol=1e-5)
    with pytest.raises(UsageError, match=r"grey\.safetensors: its network takes grey images; leave out --rgb"):
        make(tmp_path / "grey.safetensors", rgb=True, name="b")
    with pytest.raises(UsageError, match="--preprocess imagenet: is for three channels, but the network takes 1"):
        make(tmp_path / "grey.safetensors", preprocess="imagenet", name="b")


def test_torchvisions_networks_are_recognised(randomise: Callable[..., None], tmp_path: Path) -> None:
    torchvision = build_network("resnet18", in_channels=3, classes=4).eval()
    randomise(torchvision, seed=5)
    torch.save({"model": torchvision.state_dict()}, tmp_path / "tv.pth")
    made = make(tmp_path / "tv.pth", arch=None, image_size="64")
    assert made.card.arch == "resnet18"
    size = Input(64, 64, 3)
    found, wanted = logits(made.path, size), expected(torchvision, size)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_the_other_weights_are_taken_on_request(network: nn.Module, tmp_path: Path) -> None:
    raw = network.state_dict()
    average = {name: value * 0 if name.startswith("head.") else value for name, value in raw.items()}
    torch.save({"state_dict": raw, "state_dict_ema": average}, tmp_path / "both.pth")
    taken, other = make(tmp_path / "both.pth"), make(tmp_path / "both.pth", ema=False, name="raw")
    assert float(logits(taken.path, Input(32, 32, 3)).abs().max()) == 0
    assert float(logits(other.path, Input(32, 32, 3)).abs().max()) > 0


# What is refused.


def rejection(weights: Path, **changes: Any) -> str:
    with pytest.raises((ArtifactError, UsageError)) as caught:
        make(weights, **changes)
    assert "\n" not in str(caught.value)
    assert not (weights.parent / "out").exists()
    return str(caught.value)


def test_another_number_of_classes_is_an_error(file: Path) -> None:
    assert rejection(file, classes="a,b,c") == (
        f"{file}: its last layer, head.dense, has 4 rows, but --classes names 3; name all 4 in their order, or train a "
        f"new last layer: rtk train resnet8v1 --weights {file}"
    )


def test_weights_of_another_network_are_an_error_about_that(file: Path) -> None:
    message = rejection(file, arch="resnet14v1", classes="a,b,c")
    assert message.startswith(f"{file}: its weights do not fit resnet14v1; missing: blocks.3.")
    assert "wrong shape: " in message


def test_weights_that_are_not_recognised_need_a_name(file: Path) -> None:
    assert rejection(file, arch=None) == (
        f"{file}: its layers are of no network that rtk recognises; add --arch NAME; rtk models lists the names"
    )


def test_a_checkpoint_of_rtk_needs_no_import(checkpoint_path: Path, tmp_path: Path) -> None:
    assert rejection(checkpoint_path) == f"{checkpoint_path}: is a checkpoint of rtk already; use it as it is"
    (tmp_path / "x.pth").write_bytes(checkpoint_path.read_bytes())
    assert rejection(tmp_path / "x.pth").endswith("is a checkpoint of rtk already; rename it, so that it ends with .pt")


def test_weights_whose_logits_overflow_are_an_error(network: nn.Module, tmp_path: Path) -> None:
    huge = {name: value * 1e30 if value.ndim == 4 else value for name, value in network.state_dict().items()}
    torch.save(huge, tmp_path / "huge.pth")
    assert rejection(tmp_path / "huge.pth") == (
        f"{tmp_path / 'huge.pth'}: the logits of generated images of 32 x 32 are not finite; check --arch and "
        "--preprocess"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": None}, "the classes are missing; add --classes FILE, with one name in each line"),
        ({"image_size": None}, "the size of the images is missing; add --image-size N, such as 224"),
        ({"image_size": "7"}, "--image-size 7: expected N or HxW"),
        (
            {"preprocess": None},
            "the preprocessing is missing; add --preprocess unit|samplewise|samplewise-",
        ),
        ({"preprocess": None, "mean": (0.5,)}, "the preprocessing is missing; add --preprocess "),
        ({"mean": (0.5,), "std": (0.5,)}, "--preprocess and --mean with --std exclude each other; leave one of them"),
        ({"preprocess": None, "mean": (123.7,), "std": (58.4,)}, "--mean 123.7: expected values in units of pixel / "),
        ({"preprocess": None, "mean": (0.5,), "std": (0.0,)}, "--std 0: expected values above 0 in units of pixel / "),
        (
            {"preprocess": None, "mean": (0.5, 0.5), "std": (1.0,)},
            "--mean 0.5,0.5: 2 values, but the network takes 3 of them",
        ),
        ({"name": "a/b"}, "--name 'a/b': expected "),
        ({"fit": "squeeze"}, "--fit 'squeeze' is unknown"),
        ({"arch": "resnet9v1"}, "architecture 'resnet9v1': depth 9 is not 6n+2"),
    ],
)
def test_missing_and_contradictory_options_are_one_line(file: Path, changes: Mapping[str, Any], message: str) -> None:
    assert rejection(file, **changes).startswith(message)


@pytest.mark.parametrize("name", ["standard", "center", "mean-image", "zca", "weights"])
def test_preprocessing_that_is_learned_is_refused(file: Path, name: str) -> None:
    assert rejection(file, preprocess=name) == (
        f"--preprocess {name}: is learned from training images, which are not there; expected {', '.join(KNOWN)}, or "
        "--mean and --std"
    )


def test_preprocessing_without_images_is_what_the_help_lists() -> None:
    assert KNOWN == ("unit", "samplewise", "samplewise-center", "imagenet")
    with pytest.raises(UnknownNameError, match=r"--preprocess 'unti' is unknown; did you mean unit\? known: unit, sam"):
        ImportConfig(Path("x.pth"), classes=CLASSES, image_size="32", preprocess="unti")


def test_no_file_is_replaced_unless_requested(network: nn.Module, file: Path, tmp_path: Path) -> None:
    make(file)
    with pytest.raises(UsageError, match=r"out/mine\.pt: exists; choose another --out or --name, or replace it with"):
        make(file)
    assert make(file, classes="e,f,g,h", force=True).card.classes == tuple("efgh")
    torch.save(network.state_dict(), tmp_path / "same.pt")
    with pytest.raises(UsageError, match=r"same\.pt: is the weight file itself; choose another --out or --name"):
        make(tmp_path / "same.pt", out=None, force=True)
