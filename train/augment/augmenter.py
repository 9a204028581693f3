"""Augmentation as batched tensor operations: crops and flips here, the rest in affine.py and pixelwise.py.

The whole split is kept padded in memory, and a crop is one gather; a flip reverses the order of its columns. Of
streamed images only the batch is padded. Pixels stay uint8 as long as no operation needs values between integers. All
random numbers come from the generator argument.
Shapes: N images in the split, B in the batch, H rows, W columns, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..data.streamed_images import StreamedImages
from .affine import inside_index, transformed
from .options import Augmentation, whole_pixels
from .pixelwise import brightened, channels_shifted, cut_out, erased

SUMMED_AT_ONCE = 4_096
"""Images whose pixels are summed at once."""


class Augmenter:
    """Makes random views of the images of a split that is kept on the device, or of streamed images."""

    def __init__(
        self, images_NHWC: Tensor | StreamedImages, augmentation: Augmentation, *, generator: Generator
    ) -> None:
        """`images_NHWC`: uint8. A constant fill uses the channel means, which are about zero after normalisation."""
        count, self.height, self.width, _ = images_NHWC.shape
        self.augmentation = augmentation
        self.padding = whole_pixels(augmentation.crop, self.height)
        self.mean_C = channel_means(images_NHWC)
        self.padded_NHWC = self._padded(images_NHWC) if isinstance(images_NHWC, Tensor) else None
        """The whole split; None for streamed images."""
        self.first_flip_N = torch.randint(2, (count,), generator=generator, device=images_NHWC.device)

    def views(
        self, index_B: Tensor, *, epoch: int | Tensor, generator: Generator, streamed_BHWC: Tensor | None = None
    ) -> Tensor:
        """A random view of each of these images, B x H x W x C: uint8, or float32 from 0 to 255, not rounded.

        `streamed_BHWC`: the images themselves, if they are streamed.
        """
        options = self.augmentation
        views_BHWC = self._crops(index_B, epoch, generator, streamed_BHWC)
        if options.affine:
            views_BHWC = transformed(views_BHWC, options, self.mean_C, generator)
        if options.channel_shift:
            views_BHWC = channels_shifted(views_BHWC, options.channel_shift, generator)
        if options.brightness:
            views_BHWC = brightened(views_BHWC, options.brightness, generator)
        if options.erasing:
            views_BHWC = erased(views_BHWC, options.erasing, generator)
        if options.cutout:
            views_BHWC = cut_out(views_BHWC, whole_pixels(options.cutout, self.height), self.mean_C, generator)
        return views_BHWC

    def _crops(
        self, index_B: Tensor, epoch: int | Tensor, generator: Generator, streamed_BHWC: Tensor | None
    ) -> Tensor:
        device, count = index_B.device, len(index_B)

        def offsets() -> Tensor:
            return torch.randint(2 * self.padding + 1, (count, 1), generator=generator, device=device)

        rows_BH = offsets() + torch.arange(self.height, device=device)
        columns_W = torch.arange(self.width, device=device)
        flipped_B1 = self._flipped(index_B, epoch, generator)[:, None]
        columns_BW = offsets() + torch.where(flipped_B1, columns_W.flip(0), columns_W)
        if streamed_BHWC is not None:
            padded_NHWC, index_B = self._padded(streamed_BHWC), torch.arange(count, device=device)
        else:
            assert self.padded_NHWC is not None
            padded_NHWC = self.padded_NHWC
        return padded_NHWC[index_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]

    def _flipped(self, index_B: Tensor, epoch: int | Tensor, generator: Generator) -> Tensor:
        match self.augmentation.flip:
            case "none":
                return torch.zeros_like(index_B, dtype=torch.bool)
            case "random":
                return torch.randint(2, (len(index_B),), generator=generator, device=index_B.device).bool()
            case "alternate":
                return ((self.first_flip_N[index_B] + epoch) % 2).bool()

    def _padded(self, images_NHWC: Tensor) -> Tensor:
        if not self.padding:
            return images_NHWC
        device, fill = images_NHWC.device, self.augmentation.fill
        rows = torch.arange(-self.padding, self.height + self.padding, device=device)
        columns = torch.arange(-self.padding, self.width + self.padding, device=device)
        inner_rows = inside_index(rows, self.height, fill)
        inner_columns = inside_index(columns, self.width, fill)
        padded_NHWC = images_NHWC[:, inner_rows[:, None], inner_columns]
        if fill == "constant":
            outside_HW = (rows[:, None] != inner_rows[:, None]) | (columns != inner_columns)
            padded_NHWC = torch.where(outside_HW[..., None], self.mean_C, padded_NHWC)
        return padded_NHWC


def channel_means(images_NHWC: Tensor | StreamedImages) -> Tensor:
    """The mean of each channel as a pixel value, from exact sums, so that it is the same however images are kept."""
    if isinstance(images_NHWC, Tensor):
        sums_C = sum(part.sum((0, 1, 2), dtype=torch.int64) for part in images_NHWC.split(SUMMED_AT_ONCE))
        assert isinstance(sums_C, Tensor)
        means_C = sums_C.double() / images_NHWC[..., 0].numel()
    else:
        counts_CV = torch.from_numpy(images_NHWC.split.counts_CV)
        means_C = (counts_CV * torch.arange(256)).sum(1).double() / counts_CV[0].sum()
    return means_C.round().to(torch.uint8).to(images_NHWC.device)


def scaled(images_NHWC: Tensor, height: int, width: int) -> Tensor:
    """The images scaled to this size with an antialiasing filter, in their own type; unchanged if they have it."""
    if images_NHWC.shape[1:3] == (height, width):
        return images_NHWC
    images_NCHW = images_NHWC.permute(0, 3, 1, 2).float()
    smaller_NCHW = F.interpolate(images_NCHW, (height, width), mode="bilinear", antialias=True)
    if images_NHWC.dtype == torch.uint8:
        smaller_NCHW = smaller_NCHW.round().clamp(0, 255).to(torch.uint8)
    return smaller_NCHW.permute(0, 2, 3, 1)
