"""What `rtk import` needs to know about any file, whether it holds the weights of a network or a graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ..core.data.options import Fit
from ..core.errors import UnknownNameError, UsageError
from ..core.file_names import check_name
from ..train.config import image_size_of
from .known_preprocessing import check_choice


@dataclass(frozen=True)
class ImportRequest:
    """A file of another program, and what is not in it: the classes, and the pixels that the model takes.

    Raises UsageError and UnknownNameError.
    """

    path: Path
    classes: str | None = None
    """A file, a data set with a name, or names with commas between them; see class_list."""
    image_size: str | None = None
    """N or HxW."""
    preprocess: str | None = None
    """One of KNOWN; or None, with `mean` and `std`."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    rgb: bool = False
    """Whether the images are grey, and the model repeats them to three channels."""
    fit: Fit = "crop"
    name: str | None = None
    """Name of the model and of its files; None: that of the file."""
    out: Path | None = None
    """Folder; None: that of the file."""
    force: bool = False
    """Whether a file of that name is replaced."""

    def __post_init__(self) -> None:
        if self.classes is None:
            raise UsageError("the classes are missing; add --classes FILE, with one name in each line")
        image_size_of(self.image_size)
        check_choice(self.preprocess, self.mean, self.std)
        if self.fit not in get_args(Fit):
            raise UnknownNameError("--fit", self.fit, get_args(Fit))
        if self.name is not None:
            check_name(self.name)
