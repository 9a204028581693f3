"""rtk: image classifiers from PyTorch training to TensorRT engines, with proof that the engine keeps the accuracy.

`rtk.load` opens a model in Python; `help(rtk.api)` has an example.
"""

from typing import TYPE_CHECKING, Any

from .core.environment import switch_off_telemetry

if TYPE_CHECKING:
    from .api import Answer, Model, Prediction, load

__version__ = "0.1.0"
__all__ = ["Answer", "Model", "Prediction", "__version__", "load"]

switch_off_telemetry()  # before any library is loaded


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `import rtk` loads nothing heavy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
