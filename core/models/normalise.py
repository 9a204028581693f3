"""Normalise: preprocessing as a module, from uint8 N x H x W x C pixels to the input of the network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..card import Input, Preprocessing

MIN_DEVIATION = 1e-6
"""Smallest divisor for a single image; an image without contrast is divided by it."""


class Normalise(nn.Module):
    """uint8 N x H x W x C to N x C x H x W, scaled, centred, divided by the deviation, whitened, resized.

    The result has the type of the buffers: fp32, or fp64 after `double()`.

    The cast is first: TensorRT's parser refuses all other operations on uint8. The permutation from NHWC to NCHW moves
    no byte: the result is an NCHW tensor in channels_last order, the layout in which convolutions are fastest. A grey
    image is broadcast against one mean for each channel that the network takes, which repeats it to these channels.
    """

    mean: Tensor
    deviation: Tensor
    whitening: Tensor
    """CHW x CHW; only with whitening."""

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
        x_NCHW = images_NHWC.to(self.mean.dtype).permute(0, 3, 1, 2) / 255
        if self.image_mean or self.image_deviation:
            centred_NCHW = x_NCHW - x_NCHW.mean(dim=(1, 2, 3), keepdim=True)
            if self.image_deviation:
                variance_N111 = (centred_NCHW * centred_NCHW).mean(dim=(1, 2, 3), keepdim=True)
                deviation_N111 = variance_N111.sqrt().clamp(min=MIN_DEVIATION)
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
        if torch.is_autocast_enabled(x_NCHW.device.type):  # in training, the product must not be rounded to bf16
            with torch.autocast(x_NCHW.device.type, enabled=False):
                return self._whitened(x_NCHW)
        return (x_NCHW.flatten(1) @ self.whitening).reshape(x_NCHW.shape)


def build_normalise(preprocessing: Preprocessing, size: Input) -> Normalise:
    """Build the module for images of that size; the caller fills the mean image and the whitening matrix."""
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
        scale=(resize_factor(size.height, to[0]), resize_factor(size.width, to[1])) if to else None,
    )


def network_size(preprocessing: Preprocessing, size: Input) -> tuple[int, int]:
    """Return the height and width of the images that the network gets: the model may resize them."""
    return preprocessing.resize or (size.height, size.width)


def resize_factor(side: int, to: int) -> float:
    """Return the factor from `side` to `to` pixels as float32, as graphs store it, rounded so that no pixel is lost."""
    scale = torch.tensor(to / side, dtype=torch.float32)
    if float(scale) * side < to:
        scale = torch.nextafter(scale, torch.tensor(torch.inf))
    return float(scale)
