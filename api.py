"""The Python API: `rtk.load` opens a model, and the model classifies whatever `rtk classify` does, and arrays.

>>> import numpy as np
>>> import rtk
>>> model = rtk.load("resnet20v1-cifar10")
>>> answers = model.classify([np.zeros((32, 32, 3), np.uint8), "gone.png"], top_k=2)
>>> answers[0].label in model.card.classes, len(answers[0].predictions), answers[0].error
(True, 2, '')
>>> answers[1].file, answers[1].error, answers[1].predictions
('gone.png', 'no such file', ())
>>> model.logits(np.zeros((5, 32, 32, 3), np.uint8)).shape
(5, 10)
>>> model.close()
"""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .core.card import ModelCard
from .core.errors import BackendError
from .infer.backend import Backend, BackendOptions
from .infer.classify import Answer, ClassifyConfig, Prediction, classify
from .infer.decode import Decoder
from .infer.output.formats import Fit
from .infer.sources.entry import Entry
from .infer.sources.listing import entries
from .workflow.select import open_model

__all__ = ["Answer", "Image", "Model", "Prediction", "load"]

Image = str | os.PathLike[str] | bytes | NDArray[np.uint8]
"""What is classified: a path (or anything else that `rtk classify` takes), an image file's bytes, or pixels."""


def load(
    name: str | os.PathLike[str],
    *,
    backend: str = "auto",
    device: str = "auto",
    workers: int = 0,
    fit: Fit = "crop",
) -> "Model":
    """Open a model: the name of one of the zoo, or the path of a checkpoint, graph or engine.

    `backend`: auto, or one of those that `rtk doctor` lists. `workers`: processes that decode; 0 decodes in the thread
    that asks. A program that wants more keeps its own start behind `if __name__ == "__main__":`, for they import it.
    `fit`: "crop" or "letterbox", for images of other proportions than the model's.

    Raises UnknownNameError for a name of nothing, ArtifactError for a file that is missing, damaged or foreign,
    BackendError when the backend cannot run here. All of them are RtkError.
    """
    options = BackendOptions(device=device, shares_cores=True)
    opened = open_model(os.fspath(name), backend=backend, options=options)
    return Model(opened, Decoder(opened.card.input, processes=workers, fit=fit))


class Model:
    """An open model. Several threads may use it: they decode at the same time and take turns on the backend.
    With `workers`, one call of `classify` waits for the other.

    Close it, or use it in a `with`.
    """

    def __init__(self, backend: Backend, decoder: Decoder) -> None:
        """Takes over the backend and the decoder; `load` makes both."""
        self._backend = _Shared(backend)
        self._decoder = decoder
        self._processes = threading.RLock() if decoder.processes else contextlib.nullcontext()

    @property
    def card(self) -> ModelCard:
        """What the model is: classes, input size, preprocessing, score."""
        return self._backend.card

    @property
    def runs_on(self) -> str:
        """What really runs it, with versions, in words for people."""
        return self._backend.runs_on

    def classify(self, images: Image | Iterable[Image], *, top_k: int = 1, batch_size: int = 256) -> list[Answer]:
        """One answer for each image, in order; unreadable ones have `error` instead of `predictions`.

        `images`: one or several of: a path, which may lead to as many images as a folder or an archive holds, or be
        a quoted glob or a split such as cifar10:test; an image file's bytes; pixels, uint8 H x W, H x W x 1, 3 or 4,
        or N x H x W x C for N images. Images of other sizes are scaled as the `rtk classify` does it. An answer's
        `file` is the path, or `image[3]` for the fourth of the images that have none, or `image[3][7]`.

        Raises BackendError when the model is closed or fails, ValueError for `top_k` or `batch_size` below 1.
        """
        if top_k < 1 or batch_size < 1:
            raise ValueError(f"top_k {top_k} and batch_size {batch_size}: expected at least 1")
        given = [images] if isinstance(images, str | os.PathLike | bytes | np.ndarray) else images
        config = ClassifyConfig(batch_size=batch_size, top_k=min(top_k, len(self.card.classes)))
        with self._processes:
            self._backend.check_open()
            return list(classify(_entries(given), self._backend, self._decoder, config))

    def logits(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits N x K of images uint8 N x H x W x C of the very size that the card says.

        Raises BackendError when they are of another size or type, or when the model is closed or fails.
        """
        size = self._backend.max_batch or max(len(images_NHWC), 1)
        starts = range(0, max(len(images_NHWC), 1), size)
        return np.concatenate([self._backend(images_NHWC[start : start + size]) for start in starts])

    def close(self) -> None:
        """Free everything; calling it twice does no harm. Threads that are using it get a BackendError."""
        self._backend.close()  # first: it ends what is under way, and nobody decodes any more
        with self._processes:
            self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Shared(Backend):
    """A backend that threads take turns on, batch by batch."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.card, self.device, self.runs_on = backend.name, backend.card, backend.device, backend.runs_on
        self.max_batch = backend.max_batch
        self._lock = threading.Lock()
        self._backend: Backend | None = backend

    def check_open(self) -> Backend:
        """The backend. Raises BackendError when it is closed."""
        if self._backend is None:
            raise BackendError(f"{self.card.name}: the model is closed")
        return self._backend

    def __call__(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._lock:
            return self.check_open()(images_NHWC)

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self(images_NHWC)

    def close(self) -> None:
        with self._lock:
            if self._backend is not None:
                self._backend.close()
            self._backend = None


def _entries(images: Iterable[Image]) -> Iterator[Entry]:
    for number, image in enumerate(images):
        name = f"image[{number}]"
        if isinstance(image, bytes):
            yield Entry(name, content=image)
        elif isinstance(image, str | os.PathLike):
            yield from entries([_path(image)])
        elif isinstance(image, np.ndarray):
            if image.ndim == 4:
                yield from (Entry(f"{name}[{n}]", content=pixels_HWC) for n, pixels_HWC in enumerate(image))
            else:
                yield Entry(name, content=image)
        else:
            raise TypeError(f"{name}: {type(image).__name__}; expected a path, bytes or an array")


def _path(image: str | os.PathLike[str]) -> str:
    path = os.fspath(image)
    return str(Path(".", path)) if path == "-" else path
