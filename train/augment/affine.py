"""Shift, rotation, shear and zoom as one affine map per image and one bilinear sampling of the whole batch.

A map turns the position of an output pixel into the position in the image that it shows: row first, then column, both
relative to the centre. Shapes: B images in the batch, H rows, W columns, C channels.
"""

import torch
from torch import Generator, Tensor

from .options import Augmentation, Fill, pixels


def transformed(images_BHWC: Tensor, augmentation: Augmentation, outside_C: Tensor, generator: Generator) -> Tensor:
    """Transform each image by its own random map; float32, not rounded. `outside_C`: the colour of a constant fill."""
    _, height, width, _ = images_BHWC.shape
    maps_B6 = random_maps(len(images_BHWC), height, width, augmentation, images_BHWC.device, generator)
    rr, rc, cr, cc, down, right = maps_B6[:, :, None, None].unbind(1)
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    row_H1 = torch.arange(height, device=images_BHWC.device)[:, None] - middle_row
    column_W = torch.arange(width, device=images_BHWC.device) - middle_column
    rows_BHW = rr * row_H1 + rc * column_W + (down + middle_row)
    columns_BHW = cr * row_H1 + cc * column_W + (right + middle_column)
    return bilinear_samples(images_BHWC, rows_BHW, columns_BHW, augmentation.fill, outside_C)


def random_maps(
    count: int, height: int, width: int, augmentation: Augmentation, device: torch.device, generator: Generator
) -> Tensor:
    """Maps as B x 6: row from row, row from column, column from row, column from column, and the two offsets.

    A map is the matrix product rotation x shift x shear x zoom, with the shear of Keras' ImageDataGenerator. Random
    numbers are drawn only for options that are not zero, in the order of the code.
    """

    def uniform(most: float) -> Tensor:
        if most == 0:
            return torch.zeros(count, device=device)
        return most * (2 * torch.rand(count, generator=generator, device=device) - 1)

    angle = torch.deg2rad(uniform(augmentation.rotation))
    down, right = uniform(pixels(augmentation.shift, height)), uniform(pixels(augmentation.shift, width))
    leaning = angle + torch.deg2rad(uniform(augmentation.shear))
    tall, wide = 1 + uniform(augmentation.zoom), 1 + uniform(augmentation.zoom)
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


def bilinear_samples(
    images_BHWC: Tensor, rows_BHW: Tensor, columns_BHW: Tensor, fill: Fill, outside_C: Tensor
) -> Tensor:
    """Sample each image at these positions, float32, by bilinear interpolation of the four nearest pixels."""
    count, height, width, _ = images_BHWC.shape
    image_B11 = torch.arange(count, device=images_BHWC.device)[:, None, None]
    top_BHW, left_BHW = rows_BHW.floor(), columns_BHW.floor()
    below_BHW1, right_BHW1 = (rows_BHW - top_BHW)[..., None], (columns_BHW - left_BHW)[..., None]

    def pixels_at(row_BHW: Tensor, column_BHW: Tensor) -> Tensor:
        row, column = inside_index(row_BHW, height, fill), inside_index(column_BHW, width, fill)
        found = images_BHWC[image_B11, row, column].float()
        if fill != "constant":
            return found
        inside_BHW = (row == row_BHW) & (column == column_BHW)
        return torch.where(inside_BHW[..., None], found, outside_C.float())

    top, left = top_BHW.long(), left_BHW.long()
    upper = torch.lerp(pixels_at(top, left), pixels_at(top, left + 1), right_BHW1)
    lower = torch.lerp(pixels_at(top + 1, left), pixels_at(top + 1, left + 1), right_BHW1)
    return torch.lerp(upper, lower, below_BHW1)


def inside_index(index: Tensor, size: int, fill: Fill) -> Tensor:
    """The index of the row or column inside the image that replaces this one, which may be outside."""
    match fill:
        case "constant" | "nearest":
            return index.clamp(0, size - 1)
        case "reflect":  # the border pixel appears twice: c b a | a b c
            folded = index.remainder(2 * size)
            return torch.minimum(folded, 2 * size - 1 - folded)
        case "wrap":
            return index.remainder(size)
