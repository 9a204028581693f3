"""The fake CUDA driver from Python, and what runs engines on it."""

import ctypes

import numpy as np
from rtk.core.errors import BackendError

UNKNOWN, OUT_OF_MEMORY, ILLEGAL_ADDRESS = 999, 2, 700
"""Errors of cuda.h."""
KINDS = {
    "device blocks": "d",
    "page-locked blocks": "h",
    "streams": "s",
    "events": "e",
    "graphs": "g",
    "executable graphs": "x",
    "retained contexts": "c",
    "pushed contexts": "p",
}


class FakeDriver:
    """The fake driver of this process: what is alive in it, and which call fails."""

    def __init__(self) -> None:
        """Raises OSError or AttributeError if this process has no driver or a real one."""
        self.library = ctypes.CDLL("libcuda.so.1")
        self.library.fake_failed.restype = ctypes.c_char_p

    def alive(self) -> dict[str, int]:
        """What exists, by kind."""
        return {name: self.library.fake_alive(ord(kind)) for name, kind in KINDS.items()}

    def calls(self) -> int:
        """Calls of driver functions so far."""
        return int(self.library.fake_calls())

    def fail(self, number: int, error: int = UNKNOWN, *, name: str = "") -> None:
        """Let the call with this number from now on fail: 1 is the next; 0: none. `name`: count its calls only."""
        self.library.fake_fail(name.encode(), number, error)

    def failed(self) -> str:
        """The function that failed since `fail`, or empty."""
        return str(self.library.fake_failed().decode())


class _Run(ctypes.Structure):
    """What `fake_engine` of the fake driver computes."""

    _fields_ = [
        ("images", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
        ("count", ctypes.c_int),
        ("pixels", ctypes.c_int),
        ("classes", ctypes.c_int),
    ]


class HostMachine:
    """Runs the fake engine on CUDA streams, as a host function of the fake driver. It computes `fake_logits`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._runs: list[_Run] = []
        """Kept, because a graph may start them later."""
        self.refused: list[str] = []
        """What CUDA said to the last run that it refused."""

    def run_engine(self, stream: int, images_at: int, logits_at: int, shape: tuple[int, ...], classes: int) -> bool:
        """Enqueue a run for images of shape N x H x W x C between two addresses; return whether CUDA accepts it."""
        run = _Run(images_at, logits_at, shape[0], int(np.prod(shape[1:])), classes)
        self._runs = [*self._runs[-64:], run]
        status = self._library.cuLaunchHostFunc(ctypes.c_void_p(stream), self._library.fake_engine, ctypes.byref(run))
        self.refused[:] = [f"CUDA error {status}"]
        return not status


class HostEngine:
    """An engine of the pipeline without TensorRT."""

    def __init__(self, *, image_shape: tuple[int, int, int], classes: int) -> None:
        self._shape, self._classes = image_shape, classes
        self._machine = HostMachine()

    def enqueue(self, count: int, *, images_at: int, logits_at: int, stream_handle: int) -> None:
        """Start a run on a stream. Raises BackendError if CUDA refuses it."""
        if not self._machine.run_engine(stream_handle, images_at, logits_at, (count, *self._shape), self._classes):
            raise BackendError(f"trt: host engine: a batch of {count} does not run: {self._machine.refused[0]}")

    def fork(self) -> "HostEngine":
        """Another context."""
        return HostEngine(image_shape=self._shape, classes=self._classes)

    def close(self) -> None:
        """Free everything."""
