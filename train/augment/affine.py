"""Shift, rotation, shear and zoom as one affine map an image, and one bilinear sampling of the whole batch.

A map takes a pixel of the view to the point of the image that it shows: rows first, columns second, both counted from
the centre. Shapes: B images in the batch, H rows, W columns, C channels.
"""

import torch
from torch import Generator, Tensor

from .options import Augmentation, Fill, pixels


def moved(images_BHWC: Tensor, augmentation: Augmentation, beyond_C: Tensor, generator: Generator) -> Tensor:
    """Every image under a random map of its own: float32, not rounded. `beyond_C`: the colour of a constant fill."""
    _, height, width, _ = images_BHWC.shape
    maps_B6 = random_maps(len(images_BHWC), height, width, augmentation, images_BHWC.device, generator)
    rr, rc, cr, cc, down, right = maps_B6[:, :, None, None].unbind(1)
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    row_H1 = torch.arange(height, device=images_BHWC.device)[:, None] - middle_row
    column_W = torch.arange(width, device=images_BHWC.device) - middle_column
    rows_BHW = rr * row_H1 + rc * column_W + (down + middle_row)
    columns_BHW = cr * row_H1 + cc * column_W + (right + middle_column)
    return sampled(images_BHWC, rows_BHW, columns_BHW, augmentation.fill, beyond_C)


def random_maps(
    count: int, height: int, width: int, augmentation: Augmentation, device: torch.device, generator: Generator
) -> Tensor:
    """Maps as B x 6: row from row, row from column, column from row, column from column, and the two offsets.

    Rotation after shift after shear after zoom, with the shear that leaves columns upright but leans them over: what
    Keras' ImageDataGenerator composes. Only what is asked for is drawn, in this order.
    """

    def drawn(most: float) -> Tensor:
        if most == 0:
            return torch.zeros(count, device=device)
        return most * (2 * torch.rand(count, generator=generator, device=device) - 1)

    angle = torch.deg2rad(drawn(augmentation.rotation))
    down, right = drawn(pixels(augmentation.shift, height)), drawn(pixels(augmentation.shift, width))
    leaning = angle + torch.deg2rad(drawn(augmentation.shear))
    tall, wide = 1 + drawn(augmentation.zoom), 1 + drawn(augmentation.zoom)
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack(
        [
            cosine * tall,
            -leaning.sin() * wide,
            sine * tall,
            leaning.cos() * wide,
            cosine * down - sine * right,
            sine * down + cosine * right,
        ],
        dim=1,
    )


def sampled(images_BHWC: Tensor, rows_BHW: Tensor, columns_BHW: Tensor, fill: Fill, beyond_C: Tensor) -> Tensor:
    """Each image at these points, float32, between the four pixels around each of them."""
    count, height, width, _ = images_BHWC.shape
    image_B11 = torch.arange(count, device=images_BHWC.device)[:, None, None]
    top_BHW, left_BHW = rows_BHW.floor(), columns_BHW.floor()
    below_BHW1, right_BHW1 = (rows_BHW - top_BHW)[..., None], (columns_BHW - left_BHW)[..., None]

    def pixels_at(row_BHW: Tensor, column_BHW: Tensor) -> Tensor:
        row, column = brought_inside(row_BHW, height, fill), brought_inside(column_BHW, width, fill)
        found = images_BHWC[image_B11, row, column].float()
        if fill != "constant":
            return found
        inside_BHW = (row == row_BHW) & (column == column_BHW)
        return torch.where(inside_BHW[..., None], found, beyond_C.float())

    top, left = top_BHW.long(), left_BHW.long()
    upper = torch.lerp(pixels_at(top, left), pixels_at(top, left + 1), right_BHW1)
    lower = torch.lerp(pixels_at(top + 1, left), pixels_at(top + 1, left + 1), right_BHW1)
    return torch.lerp(upper, lower, below_BHW1)


def brought_inside(index: Tensor, size: int, fill: Fill) -> Tensor:
    """The index of the row or column that stands for this one, which may lie beyond the border of an image."""
    match fill:
        case "constant" | "nearest":
            return index.clamp(0, size - 1)
        case "reflect":  # the border's own pixel comes twice: c b a | a b c
            folded = index.remainder(2 * size)
            return torch.minimum(folded, 2 * size - 1 - folded)
        case "wrap":
            return index.remainder(size)
