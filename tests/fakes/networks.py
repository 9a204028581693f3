"""Networks as users write them, with layers and outputs that rtk's own networks lack; nothing here knows rtk."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Weighs channels by what the whole image shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.up(F.silu(self.down(weights))))


class Inverted(nn.Module):
    """An inverted residual of an EfficientNet: expansion, depthwise convolution, squeeze and excitation, projection."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        wide = 2 * inside
        self.body = nn.Sequential(
            nn.Conv2d(inside, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.SiLU(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.SiLU(),
            SqueezeExcite(wide),
            nn.Conv2d(wide, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.adds = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x)
        return x + result if self.adds else result


class Mobile(nn.Module):
    """Depthwise convolutions, SiLU, squeeze and excitation, dropout; returns a dict."""

    def __init__(self, num_classes: int, in_chans: int = 3, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU(inplace=True)
        )
        self.blocks = nn.Sequential(
            Inverted(width, width, 1), Inverted(width, 2 * width, 2), Inverted(2 * width, 2 * width, 1)
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pooled = self.blocks(self.stem(x)).mean(dim=(2, 3))
        return {"logits": self.classifier(self.dropout(pooled)), "features": pooled}


def mobile(num_classes: int, in_chans: int = 3, **options: float) -> Mobile:
    """Build a Mobile."""
    return Mobile(num_classes, in_chans, **options)  # type: ignore[arg-type]


@dataclass
class Output:
    """What transformers' models return, in short."""

    logits: Tensor
    hidden: Tensor


class Attentive(nn.Module):
    """Patches, position embeddings, attention, layer norm, GELU, a class token; returns an object with `.logits`."""

    def __init__(self, classes: int, channels: int, image_size: int, width: int = 32, patch: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (image_size // patch) ** 2 + 1, width))
        self.norm1, self.norm2, self.norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, classes)
        self.heads = 4

    def forward(self, x: Tensor) -> Output:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], dim=1) + self.positions
        tokens = tokens + self.attended(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        hidden = self.norm(tokens)[:, 0]
        return Output(self.head(hidden), hidden)

    def attended(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        q, k, v = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weighted = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, count, width)
        result: Tensor = self.project(weighted)
        return result


class Flat(nn.Module):
    """As in a first tutorial: convolutions, adaptive pooling to 4 x 4, and `view`, which needs contiguous planes."""

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 5, padding=2), nn.Conv2d(16, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(24)
        self.fc1, self.fc2 = nn.Linear(24 * 4 * 4, 64), nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.adaptive_avg_pool2d(F.leaky_relu(self.norm(self.conv2(x)), 0.1), 4)
        logits: Tensor = self.fc2(F.hardswish(self.fc1(x.view(-1, 24 * 4 * 4))))
        return logits
