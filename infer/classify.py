"""Classification: a stream of entries in, one answer for each of them out, in the same order."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .backend import Backend
from .decode import Chunk, Decoder
from .sources.entry import Entry


@dataclass(frozen=True)
class Guess:
    """One class and how probable the model finds it."""

    label: str
    index: int
    probability: float
    """0 to 1: softmax of the logits."""


@dataclass(frozen=True)
class Answer:
    """What became of one entry."""

    file: str
    guesses: tuple[Guess, ...]
    """The most probable first; empty where the image could not be read."""
    error: str = ""

    @property
    def label(self) -> str:
        """The most probable class, or empty where the image could not be read."""
        return self.guesses[0].label if self.guesses else ""

    @property
    def probability(self) -> float:
        """That class's, or 0 where the image could not be read."""
        return self.guesses[0].probability if self.guesses else 0.0


ENTRIES_AN_IMAGE = 4
"""A batch ends after so many times its size, however few of these entries can be read."""


class BatchEnds:
    """Where batches end: with the last image that they have room for, or else after so many entries."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self._images, self._entries = batch_size, 0, 0

    def with_this(self, *, readable: bool) -> bool:
        """Whether the next entry is its batch's last."""
        self._entries += 1
        self._images += readable
        if self._images < self.batch_size and self._entries < ENTRIES_AN_IMAGE * self.batch_size:
            return False
        self._images = self._entries = 0
        return True


@dataclass(frozen=True)
class ClassifyConfig:
    """How to classify."""

    batch_size: int = 256
    top_k: int = 1


def classify(
    entries: Iterable[Entry], backend: Backend, decoder: Decoder, config: ClassifyConfig | None = None
) -> Iterator[Answer]:
    """Answer every entry, unreadable ones with their error; memory is bounded however many there are.

    Raises BackendError when the backend fails; the answers before it have been given.
    """
    config = config or ClassifyConfig()
    batch_size = min(config.batch_size, backend.max_batch or config.batch_size)
    waiting: deque[tuple[list[str], list[str], int]] = deque()  # names, errors and image count of the batches asked

    def batches() -> Iterator[NDArray[np.uint8]]:
        for names, errors, images_NHWC in _batched(decoder.chunks(entries), batch_size):
            waiting.append((names, errors, len(images_NHWC)))
            yield images_NHWC

    for logits_NK in backend.stream(batches()):
        names, errors, count = waiting.popleft()
        assert len(logits_NK) == count
        yield from _answers(names, errors, _guesses(logits_NK, backend.card.classes, config.top_k))


def _batched(chunks: Iterable[Chunk], batch_size: int) -> Iterator[tuple[list[str], list[str], NDArray[np.uint8]]]:
    """Regroup chunks as BatchEnds has it: names, errors, and the images of the readable ones."""
    ends = BatchEnds(batch_size)
    names: list[str] = []
    errors: list[str] = []
    parts: list[NDArray[np.uint8]] = []
    for chunk in chunks:
        start, first, image = 0, 0, 0  # of this batch in the chunk: its first entry and image; the image after the last
        for position, error in enumerate(chunk.errors, 1):
            image += not error
            if ends.with_this(readable=not error):
                names += chunk.names[start:position]
                errors += chunk.errors[start:position]
                parts.append(chunk.images_NHWC[first:image])
                yield names, errors, np.concatenate(parts)
                names, errors, parts, start, first = [], [], [], position, image
        names += chunk.names[start:]
        errors += chunk.errors[start:]
        parts.append(chunk.images_NHWC[first:])
    if names:
        yield names, errors, np.concatenate(parts)


def _answers(names: list[str], errors: list[str], guesses: Iterator[tuple[Guess, ...]]) -> Iterator[Answer]:
    for name, error in zip(names, errors, strict=True):
        yield Answer(name, (), error) if error else Answer(name, next(guesses))


def _guesses(logits_NK: NDArray[np.float32], classes: tuple[str, ...], top_k: int) -> Iterator[tuple[Guess, ...]]:
    probabilities_NK = softmax(logits_NK)
    best_NT = np.argsort(-probabilities_NK, axis=1, kind="stable")[:, :top_k]
    best_probabilities_NT = np.take_along_axis(probabilities_NK, best_NT, axis=1)
    for indices, probabilities in zip(best_NT.tolist(), best_probabilities_NT.tolist(), strict=True):
        yield tuple(Guess(classes[k], k, p) for k, p in zip(indices, probabilities, strict=True))


def softmax(logits_NK: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of the classes, in double precision; each row adds up to 1."""
    shifted_NK = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)
    powers_NK = np.exp(shifted_NK)
    return powers_NK / powers_NK.sum(axis=1, keepdims=True)
