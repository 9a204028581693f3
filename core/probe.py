"""Generated images for comparing an export with its reference."""

import numpy as np
from numpy.typing import NDArray

from .card import Input


def probe_images(count: int, size: Input, *, seed: int = 0) -> NDArray[np.uint8]:
    """Generate `count` images, N x H x W x C: blocks, noise and flat colours alternate, so every pixel value occurs."""
    random = np.random.default_rng(seed)
    height, width, channels = size.shape
    noise = random.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    coarse = random.integers(0, 256, (count, -(-height // 8), -(-width // 8), channels), dtype=np.uint8)
    blocks = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    flat = np.broadcast_to(random.integers(0, 256, (count, 1, 1, channels), dtype=np.uint8), noise.shape)
    kind = np.arange(count)[:, None, None, None] % 3
    return np.ascontiguousarray(np.where(kind == 0, blocks, np.where(kind == 1, noise, flat)))
