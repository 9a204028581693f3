"""One image to classify, from any source."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Entry:
    """One image to classify, or a source that has no images and the reason."""

    name: str
    """The name as it is shown."""
    error: str = ""
    content: bytes | NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)
    """An image file's bytes, or pixels H x W or H x W x C; None if `name` is the path of a file."""

    @property
    def path(self) -> Path:
        """The path of the image, if it is a file."""
        return Path(self.name)
