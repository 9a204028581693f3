"""A network that classifies ten classes well without training: random features and a dense layer fitted to them.

The classes are ten patterns of blots, 16 x 16 RGB, with noise and changes of brightness. The fit is a ridge regression
in closed form, so it takes seconds. The margins are those of a well-trained network; nearly all predictions are right.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from rtk.core.artifacts.checkpoint import Checkpoint
from rtk.core.card import Input, ModelCard, Preprocessing
from rtk.core.data.datasets import Dataset, Split
from rtk.core.models.model import build_model

SIDE = 16
CLASSES = tuple(f"pattern {k}" for k in range(10))
DEVIATION = (0.24703223, 0.24348513, 0.26158784)
TEST_IMAGES = 8_000
"""Enough for the margin of fp32, which needs 7,680 images."""


def patterns(count: int, *, seed: int, side: int = SIDE) -> Split:
    """Images of the ten patterns; larger images have the same patterns with a fine grain on top."""
    blots = np.random.default_rng(99).integers(40, 216, (10, 4, 4, 3)).astype(np.float32)
    random = np.random.default_rng(seed)
    labels_N = random.permutation(np.arange(count, dtype=np.int64) % 10)
    pixels = blots.repeat(side // 4, axis=1).repeat(side // 4, axis=2)[labels_N]
    pixels = pixels * random.uniform(0.7, 1.2, (count, 1, 1, 1)) + random.normal(0, 20, pixels.shape)
    if side > SIDE:
        grain = np.indices((side, side)).sum(axis=0) % 2 * 120 - 60
        pixels = pixels + grain[..., None]
    return Split(np.clip(pixels, 0, 255).astype(np.uint8), labels_N)


def patterns_dataset() -> Dataset:
    """A data set with 3,000 training and 8,000 test images."""
    return Dataset(
        "patterns",
        CLASSES,
        lambda split: patterns(3_000, seed=1) if split == "train" else patterns(TEST_IMAGES, seed=2),
    )


def fitted_checkpoint(card: ModelCard, randomise: object, *, arch: str = "resnet8v1", seed: int = 5) -> Checkpoint:
    """A checkpoint of that architecture that classifies the patterns."""
    assert callable(randomise)
    card = replace(
        card,
        name=f"{arch}-patterns",
        arch=arch,
        dataset="patterns",
        classes=CLASSES,
        input=Input(SIDE, SIDE, 3),
        preprocessing=Preprocessing((0.4914, 0.4822, 0.4465), DEVIATION),
    )
    model = build_model(card).eval()
    randomise(model.network, seed=seed)
    train = patterns(2_000, seed=3)
    features: list[torch.Tensor] = []
    hook = model.network.head.dense.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
    logits(model, train.images_NHWC)
    hook.remove()
    features_ND = torch.cat(features).double()
    centre_D = features_ND.mean(dim=0)
    centred_ND = features_ND - centre_D
    targets_NK = 10 * torch.eye(10, dtype=torch.float64)[torch.from_numpy(train.labels_N)]
    ridge = 0.1 * centred_ND.square().sum() / centred_ND.shape[1]
    gram_DD = centred_ND.T @ centred_ND + ridge * torch.eye(centred_ND.shape[1], dtype=torch.float64)
    weights_DK = torch.linalg.solve(gram_DD, centred_ND.T @ (targets_NK - targets_NK.mean(dim=0)))
    with torch.no_grad():
        model.network.head.dense.weight.copy_(weights_DK.T)
        model.network.head.dense.bias.copy_(targets_NK.mean(dim=0) - centre_D @ weights_DK)
    return Checkpoint(replace(card, checkpoint_sha256="0" * 64), model.state_dict(), None)


def logits(model: torch.nn.Module, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """PyTorch's logits, in batches of 500."""
    with torch.inference_mode():
        return np.concatenate([model(part).numpy() for part in torch.from_numpy(images_NHWC).split(500)])
