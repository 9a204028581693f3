"""Augmentation that does not move pixels: brightness, channel shift, random erasing, cutout, mixup.

Shapes: B images in the batch, H rows, W columns, C channels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

ERASED_AREA = (0.02, 0.4)  # share of the image; with the aspect, the published defaults (arXiv 1708.04896)
ERASED_ASPECT = (0.3, 1 / 0.3)


def brightened(images_BHWC: Tensor, most: float, generator: Generator) -> Tensor:
    """Each image times its own random factor, float32, clipped to 0 and 255."""
    factor_B111 = 1 + _symmetric(images_BHWC, most, generator)
    return (images_BHWC * factor_B111).clamp(0, 255)


def channels_shifted(images_BHWC: Tensor, most: float, generator: Generator) -> Tensor:
    """Each image plus its own random number, float32, clipped to the image's smallest and largest value."""
    images_BHWC = images_BHWC.float()
    lowest, highest = images_BHWC.amin((1, 2, 3), keepdim=True), images_BHWC.amax((1, 2, 3), keepdim=True)
    shifted_BHWC = images_BHWC + _symmetric(images_BHWC, most, generator)
    return torch.minimum(torch.maximum(shifted_BHWC, lowest), highest)


def erased(images_BHWC: Tensor, probability: float, generator: Generator) -> Tensor:
    """Each image; with this probability, one rectangle of it is replaced by noise."""
    count, height, width, _ = images_BHWC.shape
    device = images_BHWC.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=device)

    area = uniform(*ERASED_AREA) * height * width
    aspect = uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])).exp()
    tall = (area * aspect).sqrt().round().clamp(1, height - 1)
    wide = (area / aspect).sqrt().round().clamp(1, width - 1)
    top = (uniform(0, 1) * (height - tall + 1)).floor()
    left = (uniform(0, 1) * (width - wide + 1)).floor()
    chosen = torch.rand(count, generator=generator, device=device) < probability
    box_BHW1 = _box(images_BHWC, top, top + tall, left, left + wide)
    noise = torch.randint(256, images_BHWC.shape, generator=generator, device=device, dtype=torch.uint8)
    return torch.where(chosen[:, None, None, None] & box_BHW1, noise.to(images_BHWC.dtype), images_BHWC)


def cut_out(images_BHWC: Tensor, side: int, colour_C: Tensor, generator: Generator) -> Tensor:
    """Each image with a square of this colour, clipped at the border."""
    count, height, width, _ = images_BHWC.shape

    def starts(size: int) -> Tensor:
        return torch.randint(size, (count,), generator=generator, device=images_BHWC.device) - side // 2

    top, left = starts(height), starts(width)
    box_BHW1 = _box(images_BHWC, top, top + side, left, left + side)
    return torch.where(box_BHW1, colour_C.to(images_BHWC.dtype), images_BHWC)


@dataclass(frozen=True)
class Mix:
    """The partners that a batch was mixed with."""

    labels_B: Tensor
    share: Tensor
    """The share of the partner in each image, at most a half."""


def mixed(images_BHWC: Tensor, labels_B: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Mix]:
    """Each image, float32, mixed with another of the batch; one share for all, drawn from Beta(alpha, alpha).

    The image itself keeps the larger share. This loses nothing: the distribution is symmetric in image and partner.
    """
    device = images_BHWC.device
    gamma_2 = torch._standard_gamma(torch.full((2,), alpha, device=device), generator=generator)
    share = (gamma_2 / gamma_2.sum()).min()
    other_B = torch.randperm(len(labels_B), generator=generator, device=device)
    images_BHWC = images_BHWC.float()
    return torch.lerp(images_BHWC, images_BHWC[other_B], share), Mix(labels_B[other_B], share)


def _symmetric(images_BHWC: Tensor, most: float, generator: Generator) -> Tensor:
    """A random number for each image, B x 1 x 1 x 1, uniform from -most to most."""
    drawn_B = torch.rand(len(images_BHWC), generator=generator, device=images_BHWC.device)
    return (most * (2 * drawn_B - 1))[:, None, None, None]


def _box(images_BHWC: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """A mask of each image's rectangle, B x H x W x 1; `bottom` and `right` are exclusive."""
    _, height, width, _ = images_BHWC.shape
    rows = torch.arange(height, device=images_BHWC.device)
    columns = torch.arange(width, device=images_BHWC.device)
    in_rows_BH = (rows >= top[:, None]) & (rows < bottom[:, None])
    in_columns_BW = (columns >= left[:, None]) & (columns < right[:, None])
    return (in_rows_BH[:, :, None] & in_columns_BW[:, None, :])[..., None]
