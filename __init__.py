"""rtk: a residual network from PyTorch training to a deployed TensorRT engine, with proof that nothing was lost.

`rtk.load` opens a model in Python: see `rtk.api`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Answer, Model, Prediction, load

__version__ = "0.1.0"
__all__ = ["Answer", "Model", "Prediction", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: `import rtk` itself loads nothing heavy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
