"""ResNet v1 and v2 for small images, as in the Keras CIFAR-10 example, and v1 without shortcuts.

Both match its definitions weight for weight: convolutions with bias, a 1 x 1 projection without batch norm where the
shape changes, batch norm with epsilon 1e-3, and TensorFlow's "same" padding, which adds the extra row and column of a
strided convolution at the bottom and on the right. The pooling is global, so any image size works.

`CONV_NORM` in each block lists pairs of a convolution and the batch norm that alone reads its output; each pair can be
folded into one convolution for inference.

Shapes: N images, C channels, H rows, W columns, K classes.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Blocks

BATCH_NORM_EPSILON = 1e-3  # Keras' default; torch's is 1e-5
BATCH_NORM_MOMENTUM = 0.01  # 0.99 in Keras' notation
STEM_WIDTH = 16
STAGES = 3


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the constants of Keras."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: ceil(H / stride) output rows, an extra padding row at the end."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1) -> None:
        symmetric = kernel // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel, stride=stride, padding=symmetric)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if self.stride[0] == 2 and self.kernel_size[0] == 3:
            top, left = x_NCHW.shape[2] % 2, x_NCHW.shape[3] % 2
            x_NCHW = F.pad(x_NCHW, (left, 1, top, 1))
        return super().forward(x_NCHW)


class Stem(nn.Sequential):
    """The first convolution, batch norm and activation."""

    CONV_NORM = (("0", "1"),)

    def __init__(self, in_channels: int) -> None:
        super().__init__(SameConv2d(in_channels, STEM_WIDTH), batch_norm(STEM_WIDTH), nn.ReLU())


class BasicBlock(nn.Module):
    """v1: two 3 x 3 convolutions with batch norm after each, then the addition, if any, and the activation."""

    CONV_NORM = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, in_channels: int, channels: int, *, stride: int, shortcut: bool = True) -> None:
        super().__init__()
        self.conv1 = SameConv2d(in_channels, channels, stride=stride)
        self.bn1 = batch_norm(channels)
        self.conv2 = SameConv2d(channels, channels)
        self.bn2 = batch_norm(channels)
        self.projection: nn.Module | None = None
        if shortcut:
            same = in_channels == channels and stride == 1
            self.projection = nn.Identity() if same else SameConv2d(in_channels, channels, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y if self.projection is None else y + self.projection(x))


class Head(nn.Module):
    """Global average pooling, then one dense layer: N x C x H x W to N x K logits."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.dense(x.mean(dim=(2, 3)))
        return logits


class ResNetV1(nn.Module):
    """resnet{6n+2}v1: a stem, three stages of n basic blocks of 16, 32 and 64 channels, and the head.

    plain{6n+2} is the same network without the `shortcut`s.
    """

    INITIALISATION = "keras"

    def __init__(self, depth: int, *, in_channels: int, classes: int, shortcut: bool = True) -> None:
        super().__init__()
        blocks_per_stage = (depth - 2) // 6
        self.stem = Stem(in_channels)
        blocks: list[nn.Module] = []
        channels_in = STEM_WIDTH
        for stage in range(STAGES):
            channels = STEM_WIDTH << stage
            for block in range(blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(channels_in, channels, stride=stride, shortcut=shortcut))
                channels_in = channels
        self.blocks = Blocks(*blocks)
        self.head = Head(channels_in, classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.head(self.blocks(self.stem(x_NCHW)))
        return logits_NK


class PreActivationBottleneck(nn.Module):
    """v2: 1 x 1, 3 x 3, 1 x 1 convolutions with batch norm and activation *before* each; nothing after the addition.

    The stem already normalises and activates the input of the first block (`after_stem`). Only the first block of a
    stage has a projection, which reads the block's input before batch norm.
    """

    CONV_NORM = (("conv1", "bn2"), ("conv2", "bn3"))

    def __init__(
        self, in_channels: int, width: int, channels: int, *, stride: int, first: bool, after_stem: bool
    ) -> None:
        super().__init__()
        self.bn1 = nn.Identity() if after_stem else batch_norm(in_channels)
        self.relu1 = nn.Identity() if after_stem else nn.ReLU()
        self.conv1 = SameConv2d(in_channels, width, kernel=1, stride=stride)
        self.bn2 = batch_norm(width)
        self.conv2 = SameConv2d(width, width)
        self.bn3 = batch_norm(width)
        self.conv3 = SameConv2d(width, channels, kernel=1)
        self.projection = SameConv2d(in_channels, channels, kernel=1, stride=stride) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.relu1(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y)))
        y = self.conv3(F.relu(self.bn3(y)))
        total: Tensor = y + self.projection(x)
        return total


class ResNetV2(nn.Module):
    """resnet{9n+2}v2: a stem, three stages of n bottlenecks of 64, 128 and 256 channels, batch norm, and the head."""

    INITIALISATION = "keras"

    def __init__(self, depth: int, *, in_channels: int, classes: int) -> None:
        super().__init__()
        blocks_per_stage = (depth - 2) // 9
        self.stem = Stem(in_channels)
        blocks: list[nn.Module] = []
        channels_in = STEM_WIDTH
        for stage in range(STAGES):
            width = channels_in  # width of the bottleneck: 16, 64, 128
            channels_out = width * 4 if stage == 0 else width * 2
            for block in range(blocks_per_stage):
                blocks.append(
                    PreActivationBottleneck(
                        channels_in,
                        width,
                        channels_out,
                        stride=2 if stage > 0 and block == 0 else 1,
                        first=block == 0,
                        after_stem=stage == 0 and block == 0,
                    )
                )
                channels_in = channels_out
        self.blocks = Blocks(*blocks)
        self.bn = batch_norm(channels_in)
        self.head = Head(channels_in, classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.head(F.relu(self.bn(self.blocks(self.stem(x_NCHW)))))
        return logits_NK
