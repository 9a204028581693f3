"""Normalise: preprocessing as a module, from uint8 N x H x W x C pixels to what the network takes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..card import Input, Preprocessing

SMALLEST_DEVIATION = 1e-6
"""Of a single image: one without contrast is divided by this."""


class Normalise(nn.Module):
    """uint8 N x H x W x C to float32 N x C x H x W, scaled, centred, divided by the deviation, whitened, resized.

    The cast comes first: TensorRT's parser refuses any other operation on uint8. Stepping from NHWC to NCHW moves no
    byte: the result is an NCHW tensor in channels_last order, the layout that convolutions are fastest in. A grey image
    meets one mean for each channel that the network takes, and so is repeated to them.
    """

    mean: Tensor
    deviation: Tensor
    whitening: Tensor
    """CHW x CHW, where there is whitening."""

    def __init__(
        self,
        mean_CHW: Tensor,
        deviation_CHW: Tensor,
        *,
        image_mean: bool = False,
        image_deviation: bool = False,
        whitening: Tensor | None = None,
        scale: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean_CHW)
        self.register_buffer("deviation", deviation_CHW)
        self.image_mean, self.image_deviation, self.scale = image_mean, image_deviation, scale
        self.whitens = whitening is not None
        if whitening is not None:
            self.register_buffer("whitening", whitening)

    def forward(self, images_NHWC: Tensor) -> Tensor:
        x_NCHW = images_NHWC.to(torch.float32).permute(0, 3, 1, 2) / 255
        if self.image_mean or self.image_deviation:
            centred_NCHW = x_NCHW - x_NCHW.mean(dim=(1, 2, 3), keepdim=True)
            if self.image_deviation:
                variance_N111 = (centred_NCHW * centred_NCHW).mean(dim=(1, 2, 3), keepdim=True)
                deviation_N111 = variance_N111.sqrt().clamp(min=SMALLEST_DEVIATION)
                x_NCHW = (centred_NCHW if self.image_mean else x_NCHW) / deviation_N111
            else:
                x_NCHW = centred_NCHW
        x_NCHW = (x_NCHW - self.mean) / self.deviation
        if self.whitens:
            x_NCHW = self._whitened(x_NCHW)
        if self.scale is not None:
            x_NCHW = F.interpolate(x_NCHW, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return x_NCHW

    def _whitened(self, x_NCHW: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x_NCHW.device.type):  # training: the product must not be rounded to bf16
            with torch.autocast(x_NCHW.device.type, enabled=False):
                return self._whitened(x_NCHW)
        return (x_NCHW.flatten(1) @ self.whitening).reshape(x_NCHW.shape)


def build_normalise(preprocessing: Preprocessing, size: Input) -> Normalise:
    """What the card describes, for images of that size; the mean image and the whitening matrix are to be filled in."""
    mean_C11 = torch.tensor(preprocessing.mean, dtype=torch.float32)[:, None, None]
    deviation_C11 = torch.tensor(preprocessing.deviation, dtype=torch.float32)[:, None, None]
    if preprocessing.per_pixel:
        mean_C11 = mean_C11.expand(-1, size.height, size.width).clone()
    values = preprocessing.channels * size.height * size.width
    to = preprocessing.resize
    return Normalise(
        mean_C11,
        deviation_C11,
        image_mean=preprocessing.image_mean,
        image_deviation=preprocessing.image_deviation,
        whitening=torch.eye(values) if preprocessing.whitening else None,
        scale=(scale_of(size.height, to[0]), scale_of(size.width, to[1])) if to else None,
    )


def scale_of(side: int, to: int) -> float:
    """The factor that makes `to` pixels of `side`, rounded to float32, as graphs keep it, so that none gets lost."""
    scale = torch.tensor(to / side, dtype=torch.float32)
    if float(scale) * side < to:
        scale = torch.nextafter(scale, torch.tensor(torch.inf))
    return float(scale)
