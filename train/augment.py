"""Augmentation as batched tensor operations on uint8 pixels: random crops, mirroring, random erasing, scaling down.

The whole split lies padded in memory, and a crop is one gather: mirroring only reverses the order of its columns.
Shapes: N images in the split, B in the batch, H rows, W columns, C channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .recipes import Flip

ERASED_AREA = (0.02, 0.4)  # share of the image; with the aspect, the published defaults (arXiv 1708.04896)
ERASED_ASPECT = (0.3, 1 / 0.3)


class Augmenter:
    """A resident split, and the random views that training takes of it."""

    def __init__(self, images_NHWC: Tensor, *, padding: int, flip: Flip, erasing: float, generator: Generator) -> None:
        """`images_NHWC`: uint8. The border of `padding` pixels has each channel's mean: zero once normalised."""
        count, self.height, self.width, channels = images_NHWC.shape
        self.padding, self.flip, self.erasing = padding, flip, erasing
        mean_C = images_NHWC.flatten(0, 2).float().mean(0).round().to(torch.uint8)
        self.padded_NHWC = mean_C.expand(count, self.height + 2 * padding, self.width + 2 * padding, channels).clone()
        self.padded_NHWC[:, padding : padding + self.height, padding : padding + self.width] = images_NHWC
        self.first_flip_N = torch.randint(2, (count,), generator=generator, device=images_NHWC.device)

    def views(self, index_B: Tensor, *, epoch: int, generator: Generator) -> Tensor:
        """A random view of each of these images: uint8, B x H x W x C."""
        device, count = index_B.device, len(index_B)

        def offsets() -> Tensor:
            return torch.randint(2 * self.padding + 1, (count, 1), generator=generator, device=device)

        rows_BH = offsets() + torch.arange(self.height, device=device)
        columns_W = torch.arange(self.width, device=device)
        mirrored_B1 = self._mirrored(index_B, epoch, generator)[:, None]
        columns_BW = offsets() + torch.where(mirrored_B1, columns_W.flip(0), columns_W)
        views_BHWC = self.padded_NHWC[index_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]
        return self._erased(views_BHWC, generator) if self.erasing else views_BHWC

    def _mirrored(self, index_B: Tensor, epoch: int, generator: Generator) -> Tensor:
        match self.flip:
            case "none":
                return torch.zeros_like(index_B, dtype=torch.bool)
            case "random":
                return torch.randint(2, (len(index_B),), generator=generator, device=index_B.device).bool()
            case "alternate":
                return ((self.first_flip_N[index_B] + epoch) % 2).bool()

    def _erased(self, views_BHWC: Tensor, generator: Generator) -> Tensor:
        """Each view, with the recipe's probability, with one rectangle of it replaced by noise."""
        count, height, width, _ = views_BHWC.shape
        device = views_BHWC.device

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, generator=generator, device=device)

        area = uniform(*ERASED_AREA) * height * width
        aspect = uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])).exp()
        tall = (area * aspect).sqrt().round().clamp(1, height - 1)
        wide = (area / aspect).sqrt().round().clamp(1, width - 1)
        top = (uniform(0, 1) * (height - tall + 1)).floor()
        left = (uniform(0, 1) * (width - wide + 1)).floor()
        chosen = torch.rand(count, generator=generator, device=device) < self.erasing
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
        in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
        erased_BHW1 = (chosen[:, None, None] & in_rows[:, :, None] & in_columns[:, None, :])[..., None]
        noise = torch.randint(256, views_BHWC.shape, generator=generator, device=device, dtype=torch.uint8)
        return torch.where(erased_BHW1, noise, views_BHWC)


def scaled(images_NHWC: Tensor, height: int, width: int) -> Tensor:
    """The images, uint8, scaled down to this size with an antialiasing filter; as they are where they have it."""
    if images_NHWC.shape[1:3] == (height, width):
        return images_NHWC
    images_NCHW = images_NHWC.permute(0, 3, 1, 2).float()
    smaller_NCHW = F.interpolate(images_NCHW, (height, width), mode="bilinear", antialias=True)
    return smaller_NCHW.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
