"""Several threads and one backend: a stream overlaps, and neither an open stream nor a slow source stops others."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from rtk import api
from rtk.api.shared import SharedBackend
from rtk.core.data.decode import Decoder
from rtk.core.errors import BackendError
from rtk.infer.fake import FakeBackend

IN_FLIGHT = 3
BATCH = np.zeros((2, 32, 32, 3), np.uint8)


class Overlapping(FakeBackend):
    """A fake that keeps three batches of a stream in flight, as TensorRT does, and counts; one thread at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.most_in_flight = self.streams = self.inside = 0
        self.streaming = False

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.inside += 1
        time.sleep(0.0005)
        assert self.inside == 1, "two threads at a time"
        answer = super()._run(images_NHWC)
        self.inside -= 1
        return answer

    def _stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        assert not self.streaming, "two streams at a time"
        self.streaming, waiting = True, deque[NDArray[np.uint8]]()
        self.streams += 1
        try:
            for images_NHWC in batches:
                waiting.append(images_NHWC)
                self.most_in_flight = max(self.most_in_flight, len(waiting))
                if len(waiting) == IN_FLIGHT:
                    yield self._run(waiting.popleft())
            while waiting:
                yield self._run(waiting.popleft())
        finally:
            self.streaming = False


def in_time(function: object) -> None:
    """Run a function in a thread; fail if it does not end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits for ever"
    if errors:
        raise errors[0]


def test_classifying_overlaps_batches_of_a_backend_that_can() -> None:
    backend = Overlapping()
    with api.Model(backend, Decoder(backend.card.input, processes=0)) as model:
        assert len(model.classify(np.zeros((20, 32, 32, 3), np.uint8), batch_size=2)) == 20
    assert (backend.streams, backend.most_in_flight) == (1, IN_FLIGHT)


def test_a_stream_that_nobody_reads_on_stops_no_other_thread() -> None:
    backend = Overlapping()
    model = api.Model(backend, Decoder(backend.card.input, processes=0))
    half = model.stream((BATCH[0] for _ in range(100)), batch_size=1)
    next(half)
    in_time(lambda: model.classify(BATCH))
    in_time(lambda: model.logits(BATCH))
    assert backend.streams == 1  # the other calls ran batch by batch
    assert len(list(half)) == 99
    assert len(model.classify(BATCH)) == 2
    assert backend.streams == 2
    last = model.stream((BATCH[0] for _ in range(100)), batch_size=1)
    next(last)
    in_time(model.close)
    with pytest.raises(BackendError, match="the model is closed"):
        next(last)


def test_a_source_may_use_the_model_and_wait_for_a_thread_that_uses_it() -> None:
    backend = Overlapping()
    model = api.Model(backend, Decoder(backend.card.input, processes=0))

    def images() -> Iterator[np.ndarray]:
        for _ in range(6):
            in_time(lambda: model.classify(BATCH))
            model(BATCH[0])
            yield BATCH[0]

    in_time(lambda: model.classify(images(), batch_size=1))


def test_threads_that_stream_at_the_same_time_get_their_own_answers() -> None:
    backend = Overlapping()
    model = api.Model(backend, Decoder(backend.card.input, processes=0))
    images = np.random.default_rng(3).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    labels = [f"class {int(one.astype(int).sum()) % 10}" for one in images]
    wrong: list[int] = []

    def ask(seed: int) -> None:
        chosen = np.random.default_rng(seed).integers(0, 64, 30)
        answers = model.classify((images[k] for k in chosen), batch_size=2)
        wrong.extend([seed] * ([answer.label for answer in answers] != [labels[k] for k in chosen]))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []


def test_the_error_of_a_source_comes_as_it_is_and_the_stream_is_free_again() -> None:
    backend = Overlapping()
    shared = SharedBackend(backend)

    def batches() -> Iterator[NDArray[np.uint8]]:
        yield BATCH
        raise KeyError("of the source")

    with pytest.raises(KeyError, match="of the source"):
        list(shared.stream(batches()))
    assert len(list(shared.stream([BATCH] * 5))) == 5
    assert backend.streams == 2
    in_time(lambda: shared(BATCH))


def test_closing_in_the_middle_of_a_stream_is_an_error_of_the_stream() -> None:
    shared = SharedBackend(Overlapping())

    def batches() -> Iterator[NDArray[np.uint8]]:
        for number in range(10):
            if number == 5:
                in_time(shared.close)
            yield BATCH

    with pytest.raises(BackendError, match="the model is closed"):
        list(shared.stream(batches()))


def test_a_half_read_stream_with_processes_lets_others_decode_here_and_close() -> None:
    backend = FakeBackend()
    decoder = Decoder(backend.card.input, processes=1)
    model = api.Model(backend, decoder)
    half = model.stream((np.zeros((8, 8, 3), np.uint8) for _ in range(2_000)), batch_size=8)
    for _ in range(600):
        next(half)
    assert decoder.process_ids
    in_time(lambda: model.classify(np.zeros((40, 8, 8, 3), np.uint8)))
    in_time(model.close)
    assert decoder.process_ids == []
    with pytest.raises(BackendError, match="the model is closed"):
        next(half)
    assert decoder.process_ids == []
