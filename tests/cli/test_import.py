"""rtk import, and what other commands say about a weight file, as users type them."""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.models.model import build_network
from safetensors.torch import save_file
from torch import Tensor

Command = Callable[..., tuple[str, str]]


@pytest.fixture
def weights(randomise: Callable[..., None], tmp_path: Path) -> dict[str, Tensor]:
    """The weights of a resnet8v1 of the classes of `shapes`, in the file mine.ckpt too."""
    network = build_network("resnet8v1", in_channels=3, classes=10)
    randomise(network, seed=2)
    state = dict(network.state_dict())
    content = {"state_dict": {f"net.{name}": value for name, value in state.items()}, "args": argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / "mine.ckpt")
    return state


def torchvisions(path: Path, arch: str = "resnet18") -> Path:
    """A file as torchvision publishes it, without its numbers."""
    state = build_network(arch, in_channels=3, classes=1000).state_dict()
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def test_an_imported_model_is_inspected_and_classifies(
    command_line: Command, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    out, log = command_line(
        *("import", "mine.ckpt", "--arch", "resnet8v1", "--classes", "shapes", "--image-size", "32"),
        *("--mean", "0.5", "--std", "0.25,0.25,0.25", "--out", "out", "--name", "tiny"),
    )
    assert out == "out/tiny.pt\n"
    assert "prefix net. removed" in " ".join(log.split())
    assert "to measure it on labelled images: rtk eval out/tiny.pt" in " ".join(log.split())
    assert all(len(line) <= 80 for line in log.splitlines())
    shown, _ = command_line("inspect", "out/tiny.pt")
    assert "file: mine.ckpt" in shown
    Image.fromarray(np.full((40, 30, 3), 90, np.uint8)).save(tmp_path / "a.png")
    words = ("classify", "a.png", "--model", "out/tiny.pt", "--backend", "torch", "--format", "csv")
    out, _ = command_line(*words)
    assert len(out.splitlines()) == 2


def test_the_weights_of_a_network_of_ones_own_are_imported(
    command_line: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_birds.py").write_text(
        """from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, width=2):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.model = nn.Linear(width, num_classes)

    def forward(self, x):
        return {"logits": self.model(self.backbone(x))}
"""
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    weights = {"backbone.0.weight": torch.ones(5, 1, 3, 3), "backbone.0.bias": torch.zeros(5)}
    weights |= {"model.weight": torch.arange(10.0).reshape(2, 5), "model.bias": torch.tensor([100.0, 0.0])}
    torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / "mine.pth")
    words = (
        "import",
        "mine.pth",
        "--arch",
        "imported_birds:Net",
        "--image-size",
        "16x12",
        "--preprocess",
        "unit",
        "--out",
        "o",
    )
    out, log = command_line(*words, "--classes", "emu,owl", "--net-arg", "width=5")
    assert (out, "prefix module. removed" in " ".join(log.split())) == ("o/mine.pt\n", True)
    loaded = load_checkpoint(tmp_path / "o" / "mine.pt")
    assert (loaded.card.arch, loaded.card.input.shape) == ("imported_birds:Net(width=5)", (16, 12, 1))
    pixels = torch.full((1, 16, 12, 1), 51, dtype=torch.uint8)  # every output of the convolution: 9 * 51 / 255 = 1.8
    with torch.inference_mode():
        logits_NK = loaded.model()(pixels)
    torch.testing.assert_close(logits_NK, torch.tensor([[100 + 1.8 * 10, 1.8 * 35]]))
    _, err = command_line(*words, "--classes", "emu,owl", "--net-arg", "width=3", "--force", code=1)
    assert "do not fit imported_birds:Net(width=3); wrong shape: backbone.0.weight is 5 x 1 x 3 x 3 instead of" in err


@pytest.mark.parametrize("size", [None, 16], ids=["any size", "one size"])
def test_a_graph_is_imported_exported_and_measured(
    command_line: Command, tmp_path: Path, class_folders: Path, size: int | None
) -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )
    axes = {"pixels": {0: "n"}} if size else {"pixels": {0: "n", 2: "h", 3: "w"}}
    example = torch.zeros(1, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (example,), str(tmp_path / "net.onnx"), input_names=["pixels"], dynamic_axes=axes, dynamo=False
        )
    needed = ("import", "net.onnx", "--classes", "bird,cat,dog", "--mean", "0.5", "--std", "0.25", "--out", "in")
    if size is None:
        assert "net.onnx: takes images of any size; add --image-size N" in command_line(*needed, code=2)[1]
    out, err = command_line(*needed, *(() if size else ("--image-size", "16")))
    assert out == "in/net.onnx\n"
    assert "net.onnx: logits of 3 classes, any batch, opset" in " ".join(err.split())
    out, _ = command_line("export", "in/net.onnx", "--precision", "fp16")
    assert out == "in/net.fp16.onnx\n"
    out, _ = command_line("classify", str(class_folders), "-m", "in/net.fp16.onnx", "--backend", "onnx")
    assert {line.split()[1] for line in out.splitlines()} <= {"bird", "cat", "dog"}
    out, _ = command_line(
        "bench", "in/net.onnx", "--no-parity", "--backend", "onnx", "--batch", "1", "--seconds", "0.2"
    )
    assert "parity" in out.lower()


@pytest.mark.slow
def test_an_imported_model_is_exported_evaluated_and_measured(
    command_line: Command, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    command_line(
        *("import", "mine.ckpt", "--arch", "resnet8v1", "--classes", "shapes", "--preprocess", "unit"),
        *("--image-size", "32", "--out", "out"),
    )
    out, _ = command_line("export", "out/mine.pt", "--require-parity", "1")
    assert out == "out/mine.onnx\n"
    out, _ = command_line("eval", "out/mine.onnx")
    assert "shapes, test split: 2,000 images" in out
    out, _ = command_line("bench", "out/mine.onnx", "--batch", "1", "--seconds", "1", "--no-baselines")
    assert "onnx" in out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt", ".pth.tar", ".PT"])
@pytest.mark.parametrize(
    "words", [("export",), ("inspect",), ("classify", "x.png", "--model"), ("eval",), ("bench",)], ids=" ".join
)
def test_commands_that_get_a_weight_file_say_how_to_go_on(
    command_line: Command, tmp_path: Path, words: tuple[str, ...], suffix: str
) -> None:
    name = torchvisions(tmp_path / f"tv{suffix}").name
    _, err = command_line(*words, name, code=1)
    assert err == (
        f"rtk: {name}: a weight file, not a checkpoint of rtk; to make one: rtk import {name} --arch resnet18 "
        "--classes FILE --preprocess imagenet --image-size 224 --out DIR\n"
    )


def test_a_weight_file_that_is_called_pt_says_the_same(command_line: Command, tmp_path: Path) -> None:
    torchvisions(tmp_path / "tv.pt", "resnet34")
    _, err = command_line("export", "tv.pt", code=1)
    assert err.endswith(
        "not a checkpoint of rtk (expected format rtk-checkpoint-1); to make one of these weights: rtk import tv.pt "
        "--arch resnet34 --classes FILE --preprocess imagenet --image-size 224 --out DIR\n"
    )
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "my own.pth")
    _, err = command_line("inspect", "my own.pth", code=1)
    assert "rtk import 'my own.pth' --arch ARCH --classes FILE" in err


def test_a_renamed_checkpoint_and_a_damaged_file_are_named(
    command_line: Command, checkpoint_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.pth").write_bytes(checkpoint_path.read_bytes())
    assert command_line("inspect", "x.pth", code=1)[1] == (
        "rtk: x.pth: a checkpoint of rtk under another suffix; rename it: x.pt\n"
    )
    (tmp_path / "x.pth").write_bytes(checkpoint_path.read_bytes()[:1000])
    assert command_line("inspect", "x.pth", code=1)[1] == (
        "rtk: x.pth: truncated, damaged, or not a checkpoint of rtk\n"
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "missing argument 'WEIGHTS'; see: "),
        (("mine.ckpt",), 2, "the classes are missing; add --classes FILE"),
        (
            ("gone.pth", "--classes", "a,b", "--image-size", "8", "--preprocess", "unit"),
            1,
            "gone.pth: no such file",
        ),
        (("mine.ckpt", "--net-arg", "width=4"), 2, "--net-arg width=4: needs --arch package.module:function"),
        (("mine.ckpt", "--mean", "half"), 2, "--mean half: expected one number, or three with commas between them"),
        (("mine.ckpt", "--output", "logits"), 2, "--output: mine.ckpt: is a weight file, not a graph; leave it out"),
        (("net.onnx", "--classes", "a,b", "--preprocess", "unit"), 1, "net.onnx: no such"),
        (("net.onnx", "--preprocess", "unit"), 2, "the classes are missing; add --classes FILE"),
        (("net.onnx", "--arch", "resnet18"), 2, "--arch: net.onnx: is a graph, which has its network in itself"),
        (("net.ONNX", "--no-ema"), 2, "--ema: net.ONNX: is a graph, which has its network in itself; leave it out"),
    ],
)
def test_wrong_usage_is_one_line(
    command_line: Command, weights: dict[str, Tensor], words: tuple[str, ...], code: int, message: str
) -> None:
    _, err = command_line("import", *words, code=code)
    assert err.count("\n") == 1
    assert message in err
