"""`shapes`: synthetic images of ten kinds of shapes, 32 x 32 RGB; a data set without a download.

The images are made from a seed in a second. Position, size, rotation, colours, background and noise vary, and half of
the images have a distracting line, so neither a pixel nor a colour shows the class. Every outline is a radius as a
function of the angle, so one comparison draws an image.
"""

import numpy as np
from numpy.typing import NDArray

SHAPES_CLASSES = (
    "circle", "crescent", "cross", "ellipse", "heart", "pentagon", "ring", "square", "star", "triangle",
)  # fmt: skip
SIDE = 32
CHUNK = 2_000  # images drawn at once; limits the memory

Floats = NDArray[np.float32]


def draw_shapes(count: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw `count` images, N x 32 x 32 x 3, and their labels; the class counts differ by one at most.

    The same seed and count give the same pixels on every machine with the same NumPy.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    labels_N = random.permutation(np.arange(count, dtype=np.int64) % len(SHAPES_CLASSES))
    chunks = [_draw(labels_N[start : start + CHUNK], random) for start in range(0, count, CHUNK)]
    return np.concatenate(chunks), labels_N


def _draw(labels_N: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.uint8]:
    count = len(labels_N)

    def vary(low: float, high: float, *shape: int) -> Floats:
        return random.uniform(low, high, (count, *(shape or (1, 1)))).astype(np.float32)

    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    size = vary(5.5, 11.0)
    y = rows - vary(12, 20)
    x = columns - vary(12, 20)
    turn = vary(-0.5, 0.5)  # radians; too little to turn a square into a diamond
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    radius = np.hypot(x, y)
    angle = np.arctan2(y, x)

    inside = np.empty((count, SIDE, SIDE), np.float32)
    for label, name in enumerate(SHAPES_CLASSES):
        chosen = labels_N == label
        distance = _distance(name, radius[chosen], angle[chosen], x[chosen], y[chosen], size[chosen])
        inside[chosen] = np.clip(0.5 - distance, 0, 1)  # one pixel of antialiasing

    background = vary(40, 215, 1, 1, 3)
    slope = vary(-2.5, 2.5, 2, 3)
    centred = (np.stack([rows, columns], axis=-1) - SIDE / 2).reshape(-1, 2)
    picture = background + (centred @ slope).reshape(count, SIDE, SIDE, 3)
    contrast = vary(35, 110, 1, 1, 3) * np.where(vary(-1, 1, 1, 1, 3) < 0, -1, 1)
    line = np.abs((columns - vary(0, SIDE)) * np.cos(vary(0, np.pi)) + (rows - vary(0, SIDE)) * np.sin(vary(0, np.pi)))
    drawn = np.clip(1.2 - line, 0, 1) * (vary(0, 1) < 0.5)
    picture += drawn[..., None] * vary(-90, 90, 1, 1, 3)
    picture += inside[..., None] * contrast
    picture += random.normal(0, 1, picture.shape).astype(np.float32) * vary(2, 22, 1, 1, 1)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _distance(name: str, radius: Floats, angle: Floats, x: Floats, y: Floats, size: Floats) -> Floats:
    """Return the approximate distance of each pixel from the outline, in pixels; it is negative inside."""
    match name:
        case "circle":
            return radius - size * 0.9
        case "ring":
            return np.abs(radius - size * 0.75) - size * 0.2
        case "ellipse":
            return (np.hypot(x / 1.15, y / 0.6) - size) * 0.7
        case "crescent":
            return np.maximum(radius - size, size * 0.85 - np.hypot(x - size * 0.5, y))
        case "cross":
            arm = size * 0.3
            upright = np.maximum(np.abs(x) - arm, np.abs(y) - size)
            return np.minimum(upright, np.maximum(np.abs(x) - size, np.abs(y) - arm))
        case "heart":
            side, up = x / size * 1.15, 0.2 - y / size * 1.15
            return np.multiply((side**2 + up**2 - 0.75) ** 3 - side**2 * up**3 * 1.6, size, dtype=np.float32)
        case "square":
            return radius - size * _polygon(angle + np.pi / 4, 4)
        case "triangle":
            return radius - size * 1.15 * _polygon(angle + np.pi / 2, 3)
        case "pentagon":
            return radius - size * _polygon(angle + np.pi / 2, 5)
        case "star":
            fold = np.abs((angle + np.pi / 2) % (2 * np.pi / 5) - np.pi / 5) / (np.pi / 5)
            return radius - size * (0.42 + 0.68 * fold**1.5)
    raise AssertionError(name)


def _polygon(angle: Floats, corners: int) -> Floats:
    """Return the radius of a regular polygon with a corner at angle zero; its corners have radius 1."""
    sector = 2 * np.pi / corners
    return np.cos(sector / 2) / np.cos(angle % sector - sector / 2)
