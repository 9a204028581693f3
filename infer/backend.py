"""The contract of a backend, and the options to open one.

A backend is a loaded model that turns uint8 images N x H x W x C into float32 logits N x K.
"""

import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..core.card import ModelCard
from ..core.device import check_device
from ..core.errors import BackendError
from ..core.library_errors import raise_translated, translated_errors
from ..core.machine import this_machine

BACKENDS = ("torch", "onnx", "openvino", "trt")
ARTIFACT_SUFFIX = {"torch": ".pt", "onnx": ".onnx", "trt": ".engine", "openvino": ".onnx"}
"""The suffix of the file that each backend runs."""


class Resident(abc.ABC):
    """Images in the memory of the model's device, to time a run without copies. Close it before its backend."""

    places: int | None = None
    """How many different batches a benchmark should run in turn; None: as many as there are."""

    @abc.abstractmethod
    def run(self, start: int, count: int) -> float | None:
        """Compute the logits of the `count` images from index `start` on. They stay on the device.

        Returns when the computation is complete: the seconds on the device's own clock, or None if it has no clock.
        Raises BackendError.
        """

    def close(self) -> None:  # noqa: B027 - Python frees what Python objects own
        """Free the images."""


class Backend(abc.ABC):
    """A loaded model. Close it, or use it in a `with`. Only one thread at a time may call it."""

    name: str
    card: ModelCard
    device: str
    """cpu, or cuda:N."""
    runs_on: str
    """The library and hardware that run the model, with versions, as text for people."""
    max_batch: int | None = None
    """The largest batch of one call; None means that only memory limits it."""
    opt_batch: int | None = None
    """The batch that it is optimised for; None means that no batch is special."""
    precision: str = ""
    """The precision of the computation, if it differs from the card's."""
    closed: bool = False
    """Whether it is closed; every use is then an error."""

    def __call__(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the logits N x K of one batch. The caller owns the returned array.

        Raises BackendError if the images do not fit the card, the batch is too large, the backend is closed, or the
        computation fails.
        """
        self.checked(images_NHWC)
        if len(images_NHWC) == 0:
            return np.empty((0, len(self.card.classes)), np.float32)
        try:
            return self._run(np.ascontiguousarray(images_NHWC))
        except Exception as error:
            raise_translated(error, f"{self.name}: a batch of {len(images_NHWC)}")

    def checked(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the batch if a call accepts it. Raises BackendError as a call does."""
        self._check_open()
        expected = self.card.input.shape
        if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or images_NHWC.shape[1:] != expected:
            raise BackendError(
                f"{self.name}: images {images_NHWC.dtype} {images_NHWC.shape}, "
                f"expected uint8 (N, {', '.join(map(str, expected))})"
            )
        if self.max_batch is not None and len(images_NHWC) > self.max_batch:
            raise BackendError(f"{self.name}: a batch of {len(images_NHWC)}, expected at most {self.max_batch}")
        return images_NHWC

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of each batch, in order. Backends that can overlap copies and computation do so here.

        Raises BackendError as a call does; errors of the source of the batches stay as they are.
        """
        return self._translated_stream(batches) if self.overlaps else map(self, batches)

    @property
    def overlaps(self) -> bool:
        """Whether `stream` works on several batches at a time; if not, it makes one call after the other."""
        return type(self)._stream is not Backend._stream

    def resident(self, images_NHWC: NDArray[np.uint8]) -> Resident | None:
        """Copy the images to the model's device; None if the model computes in host memory and needs no copy.

        Raises BackendError, as does its `run`.
        """
        self._check_open()
        with translated_errors(f"{self.name}: {len(images_NHWC)} images on the device"):
            resident = self._resident(images_NHWC)
        return None if resident is None else _Translated(resident, self.name)

    def rounding(self, images_NHWC: NDArray[np.uint8]) -> float:
        """Return the largest difference of its logits from those in fp64; 0 if the backend cannot compute in fp64.

        Raises BackendError as a call does.
        """
        self._check_open()
        if not len(images_NHWC):
            return 0.0
        with translated_errors(f"{self.name}: {len(images_NHWC)} images in fp64"):
            return self._rounding(images_NHWC)

    def rounded(self, images_NHWC: NDArray[np.uint8], precision: str) -> NDArray[np.float32] | None:
        """Return its logits if every layer's result is rounded to fp16 or bf16; None if it cannot compute them.

        Raises BackendError as a call does.
        """
        self._check_open()
        with translated_errors(f"{self.name}: {len(images_NHWC)} images in {precision}"):
            return self._rounded(images_NHWC, precision)

    def _translated_stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        source = _Source(batches)
        try:
            yield from self._stream(map(self.checked, source))
        except Exception as error:
            if error is source.error:
                raise
            raise_translated(error, f"{self.name}: a batch of a stream")

    def _stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of each checked batch, several at a time."""
        raise NotImplementedError

    def _resident(self, images_NHWC: NDArray[np.uint8]) -> Resident | None:
        """Copy the images to the model's device, if that is not the host."""
        del images_NHWC
        return None

    def _rounding(self, images_NHWC: NDArray[np.uint8]) -> float:
        """Compute `rounding` of at least one image."""
        del images_NHWC
        return 0.0

    def _rounded(self, images_NHWC: NDArray[np.uint8], precision: str) -> NDArray[np.float32] | None:
        """Compute `rounded`."""
        del images_NHWC, precision
        return None

    @abc.abstractmethod
    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the logits of a checked batch."""

    def close(self) -> None:
        """Free everything. A second call does nothing."""
        self.closed = True
        self._free()

    def _check_open(self) -> None:
        """Raises BackendError if the backend is closed."""
        if self.closed:
            raise BackendError(f"{self.name}: this backend is closed; open the model again")

    def _free(self) -> None:  # noqa: B027 - some backends own only memory
        """Free what `close` frees; it may be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Source:
    """The batches of a stream, and the error that their source raised, if any."""

    def __init__(self, batches: Iterable[NDArray[np.uint8]]) -> None:
        self._batches = iter(batches)
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return self

    def __next__(self) -> NDArray[np.uint8]:
        try:
            return next(self._batches)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise


class _Translated(Resident):
    """Converts the errors of a library to BackendError."""

    def __init__(self, resident: Resident, name: str) -> None:
        self._resident, self._name, self.places = resident, name, resident.places

    def run(self, start: int, count: int) -> float | None:
        try:
            return self._resident.run(start, count)
        except Exception as error:
            raise_translated(error, f"{self._name}: a batch of {count}")

    def close(self) -> None:
        self._resident.close()


def overflows_here(card: ModelCard) -> bool:
    """Whether int8 kernels of this machine's processor overflow with the weights of such a graph."""
    return card.precision == "int8" and card.weight_bits > 7 and this_machine().int8_saturates


@dataclass(frozen=True)
class BackendOptions:
    """How to open a backend."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto uses a GPU if the backend finds one."""
    threads: int | None = None
    """CPU threads; None means one per core that this process may use."""
    hint: str | None = None
    """openvino: fp16 or bf16 lets its runtime compute an fp32 graph in that precision, if the processor supports it;
    None means the precision of the graph."""
    shares_cores: bool = False
    """Whether other work, such as decoding, uses the same cores: waiting threads then sleep instead of spinning."""
    cuda_graphs: bool = False
    """trt: record the run of each batch size as a CUDA graph; the regular TensorRT needs cuda-python for it."""
    steady: bool = False
    """Whether answers are compared or timed: everything is compiled before the first answer, and nothing changes in the
    background. TensorRT-RTX otherwise replaces its kernels by faster ones while it runs."""

    def __post_init__(self) -> None:
        """Raises UsageError for a device that is none of auto, cpu, cuda and cuda:N."""
        check_device(self.device)
