"""The contract of a backend, and the options that one is opened with.

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
from ..core.errors import BackendError

BACKENDS = ("torch", "onnx", "openvino", "trt")
ARTIFACT_SUFFIX = {"torch": ".pt", "onnx": ".onnx", "trt": ".engine", "openvino": ".onnx"}
"""The kind of file that each backend runs."""


class Resident(abc.ABC):
    """Images that lie on a device with the model, for timing the arithmetic alone. Close it before its backend."""

    @abc.abstractmethod
    def run(self, start: int, count: int) -> float | None:
        """Compute the logits of `count` images from `start` on, leave them there, and return when all is done.

        Returns the seconds by the device's own clock, where it has one. Raises BackendError.
        """

    def close(self) -> None:  # noqa: B027 - what lies in Python objects goes with them
        """Free the images."""


class Backend(abc.ABC):
    """A loaded model. Close it, or use it in a `with`; one thread at a time may call it."""

    name: str
    card: ModelCard
    device: str
    """cpu, or cuda:N."""
    runs_on: str
    """What really runs it, with versions, in words for people."""
    max_batch: int | None = None
    """The largest batch of one call; None means what memory allows."""
    precision: str = ""
    """What it claims to compute in, where that is not the card's."""

    def __call__(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits N x K of one batch, in an array of the caller's own.

        Raises BackendError when the images are not what the card says, the batch is too large, or running fails.
        """
        self.checked(images_NHWC)
        if len(images_NHWC) == 0:
            return np.empty((0, len(self.card.classes)), np.float32)
        return self._run(np.ascontiguousarray(images_NHWC))

    def checked(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The same batch, if one call may take it. Raises BackendError as a call does."""
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
        """Logits of batch after batch, in their order; backends that can overlap copies and arithmetic do so here."""
        return map(self, batches)

    @property
    def overlaps(self) -> bool:
        """Whether `stream` has several batches on their way at a time; else it is call after call."""
        return type(self).stream is not Backend.stream

    def resident(self, images_NHWC: NDArray[np.uint8]) -> Resident | None:
        """The images put where the model computes; None where that is host memory, so that nothing is to be copied."""
        del images_NHWC
        return None

    @abc.abstractmethod
    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One batch that was checked."""

    def close(self) -> None:  # noqa: B027 - most backends have nothing to free but memory
        """Free everything; calling it twice does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class BackendOptions:
    """How a backend is opened."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto takes a GPU where the backend finds one."""
    threads: int | None = None
    """On a CPU; None means every core that this process may use."""
    hint: str | None = None
    """openvino: fp16 or bf16 lets its runtime compute an fp32 graph so, where the processor can; None: as the graph."""
    shares_cores: bool = False
    """Whether other work, such as decoding, wants the same cores: then threads that wait sleep instead of spinning."""
    slots: int = 3
    """trt: batches of a stream on their way at the same time, each with buffers of its own; at least 2 to overlap."""
    cuda_graphs: bool = False
    """trt: record each batch size's run as a CUDA graph; with the regular TensorRT that takes cuda-python."""
    specialization: str = "lazy"
    """trt with TensorRT-RTX: when kernels for the very batch size are compiled: lazy, eager or none."""
    runtime_cache: bool = True
    """trt with TensorRT-RTX: keep compiled kernels in the user's cache folder."""
