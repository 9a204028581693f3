"""rtk: image classifiers from PyTorch training to TensorRT engines, with proof that the engine keeps the accuracy.

`rtk.train`, `rtk.evaluate`, `rtk.export` and `rtk.bench` do what the commands do; `rtk.load` opens a model. See
docs/python.md, or `help(rtk.load)`. Errors are `rtk.RtkError` or one of its children.
"""

from typing import TYPE_CHECKING, Any

from .core.callable_package import make_callable
from .core.environment import switch_off_telemetry
from .core.errors import (
    ArtifactError,
    BackendError,
    DataError,
    ImageError,
    InconclusiveError,
    LimitError,
    OtherGpuError,
    OutputError,
    ParityError,
    RtkError,
    TrainingError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)

if TYPE_CHECKING:
    from .api import (
        Answer,
        BenchResult,
        Comparison,
        Evaluation,
        ExportResult,
        Model,
        Prediction,
        ReportComparison,
        TrainResult,
        bench,
        evaluate,
        export,
        load,
        train,
    )
else:
    from . import bench, export, train  # packages that hold little but their parts

    for package in (bench, export, train):
        make_callable(package)
    del package

__version__ = "0.1.0"
LAZY = (
    "Answer",
    "BenchResult",
    "Comparison",
    "Evaluation",
    "ExportResult",
    "Model",
    "Prediction",
    "ReportComparison",
    "TrainResult",
    "evaluate",
    "load",
)
"""Names that are imported when they are first used, so that `import rtk` loads nothing heavy."""
__all__ = [
    "Answer",
    "ArtifactError",
    "BackendError",
    "BenchResult",
    "Comparison",
    "DataError",
    "Evaluation",
    "ExportResult",
    "ImageError",
    "InconclusiveError",
    "LimitError",
    "Model",
    "OtherGpuError",
    "OutputError",
    "ParityError",
    "Prediction",
    "ReportComparison",
    "RtkError",
    "TrainResult",
    "TrainingError",
    "UnavailableError",
    "UnknownNameError",
    "UsageError",
    "__version__",
    "bench",
    "evaluate",
    "export",
    "load",
    "train",
]

switch_off_telemetry()  # before any library is loaded


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
