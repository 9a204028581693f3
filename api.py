"""The Python API: `rtk.load` opens a model, which classifies files, folders, archives, bytes and arrays.

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

`logits` returns the raw output of the model, N x K for N images and K classes:

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
from .core.data.decode import Decoder
from .core.data.options import Fit
from .core.data.sources.entry import Entry
from .core.errors import BackendError
from .infer.backend import Backend, BackendOptions
from .infer.classify import Answer, ClassifyConfig, Prediction, classify
from .infer.sources.listing import entries
from .workflow.select import open_model

__all__ = ["Answer", "Image", "Model", "Prediction", "load"]

Image = str | os.PathLike[str] | bytes | NDArray[np.uint8]
"""A path, glob or data set split as for `rtk classify`, the bytes of an image file, or an array of pixels."""


def load(
    name: str | os.PathLike[str],
    *,
    backend: str = "auto",
    device: str = "auto",
    workers: int = 0,
    fit: Fit | None = None,
) -> "Model":
    """Open a model.

    `name`: the name of a zoo model (`rtk models` lists them), or the path of a checkpoint, graph or engine.
    `backend`: "auto", "torch", "onnx", "openvino" or "trt"; `rtk doctor` lists those that run on this machine.
    `device`: "auto", "cpu", "cuda" or "cuda:N".
    `workers`: number of decoding processes; 0 decodes in the calling thread. With workers, the main module of the
    program needs `if __name__ == "__main__":`, because the processes import it.
    `fit`: "crop" cuts the edges of images with other proportions than the model's; "letterbox" adds black bars;
    "stretch" changes their proportions. None: as the model was trained.

    Raises UnknownNameError if no model or backend has that name, ArtifactError if the file is missing, damaged or not
    written by rtk, and BackendError if the backend cannot run on this machine. All of them are RtkError.
    """
    options = BackendOptions(device=device, shares_cores=True)
    opened = open_model(os.fspath(name), backend=backend, options=options)
    return Model(opened, Decoder(opened.card.input, processes=workers, fit=fit or opened.card.image_fit))


class Model:
    """An open model. Close it, or use it in a `with`.

    Several threads may use it. They decode at the same time; the backend runs one batch at a time. With `workers`, only
    one call of `classify` runs at a time.
    """

    def __init__(self, backend: Backend, decoder: Decoder) -> None:
        """Take ownership of the backend and the decoder. `load` makes both."""
        self._backend = _Shared(backend)
        self._decoder = decoder
        self._processes = threading.RLock() if decoder.processes else contextlib.nullcontext()

    @property
    def card(self) -> ModelCard:
        """The description of the model: classes, input size, preprocessing, accuracy of its checkpoint."""
        return self._backend.card

    @property
    def runs_on(self) -> str:
        """The library and hardware that run the model, with versions, as text for people."""
        return self._backend.runs_on

    def classify(self, images: Image | Iterable[Image], *, top_k: int = 1, batch_size: int = 256) -> list[Answer]:
        """Return one answer per image, in order. An unreadable image has an `error` instead of `predictions`.

        `images`: one of these, or an iterable of them:

        * a path: an image file, a folder, an archive or array with any number of images, a glob, or a data set split
          such as "cifar10:test";
        * the bytes of an image file;
        * pixels, uint8: H x W, H x W x C with C 1, 3 or 4, or N x H x W x C for N images.

        Images of other sizes are scaled to the model's size, as `rtk classify` does.
        `top_k`: number of predictions per image, at most the number of classes. `batch_size`: images per run.

        The `file` of an answer is the path. For bytes and pixels it is the position in `images`, such as `image[3]`, or
        `image[3][7]` for one of N images in an array.

        Raises BackendError if the model is closed or its backend fails, ValueError if `top_k` or `batch_size` is below
        1, TypeError for other types of images.
        """
        if top_k < 1 or batch_size < 1:
            raise ValueError(f"top_k {top_k} and batch_size {batch_size}: expected at least 1")
        given = [images] if isinstance(images, str | os.PathLike | bytes | np.ndarray) else images
        config = ClassifyConfig(batch_size=batch_size, top_k=min(top_k, len(self.card.classes)))
        with self._processes:
            self._backend.check_open()
            return list(classify(_entries(given), self._backend, self._decoder, config))

    def logits(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits N x K, float32, of images uint8 N x H x W x C in exactly the size of `card.input`.

        Raises BackendError if size or type differ, if the model is closed, or if its backend fails.
        """
        size = self._backend.max_batch or max(len(images_NHWC), 1)
        starts = range(0, max(len(images_NHWC), 1), size)
        return np.concatenate([self._backend(images_NHWC[start : start + size]) for start in starts])

    def close(self) -> None:
        """Free everything. A second call does nothing. Threads that use the model get a BackendError."""
        self._backend.close()  # first, because it ends running calls, which use the decoder
        with self._processes:
            self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Shared(Backend):
    """A backend for several threads: a lock lets one batch run at a time."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.card, self.device, self.runs_on = backend.name, backend.card, backend.device, backend.runs_on
        self.max_batch = backend.max_batch
        self._lock = threading.Lock()
        self._backend: Backend | None = backend

    def check_open(self) -> Backend:
        """Return the backend. Raises BackendError if it is closed."""
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
    """Yield the images as entries. Raises TypeError."""
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
    """The path as text; "-" is a file here, not standard input."""
    path = os.fspath(image)
    return str(Path(".", path)) if path == "-" else path
