"""`rtk import net.onnx`: the options of the command as what an import of a graph needs."""

from dataclasses import dataclass

from ..core.card import Input
from ..core.errors import UsageError
from ..train.config import image_size_of
from .class_list import read_classes
from .import_graph import Imported, import_graph
from .import_request import ImportRequest
from .known_preprocessing import known_preprocessing


@dataclass(frozen=True)
class GraphImport(ImportRequest):
    """A graph of another program. Without an image size, it is the one that the graph fixes."""

    output: str | None = None
    """The output with the logits, if several could have them."""


def import_graph_file(config: GraphImport) -> Imported:
    """Write the graph of another program as one of rtk's. Raises the errors of `import_graph` and DataError."""
    from ..export.foreign_graph import read_foreign_graph

    assert config.classes is not None
    classes = read_classes(config.classes)
    height, width, channels = read_foreign_graph(config.path).image_shape
    size = image_size_of(config.image_size) or (height, width)
    if size[0] is None or size[1] is None:
        raise UsageError(f"{config.path}: takes images of any size; add --image-size N, such as 224")
    channels = channels or 3
    if config.rgb and channels != 3:
        raise UsageError(f"{config.path}: takes grey images; leave out --rgb")
    preprocessing = known_preprocessing(config.preprocess, channels=channels, mean=config.mean, std=config.std)
    return import_graph(
        config.path,
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
