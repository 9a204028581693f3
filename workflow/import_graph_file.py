"""`rtk import net.onnx`: the options of the command as what an import of a graph needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ..core.card import Input
from ..core.data.options import Fit
from ..core.errors import UnknownNameError, UsageError
from ..train.config import image_size_of
from .class_list import read_classes
from .import_graph import Imported, import_graph
from .known_preprocessing import check_choice, known_preprocessing


@dataclass(frozen=True)
class GraphImport:
    """A graph of another program, and what is not in its file: the classes, and the pixels that it takes."""

    graph: Path
    classes: str | None = None
    """A file, a data set with a name, or names with commas between them; see class_list."""
    image_size: str | None = None
    """N or HxW; None: the size that the graph fixes."""
    preprocess: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    rgb: bool = False
    """Whether the images are grey, and the model repeats them to three channels."""
    fit: Fit = "crop"
    output: str | None = None
    """The output with the logits, if several could have them."""
    name: str | None = None
    out: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.classes is None:
            raise UsageError("the classes are missing; add --classes FILE, with one name in each line")
        image_size_of(self.image_size)
        check_choice(self.preprocess, self.mean, self.std)
        if self.fit not in get_args(Fit):
            raise UnknownNameError("--fit", self.fit, get_args(Fit))


def import_graph_file(config: GraphImport) -> Imported:
    """Write the graph of another program as one of rtk's. Raises the errors of `import_graph` and DataError."""
    from ..export.foreign_graph import read_foreign_graph

    assert config.classes is not None
    classes = read_classes(config.classes)
    height, width, channels = read_foreign_graph(config.graph).image_shape
    size = image_size_of(config.image_size) or (height, width)
    if size[0] is None or size[1] is None:
        raise UsageError(f"{config.graph}: takes images of any size; add --image-size N, such as 224")
    channels = channels or 3
    if config.rgb and channels != 3:
        raise UsageError(f"{config.graph}: takes grey images; leave out --rgb")
    preprocessing = known_preprocessing(config.preprocess, channels=channels, mean=config.mean, std=config.std)
    return import_graph(
        config.graph,
        classes=classes.names,
        preprocessing=preprocessing,
        size=Input(size[0], size[1], 1 if config.rgb else channels),
        fit=config.fit,
        name=config.name,
        out=config.out,
        output=config.output,
        dataset=classes.dataset,
        force=config.force,
    )
