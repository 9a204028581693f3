"""An open model: `load` opens it, and it classifies whatever a program has as images."""

import contextlib
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..core.card import ModelCard
from ..core.data.decode import Decoder
from ..core.data.options import MAX_PIXELS, Fit
from ..core.data.sources.entry import Entry
from ..core.errors import UsageError
from ..infer.backend import Backend, BackendOptions
from ..infer.classify import Answer, ClassifyConfig, classify
from ..workflow.select import open_model
from .argument_types import checked
from .arguments import allow
from .images import Image, Layout, image_entries
from .own_call import own_call
from .shared import SharedBackend


@checked
def load(
    name: str | os.PathLike[str],
    *,
    backend: str = "auto",
    device: str = "auto",
    workers: int = 0,
    fit: Fit | None = None,
    allow_code: str | Sequence[str] | None = None,
) -> "Model":
    """Open a model.

    `name`: the name of a zoo model (`rtk models` lists them), or the path of a checkpoint, graph or engine.
    `backend`: "auto", "torch", "onnx", "openvino" or "trt"; `rtk doctor` lists those that run on this machine.
    `device`: "auto", "cpu", "cuda" or "cuda:N".
    `workers`: number of decoding processes; 0 decodes in the calling thread. With workers, the main module of the
    program needs `if __name__ == "__main__":`, because the processes import it.
    `fit`: "crop" cuts the edges of images with other proportions than the model's; "letterbox" adds black bars;
    "stretch" changes their proportions. None: as the model was trained.
    `allow_code`: modules that a checkpoint may import to build its network, such as "mynets".

    Settings of the process, such as TF32, are changed only while rtk computes.

    Raises UnknownNameError if no model or backend has that name, ArtifactError if the file is missing, damaged or not
    written by rtk, and BackendError if the backend cannot run on this machine. All of them are RtkError.
    """
    options = BackendOptions(device=device, shares_cores=True)
    with own_call():
        allow(allow_code)
        opened = open_model(os.fspath(name), backend=backend, options=options)
    card = opened.card
    pixels = (card.data.max_pixels if card.data else 0) or MAX_PIXELS
    return Model(opened, Decoder(card.input, processes=workers, fit=fit or card.image_fit, max_pixels=pixels))


class Model:
    """An open model. Close it, or use it in a `with`.

    Several threads may use it. They decode at the same time; the backend runs one batch at a time. With `workers`, one
    call at a time uses these processes; calls beside it decode in their own threads.
    """

    def __init__(self, backend: Backend, decoder: Decoder) -> None:
        """Take ownership of the backend and the decoder. `load` makes both."""
        self._backend = SharedBackend(backend)
        self._decoder = decoder
        self._lent = threading.Lock()
        """Held while a call uses the processes of the decoder."""
        self._decoding = threading.RLock()
        """Held while that call runs, but not while the reader of its answers has them; `close` needs it."""

    @property
    def card(self) -> ModelCard:
        """The description of the model: classes, input size, preprocessing, accuracy of its checkpoint."""
        return self._backend.card

    @property
    def runs_on(self) -> str:
        """The library and hardware that run the model, with versions, as text for people."""
        return self._backend.runs_on

    def __call__(self, image: Image, *, top_k: int = 1, layout: Layout = "HWC") -> Answer:
        """Return the answer for one image; see `classify`. If it cannot be read, the answer has an `error`.

        Raises UsageError if there is no image, or more than one, as in a folder; and what `classify` raises.
        """
        with contextlib.closing(self.stream(image, top_k=top_k, batch_size=2, layout=layout)) as answers:
            found = [answer for answer, _ in zip(answers, range(2), strict=False)]
        if len(found) != 1:
            raise UsageError(
                f"model(image): {'more than one image' if found else 'no image'} in it, expected one; for any number: "
                "model.classify(images)"
            )
        return found[0]

    def classify(
        self, images: Image | Iterable[Image], *, top_k: int = 1, batch_size: int = 256, layout: Layout = "HWC"
    ) -> list[Answer]:
        """Return one answer per image, in order. An unreadable image has an `error` instead of `predictions`.

        `images`: one of these, or an iterable of them, which is read bit by bit:

        * a path: an image file, a folder, an archive or array with any number of images, a glob, or a data set split
          such as "cifar10:test";
        * the bytes of an image file, or a file that is open for reading bytes;
        * an image of Pillow, which is rotated as its EXIF says and converted as a file is;
        * pixels as a NumPy array or a tensor of PyTorch, uint8: H x W, H x W x C with C 1, 3 or 4, or N x H x W x C for
          N images; with layout "CHW" C x H x W or N x C x H x W.

        Images of other sizes are scaled to the model's size, as `rtk classify` does.
        `top_k`: number of predictions per image, at most the number of classes. `batch_size`: images per run.

        The `file` of an answer is the path. For an image without one it is the position in `images`, such as
        `image[3]`, or `image[3][7]` for one of N images in an array.

        Raises BackendError if the model is closed or its backend fails, and UsageError if `top_k` or `batch_size` is
        not a whole number from 1 on, for other types of images, and for arrays of another type or layout.
        """
        return list(self.stream(images, top_k=top_k, batch_size=batch_size, layout=layout))

    def stream(
        self, images: Image | Iterable[Image], *, top_k: int = 1, batch_size: int = 256, layout: Layout = "HWC"
    ) -> Generator[Answer, None, None]:
        """Yield the answers of `classify` one by one, for any number of images: few of them are in memory at a time."""
        for name, value in (("top_k", top_k), ("batch_size", batch_size)):
            if not isinstance(value, int | np.integer) or value < 1:
                raise UsageError(f"{name}: {value!r}, expected a whole number from 1 on")
        self._backend.check_open()
        entries = image_entries(images, layout=layout, max_pixels=self._decoder.reading.max_pixels)
        config = ClassifyConfig(batch_size=int(batch_size), top_k=min(int(top_k), len(self.card.classes)))
        return self._answers(entries, config)

    def logits(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits N x K, float32, of images uint8 N x H x W x C in exactly the size of `card.input`.

        Raises BackendError if size or type differ, if the model is closed, or if its backend fails.
        """
        size = self._backend.max_batch or max(len(images_NHWC), 1)
        starts = range(0, max(len(images_NHWC), 1), size)
        return np.concatenate([self._backend(images_NHWC[start : start + size]) for start in starts])

    def close(self) -> None:
        """Free everything. A second call does nothing. Every later use, also by other threads, is a BackendError."""
        self._backend.close()  # first, because it ends running calls, which use the decoder
        with self._decoding:
            self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answers(self, entries: Iterator[Entry], config: ClassifyConfig) -> Generator[Answer, None, None]:
        with self._decoder_of_a_call() as (decoder, turn):
            answers = classify(entries, self._backend, decoder, config)
            while True:
                with turn:
                    self._backend.check_open()
                    answer = next(answers, None)
                if answer is None:
                    return
                yield answer

    @contextlib.contextmanager
    def _decoder_of_a_call(self) -> "Iterator[tuple[Decoder, AbstractContextManager[object]]]":
        """The decoder for a call, and what the call has to hold while it runs.

        A call that stops in the middle, because nobody reads on, must not stop others: they have no processes then.
        """
        if not self._decoder.processes:
            yield self._decoder, contextlib.nullcontext()
        elif self._lent.acquire(blocking=False):
            try:
                yield self._decoder, self._decoding
            finally:
                if self._backend.closed:  # in the meantime: a call that was running may have started processes again
                    with self._decoding:
                        self._decoder.close()
                self._lent.release()
        else:
            reading = self._decoder.reading
            here = Decoder(reading.size, processes=0, fit=reading.fit, max_pixels=reading.max_pixels)
            yield here, contextlib.nullcontext()
