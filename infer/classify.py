"""Classify a stream of entries: one answer for each entry, in the same order."""

import itertools
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.card import ModelCard
from ..core.data.decode import Chunk, Decoder
from ..core.data.sources.entry import Entry
from ..core.text import decodable, wrapped
from .backend import Backend

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """One class and its probability."""

    label: str
    index: int
    """The position of the class in the model's list of classes."""
    probability: float
    """0 to 1: softmax of the logits, with the temperature of the model's card."""


@dataclass(frozen=True)
class Answer:
    """The result for one image: predictions, or the reason why the image cannot be read."""

    file: str
    """The name of the image, as in `Entry.name`."""
    predictions: tuple[Prediction, ...]
    """The most probable class first; empty if the image cannot be read."""
    error: str = ""
    """Why the image cannot be read; empty if it can."""
    entry: Entry | None = field(default=None, compare=False, repr=False)
    """The image itself; None unless `ClassifyConfig.keep_entries` asks for it."""

    @property
    def label(self) -> str:
        """The most probable class; empty if the image cannot be read."""
        return self.predictions[0].label if self.predictions else ""

    @property
    def probability(self) -> float:
        """The probability of the most probable class; 0 if the image cannot be read."""
        return self.predictions[0].probability if self.predictions else 0.0

    def to_dict(self, top_k: int | None = None) -> dict[str, Any]:
        """The answer in types of JSON, with the fields of a line of `rtk classify --format jsonl --top-k TOP_K`.

        Fields without a value are None. `top_k` None: as many predictions as it has, at least one.
        """
        fields: dict[str, Any] = dict.fromkeys(columns(max(len(self.predictions), 1) if top_k is None else top_k))
        fields |= {"file": decodable(self.file), "error": decodable(self.error) or None}
        for rank, prediction in enumerate(self.predictions[:top_k], 1):
            suffix = "" if rank == 1 else f"_{rank}"
            fields |= {f"label{suffix}": prediction.label, f"index{suffix}": prediction.index}
            fields[f"probability{suffix}"] = round(prediction.probability, 6)
        return fields


def columns(top_k: int) -> list[str]:
    """Names of the fields of an answer: file, label, index, probability, error, then the further predictions."""
    others = itertools.chain.from_iterable(
        (f"label_{rank}", f"index_{rank}", f"probability_{rank}") for rank in range(2, top_k + 1)
    )
    return ["file", "label", "index", "probability", "error", *others]


ENTRIES_PER_IMAGE = 4
"""A batch of N images ends after at most this many times N entries, even if few of them can be read."""


class BatchEnds:
    """Decides where batches end: when the batch has all its images, or after too many entries."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self._images, self._entries = batch_size, 0, 0

    def ends_with(self, *, readable: bool) -> bool:
        """Count the next entry, and return whether it is the last of its batch."""
        self._entries += 1
        self._images += readable
        if self._images < self.batch_size and self._entries < ENTRIES_PER_IMAGE * self.batch_size:
            return False
        self._images = self._entries = 0
        return True


@dataclass(frozen=True)
class ClassifyConfig:
    """How to classify."""

    batch_size: int = 256
    top_k: int = 1
    """Number of predictions per image."""
    keep_entries: bool = False
    """Give each answer its entry. The content of an entry then stays in memory as long as the answer does."""


@dataclass(frozen=True)
class _Batch:
    """Some entries, and the images of those that can be read."""

    rows: list[tuple[str, str, Entry | None]]
    """Name and error of each entry, and the entry itself if it is kept."""
    images_NHWC: NDArray[np.uint8]


def classify(
    entries: Iterable[Entry], backend: Backend, decoder: Decoder, config: ClassifyConfig | None = None
) -> Iterator[Answer]:
    """Yield one answer for each entry; memory is bounded, however many entries there are.

    Raises BackendError when the backend fails, after the answers of the batches before.
    """
    config = config or ClassifyConfig()
    batch_size = batch_size_on(backend, config.batch_size)
    in_flight: deque[_Batch] = deque()

    def batches() -> Iterator[NDArray[np.uint8]]:
        for batch in _batches_from_chunks(decoder.chunks(entries), batch_size, keep_entries=config.keep_entries):
            in_flight.append(batch)
            yield batch.images_NHWC

    for logits_NK in backend.stream(batches()):
        batch = in_flight.popleft()
        assert len(logits_NK) == len(batch.images_NHWC)
        yield from _answers(batch, _predictions(logits_NK, backend.card, config.top_k))


def batch_size_on(backend: Backend, requested: int) -> int:
    """The size of the batches that a backend gets: the requested one, or the largest that it accepts."""
    return min(requested, backend.max_batch or requested)


def log_smaller_batches(backend: Backend, requested: int) -> None:
    """Log that an engine gets smaller batches than requested, if it does, and how to build it for larger ones."""
    used = batch_size_on(backend, requested)
    if used < requested:
        _log.info(
            wrapped(
                f"{backend.name}: batches of {used:,} images instead of {requested:,}: the engine was built for no "
                f"more; to build it for larger ones: rtk export --trt MODEL --max-batch {requested}"
            )
        )


def _batches_from_chunks(chunks: Iterable[Chunk], batch_size: int, *, keep_entries: bool) -> Iterator[_Batch]:
    """Regroup chunks into batches that end where BatchEnds says."""
    ends = BatchEnds(batch_size)
    rows: list[tuple[str, str, Entry | None]] = []
    parts: list[NDArray[np.uint8]] = []
    for chunk in chunks:
        kept: Iterable[Entry | None] = chunk.entries if keep_entries else itertools.repeat(None, len(chunk.entries))
        chunk_rows = list(zip(chunk.names, chunk.errors, kept, strict=True))
        first_row = first_image = 0  # of the current batch, in this chunk
        next_image = 0
        for next_row, error in enumerate(chunk.errors, 1):
            next_image += not error
            if ends.ends_with(readable=not error):
                rows += chunk_rows[first_row:next_row]
                parts.append(chunk.images_NHWC[first_image:next_image])
                yield _Batch(rows, np.concatenate(parts))
                rows, parts, first_row, first_image = [], [], next_row, next_image
        rows += chunk_rows[first_row:]
        parts.append(chunk.images_NHWC[first_image:])
    if rows:
        yield _Batch(rows, np.concatenate(parts))


def _answers(batch: _Batch, predictions: Iterator[tuple[Prediction, ...]]) -> Iterator[Answer]:
    for name, error, entry in batch.rows:
        yield Answer(name, () if error else next(predictions), error, entry)


def _predictions(logits_NK: NDArray[np.float32], card: ModelCard, top_k: int) -> Iterator[tuple[Prediction, ...]]:
    """The order is that of the logits: a high temperature can make probabilities equal, and must change no answer."""
    probabilities_NK = softmax(logits_NK, temperature=card.temperature)
    best_NT = np.argsort(-logits_NK, axis=1, kind="stable")[:, :top_k]
    best_probabilities_NT = np.take_along_axis(probabilities_NK, best_NT, axis=1)
    for indices, probabilities in zip(best_NT.tolist(), best_probabilities_NT.tolist(), strict=True):
        yield tuple(Prediction(card.classes[k], k, p) for k, p in zip(indices, probabilities, strict=True))


def softmax(logits_NK: NDArray[np.float32], *, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities of the classes, in double precision; each row sums to 1. The logits are divided by `temperature`.

    `temperature` is that of the model's card, wherever probabilities are shown.
    """
    shifted_NK = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)
    powers_NK = np.exp(shifted_NK / temperature)
    return powers_NK / powers_NK.sum(axis=1, keepdims=True)
