"""StreamedImages: the images of a split that stays in place; batches are read and moved to the device one by one.

Which images a batch has depends on the indices alone, so a training is the same as with all images on the device.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.data.datasets import Split
from ...core.data.mapped_images import PageRelease


class StreamedImages:
    """Batches of a split's images on a device; the next batch is read while the current one is used."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self.split, self.device = split, device
        self.shape = (len(split), *split.image_shape)
        self._release = PageRelease(split.stored_NHWC)

    def batches(self, indices: Iterable[NDArray[np.int64]]) -> Iterator[Tensor]:
        """The images with these indices, one batch after another: B x H x W x C, uint8."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="images") as thread:
            coming = None
            for index_B in indices:
                following = thread.submit(self._read, index_B)
                if coming is not None:
                    yield coming.result().to(self.device, non_blocking=True)
                coming = following
            if coming is not None:
                yield coming.result().to(self.device, non_blocking=True)

    def _read(self, index_B: NDArray[np.int64]) -> Tensor:
        """The images with these indices in memory of the CPU, page-locked if they go to a GPU."""
        size = (len(index_B), *self.split.image_shape)
        images_BHWC = torch.empty(size, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        stored_NHWC = self.split.stored_NHWC
        stored_B = index_B if self.split.index_N is None else self.split.index_N[index_B]
        for image_HWC, position in zip(images_BHWC.numpy(), stored_B, strict=True):
            image_HWC[...] = stored_NHWC[position]
        self._release.count(len(index_B))
        return images_BHWC


def images_on(device: torch.device, split: Split) -> Tensor | StreamedImages:
    """The images of a split (N x H x W x C, uint8): all of them on the device, or streamed if they stay in place."""
    return StreamedImages(split, device) if split.stays_in_place else torch.from_numpy(split.images_NHWC).to(device)
