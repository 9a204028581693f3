"""ResNet-18 to ResNet-152: a 7 x 7 stem and pooling, then four stages of basic or bottleneck blocks.

Layers and names are the same as in torchvision, so its weight files load; the stride of a bottleneck is in its 3 x 3
convolution. `resnet18d2l` is the network of Dive into Deep Learning: its convolutions have biases, and its projection
has no batch norm.

`CONV_NORM`: see resnet_cifar. Shapes: N images, C channels, H rows, W columns, K classes.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Blocks

STEM_WIDTH = 64


class Projection(nn.Sequential):
    """The shortcut where the shape changes: a 1 x 1 convolution and batch norm."""

    CONV_NORM = (("0", "1"),)

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


def _shortcut(in_channels: int, channels: int, *, stride: int, d2l: bool) -> nn.Module:
    if in_channels == channels and stride == 1:
        return nn.Identity()
    if d2l:
        return nn.Conv2d(in_channels, channels, 1, stride)
    return Projection(in_channels, channels, stride=stride)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm after each, then the addition and the activation."""

    EXPANSION = 1
    CONV_NORM = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, in_channels: int, width: int, *, stride: int, d2l: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=d2l)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=d2l)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride=stride, d2l=d2l)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions with batch norm after each, then the addition and the activation."""

    EXPANSION = 4
    CONV_NORM = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, in_channels: int, width: int, *, stride: int, d2l: bool) -> None:
        super().__init__()
        channels = width * self.EXPANSION
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=d2l)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=d2l)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=d2l)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride=stride, d2l=d2l)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x))


STAGES: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
"""Type of block, and number of blocks in each stage (arXiv 1512.03385, table 1)."""


class ResNet(nn.Module):
    """Stem and pooling by 2 each, four stages of widths 64, 128, 256 and 512, global pooling, one dense layer."""

    CONV_NORM = (("conv1", "bn1"),)

    def __init__(self, depth: int, *, in_channels: int, classes: int, d2l: bool = False) -> None:
        super().__init__()
        self.INITIALISATION = "d2l" if d2l else "torchvision"
        block, counts = STAGES[depth]
        self.conv1 = nn.Conv2d(in_channels, STEM_WIDTH, 7, stride=2, padding=3, bias=d2l)
        self.bn1 = nn.BatchNorm2d(STEM_WIDTH)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = STEM_WIDTH
        for stage, count in enumerate(counts):
            blocks = Blocks()
            for index in range(count):
                width, stride = STEM_WIDTH << stage, 2 if stage > 0 and index == 0 else 1
                blocks.append(block(channels, width, stride=stride, d2l=d2l))
                channels = width * block.EXPANSION
            self.add_module(f"layer{stage + 1}", blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x_NCHW))))
        for stage in range(len(STAGES[18][1])):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        logits_NK: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits_NK
