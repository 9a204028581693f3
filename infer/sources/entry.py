"""One image to be answered, wherever it comes from."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Entry:
    """One image to be answered, or a source that holds none and why."""

    name: str
    """As it is shown."""
    error: str = ""
    content: bytes | NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)
    """An image file's bytes, or pixels H x W or H x W x C; None where `name` is the path of a file."""

    @property
    def path(self) -> Path:
        """Where the image lies, if it is a file."""
        return Path(self.name)
