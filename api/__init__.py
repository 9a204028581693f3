"""The Python API: what the commands do, as functions; docs/python.md shows all of it.

>>> import numpy as np
>>> import rtk
>>> model = rtk.load("resnet20v1-cifar10")

One call classifies any number of images. An image that cannot be read has an error and no predictions:

>>> image_HWC = np.zeros((32, 32, 3), np.uint8)
>>> black, missing = model.classify([image_HWC, "missing.png"], top_k=2)
>>> black.label in model.card.classes, len(black.predictions), black.error
(True, 2, '')
>>> missing.file, missing.error, missing.predictions
('missing.png', 'no such file', ())

A single image needs no list:

>>> model(image_HWC).label == black.label
True

`logits` returns the raw output of the model, N x K for N images and K classes:

>>> model.logits(np.zeros((5, 32, 32, 3), np.uint8)).shape
(5, 10)
>>> model.close()
"""

from typing import TYPE_CHECKING, Any

from ..infer.classify import Answer, Prediction
from ..workflow.export_options import ExportResult
from .benching import BenchResult, ReportComparison, bench
from .evaluating import evaluate
from .exporting import export
from .images import Image, Layout
from .model import Model, load
from .training import TrainResult, train

if TYPE_CHECKING:
    from ..bench.evaluation.result import Comparison, Evaluation

__all__ = [
    "Answer",
    "BenchResult",
    "Comparison",
    "Evaluation",
    "ExportResult",
    "Image",
    "Layout",
    "Model",
    "Prediction",
    "ReportComparison",
    "TrainResult",
    "bench",
    "evaluate",
    "export",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    """The types of an evaluation, whose module loads more than the others need."""
    if name not in ("Comparison", "Evaluation"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..bench.evaluation import result

    return getattr(result, name)
