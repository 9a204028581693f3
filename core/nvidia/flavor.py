"""The two TensorRTs: `tensorrt` for data-centre GPUs, `tensorrt_rtx` for RTX GPUs; one API, few differences.

This module finds the installed ones, chooses and imports one, and has the only logger of a process.
"""

import contextlib
import functools
import importlib
import platform
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata, util
from typing import Any, ClassVar

from ..errors import BackendError, UnavailableError, UnknownNameError
from ..library_errors import reason_of
from ..text import one_line
from .driver import driver_cuda, gpu_count

AUTO = "auto"


@dataclass(frozen=True)
class Flavor:
    """One of the two TensorRTs, and its differences from the other."""

    name: str
    module: str
    package: str
    """Name on PyPI, before a suffix such as -cu13."""
    builds_without_gpu: bool
    has_timing_cache: bool
    """False for RTX: its timing cache does nothing and needs a GPU."""
    checks_engines: bool
    """True when its runtime can check an engine before loading it (`Runtime.get_engine_validity`)."""
    has_compatibility_levels: bool
    """True when an engine can be built for other GPUs than that of the builder."""

    @property
    def installed(self) -> bool:
        """True when the module can be found; it is not imported."""
        return util.find_spec(self.module) is not None

    @property
    def cuda_major(self) -> int | None:
        """The CUDA major version in the names of the installed packages; None when the names have none."""
        for major in (12, 13, 14):
            for name in (f"{self.package}-cu{major}-libs", f"{self.package}-cu{major}"):
                with contextlib.suppress(metadata.PackageNotFoundError):
                    metadata.version(name)
                    return major
        return None

    def version(self) -> str:
        """Return the version of the installed package; without one, import the module. Raises BackendError."""
        for name in (self.package, f"{self.package}-cu13", f"{self.package}-cu12"):
            with contextlib.suppress(metadata.PackageNotFoundError):
                return metadata.version(name)
        return str(self.load().__version__)

    def load(self) -> Any:
        """Import the module. Raises UnavailableError when it is missing, BackendError when it cannot be loaded."""
        if not self.installed:
            raise UnavailableError(f"{self.name} is not installed; {self.install_hint()}")
        try:
            return importlib.import_module(self.module)
        except (ImportError, OSError) as error:
            raise BackendError(
                f"{self.name} is installed but cannot be loaded ({one_line(error)}); install it again: "
                f"{self.install_hint()}"
            ) from error

    def install_hint(self) -> str:
        """Return the command that installs it for this driver's CUDA and this Python."""
        cuda = driver_cuda()
        suffix = "-cu12" if cuda is not None and cuda[0] == 12 else ""  # without a suffix: CUDA 13
        environment = f" (for Python {platform.python_version()}" + (f", CUDA {cuda[0]}.{cuda[1]})" if cuda else ")")
        return f"pip install {self.package}{suffix}{environment}"


FLAVORS = {
    "tensorrt": Flavor(
        "tensorrt", "tensorrt", "tensorrt",
        builds_without_gpu=False, has_timing_cache=True, checks_engines=False, has_compatibility_levels=True,
    ),
    "tensorrt-rtx": Flavor(
        "tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx",
        builds_without_gpu=True, has_timing_cache=False, checks_engines=True, has_compatibility_levels=False,
    ),
}  # fmt: skip


def flavor_named(name: str) -> Flavor:
    """Look up a flavour by name. Raises UnknownNameError."""
    if name not in FLAVORS:
        raise UnknownNameError("TensorRT flavor", name, (AUTO, *FLAVORS))
    return FLAVORS[name]


def choose_flavor(name: str = AUTO) -> Flavor:
    """Choose the flavour to build with; for auto: `tensorrt` if it and a GPU are there, else `tensorrt_rtx`.

    Raises UnknownNameError, and UnavailableError when the flavour, or for auto both, is not installed.
    """
    if name != AUTO:
        flavor = flavor_named(name)
        if not flavor.installed:
            raise UnavailableError(f"--flavor {name}: not installed; {flavor.install_hint()}")
        return flavor
    regular, rtx = FLAVORS["tensorrt"], FLAVORS["tensorrt-rtx"]
    if regular.installed and gpu_count():
        return regular
    if rtx.installed:
        return rtx
    if regular.installed:
        raise UnavailableError(
            f"tensorrt {regular.version()} needs a GPU to build, and this machine has none; "
            f"to build without a GPU: {rtx.install_hint()}"
        )
    raise UnavailableError(
        f"no TensorRT is installed; {regular.install_hint()}, or without a GPU: pip install {rtx.package}"
    )


@dataclass
class LogLines:
    """Errors that TensorRT logged during one task."""

    errors: list[str] = field(default_factory=list)

    def reason(self, otherwise: str) -> str:
        """Return the errors as one line without repetitions, or `otherwise` when there are none."""
        return "; ".join(dict.fromkeys(reason_of(line, memory_advice=False) for line in self.errors)) or otherwise


class _Tasks:
    """The open tasks that collect lines of the process's only logger, by thread; the innermost one is the last.

    TensorRT keeps the first logger that it gets and ignores all others, so all threads share one.
    """

    lock = threading.Lock()
    by_thread: ClassVar[dict[int, list[LogLines]]] = {}

    @classmethod
    def add(cls, message: str) -> None:
        """Give a line to this thread's task. TensorRT's own threads have none: their lines go to all open tasks."""
        with cls.lock:
            own = cls.by_thread.get(threading.get_ident())
            for tasks in [own] if own else cls.by_thread.values():
                tasks[-1].errors.append(message)

    @classmethod
    def open(cls, lines: LogLines) -> None:
        """Let a task of this thread collect its lines."""
        with cls.lock:
            cls.by_thread.setdefault(threading.get_ident(), []).append(lines)

    @classmethod
    def close(cls) -> None:
        """End the innermost task of this thread."""
        with cls.lock:
            tasks = cls.by_thread[threading.get_ident()]
            tasks.pop()
            if not tasks:
                del cls.by_thread[threading.get_ident()]


@functools.cache
def logger_of(trt: Any) -> Any:
    """Return the only logger of that flavour in this process. It prints nothing: see collected_errors."""
    grave = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base class comes from a module without types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in grave:
                _Tasks.add(message)

    return Logger()


@contextlib.contextmanager
def collected_errors() -> Iterator[LogLines]:
    """Yield the errors that TensorRT logs for this thread while the block runs."""
    lines = LogLines()
    _Tasks.open(lines)
    try:
        yield lines
    finally:
        _Tasks.close()
