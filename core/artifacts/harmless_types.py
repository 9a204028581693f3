"""Python objects that weight files often hold beside the weights, such as the options of a training.

PyTorch reads only tensors and plain values unless a type is allowed by its name. For each name here it gets a stand-in
that ignores its arguments, so that nothing of these modules is imported, called or filled: NumPy's own reader, for one,
trusts the sizes in a pickle. The objects are lost, which is no loss: only the weights are used.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class _Ignored:
    """Stands for an object whose content is not needed."""

    def __new__(cls, *arguments: Any) -> "_Ignored":
        del arguments
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        del arguments

    def __setstate__(self, state: Any) -> None:
        del state


class IgnoredArray(_Ignored):
    """Stands for an array of NumPy."""


class _Mapping:
    """Stands for a class of dictionaries: these become ordered ones, so that weights in them are found."""

    def __new__(cls, *arguments: Any) -> Any:
        del arguments
        return OrderedDict()


class _List:
    """Stands for a class of lists."""

    def __new__(cls, *arguments: Any) -> Any:
        del arguments
        return []


_NUMPY_SCALARS = (
    *("bool_", "bool", "str_", "bytes_", "float16", "float32", "float64", "longdouble", "complex64", "complex128"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "longlong", "ulonglong", "datetime64"),
)
_NUMPY_DTYPES = (
    *("Bool", "Str", "Bytes", "Float16", "Float32", "Float64", "Complex64", "Complex128", "Object", "DateTime64"),
    *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "LongLong", "ULongLong"),
)
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")

_IGNORED = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),  # ._local: Python 3.13
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "torch.torch_version.TorchVersion"),
    *(f"builtins.{name}" for name in ("int", "float", "bool", "str", "bytes", "tuple", "object")),
    *(f"builtins.{name}" for name in ("frozenset", "slice", "range")),
    *(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")  # before and since NumPy 2
        for name in ("multiarray.scalar", "numeric._frombuffer")
    ),
    *("numpy.ndarray", "numpy.dtype"),
    *(f"numpy.{name}" for name in _NUMPY_SCALARS),
    *(f"numpy.dtypes.{name}DType" for name in _NUMPY_DTYPES),
    # The configuration and the history of common training frameworks.
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "omegaconf.base.SCMode"),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *(f"omegaconf.nodes.{name}Node" for name in ("Any", "Boolean", "Bytes", "Float", "Integer", "Path", "String")),
    *("typing.Any", "mmengine.logging.history_buffer.HistoryBuffer"),
)
_MAPPINGS = (
    *("builtins.dict", "collections.defaultdict", "collections.ChainMap"),
    *("easydict.EasyDict", "yacs.config.CfgNode", "addict.addict.Dict"),
    "pytorch_lightning.utilities.parsing.AttributeDict",
    *("lightning_fabric.utilities.data.AttributeDict", "lightning.fabric.utilities.data.AttributeDict"),
)
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_LISTS = ("builtins.list", "collections.deque")

HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((_Ignored, name) for name in _IGNORED),
    *((IgnoredArray, name) for name in _ARRAYS),
    *((_Mapping, name) for name in _MAPPINGS),
    *((_List, name) for name in _LISTS),
]
"""Pairs of a stand-in and the full name that it stands for, as torch.serialization.safe_globals takes them."""
