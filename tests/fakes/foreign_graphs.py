"""ONNX graphs as other programs write them: plain torch.onnx.export of networks that know nothing of rtk.

Both networks classify the patterns of parity_network.py: random features, and a dense layer fitted to them.

Shapes: N images, C channels, H rows, W columns, K classes, T tokens, F features.
"""

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from fakes.parity_network import CLASSES, SIDE, patterns
from numpy.typing import NDArray
from rtk.core.card import Input, Preprocessing
from torch import Tensor, nn

SIZE = Input(SIDE, SIDE, 3)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSING = Preprocessing(MEAN, DEVIATION)


def by_hand(images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Preprocess as every tutorial does, in NumPy alone: N x C x H x W."""
    scaled = (images_NHWC.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)
    return np.ascontiguousarray(scaled.astype(np.float32).transpose(0, 3, 1, 2))


class ConvNet(nn.Module):
    """Convolutions with batch norm, one of them in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1, groups=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
        )  # fmt: skip
        self.head = nn.Linear(512, 10)

    def embed(self, x_NCHW: Tensor) -> Tensor:
        return self.features(x_NCHW).view(x_NCHW.shape[0], -1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(self.embed(x_NCHW))


class Attention(nn.Module):
    """A small transformer with a class token, positions, layer norm and attention, written out in plain operators."""

    WIDTH, HEADS = 48, 3

    def __init__(self) -> None:
        super().__init__()
        width = self.WIDTH
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(0.5 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.2 * torch.randn(1, 17, width))
        self.norm, self.last_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.head = nn.Linear(17 * width, 10)

    def embed(self, x_NCHW: Tensor) -> Tensor:
        count, width, heads = x_NCHW.shape[0], self.WIDTH, self.HEADS
        tokens = self.patches(x_NCHW).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(count, -1, -1), tokens], 1) + self.positions
        qkv = self.qkv(self.norm(tokens)).reshape(count, 17, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        share = ((qkv[0] @ qkv[1].transpose(-2, -1)) * (width // heads) ** -0.5).softmax(-1)
        tokens = tokens + self.out((share @ qkv[2]).transpose(1, 2).reshape(count, 17, width))
        return self.last_norm(tokens).flatten(1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(self.embed(x_NCHW))


NETWORKS = {"conv": ConvNet, "attention": Attention}


class Ending(nn.Module):
    """A network, and what comes after its logits."""

    def __init__(self, network: nn.Module, end: nn.Module) -> None:
        super().__init__()
        self.network, self.end = network, end

    def forward(self, x_NCHW: Tensor) -> Any:
        return self.end(self.network(x_NCHW))


def fitted(kind: str) -> nn.Module:
    """The network with its head fitted to the patterns by ridge regression."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = NETWORKS[kind]().eval()
    train = patterns(1_500, seed=3)
    with torch.no_grad():
        features = network.embed(torch.from_numpy(by_hand(train.images_NHWC))).double()
        centre = features.mean(0)
        centred = features - centre
        targets = 10 * torch.eye(10, dtype=torch.float64)[torch.from_numpy(train.labels_N)]
        ridge = 0.1 * centred.square().sum() / centred.shape[1]
        gram = centred.T @ centred + ridge * torch.eye(centred.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(gram, centred.T @ (targets - targets.mean(0)))
        network.head.weight.copy_(weights.T)
        network.head.bias.copy_(targets.mean(0) - centre @ weights)
    return network


def export(
    network: nn.Module,
    path: Path,
    *,
    opset: int = 17,
    batch: int | None = 1,
    dynamo: bool = False,
    half: bool = False,
    channels_last: bool = False,
    names: Sequence[str] = ("pixel_values", "scores"),
    **options: Any,
) -> Path:
    """Write the network with torch.onnx.export; `batch` None: any."""
    example = torch.zeros(batch or 2, 3, SIDE, SIDE)
    if channels_last:
        example = example.permute(0, 2, 3, 1)
    if half:
        network, example = network.half(), example.half()
    if batch is None:
        any_batch = (
            {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamo else {"dynamic_axes": {names[0]: {0: "n"}}}
        )
        options = any_batch | options
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (example,), str(path), opset_version=opset, dynamo=dynamo, input_names=[names[0]],
            output_names=list(names[1:]), verbose=False, **options,
        )  # fmt: skip
    return path


def answers_of(path: Path, images_NHWC: NDArray[np.uint8], *, batch: int = 1) -> NDArray[np.float32]:
    """What the original graph answers in ONNX Runtime, in batches of the size that it takes."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pixels, name = by_hand(images_NHWC), session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: pixels[k : k + batch]})[0] for k in range(0, len(pixels), batch)])


__all__ = ["CLASSES", "PREPROCESSING", "SIZE", "Ending", "answers_of", "by_hand", "export", "fitted"]
