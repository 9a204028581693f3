"""Damaged files: each one is classified or reported as unreadable, and the images next to it are classified."""

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fakes.image_files import saved_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rtk.core.card import Input
from rtk.core.data.decode import Decoder, decode_chunk
from rtk.core.data.sources.entry import Entry
from rtk.infer.classify import ClassifyConfig, classify
from rtk.infer.fake import FakeBackend

SIZE = Input(6, 6, 3)
NEIGHBOUR = np.arange(108, dtype=np.uint8).reshape(6, 6, 3)
INPUTS_PER_FORMAT, FILES_PER_INPUT = 10_000, 4
FORMATS = ["png", "jpeg", "gif", "tiff", "webp", "bmp", "ppm", "tga", "ico", "others"]
SLOW_S = 20.0
"""Far more than the largest allowed image needs on a busy machine."""
SMALL_BYTES = 20_000

# Derandomised: every run tries the same inputs. No deadline per example: the machine may be busy.
EVERY_TIME = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """Small image files of every mode, by format."""
    found: dict[str, list[bytes]] = {format_: [] for format_ in FORMATS}
    for path in saved_images(tmp_path_factory.mktemp("seeds")):
        if path.stat().st_size < SMALL_BYTES:
            found.get(path.suffix[1:], found["others"]).append(path.read_bytes())
    assert all(found.values())
    return found


def damaged(content: bytes, program: bytes) -> bytes:
    """The content after the steps of a program, three bytes per step: changed bytes, cuts, repetitions."""
    result = bytearray(content)
    for high, low, value in zip(program[::3], program[1::3], program[2::3], strict=False):
        span = min(len(result), 300) if high & 1 else len(result)
        if not span:
            break
        place = (high << 8 | low) % span
        match high >> 1 & 7:
            case 0:
                del result[place:]
            case 1:
                result[place:place] = result[place : place + value]
            case 2:
                del result[place : place + value]
            case _:
                result[place] = value
    return bytes(result)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Pillow leaves unreadable files open
@pytest.mark.parametrize("format_", FORMATS)
def test_ten_thousand_damaged_files_of_a_format(seeds: dict[str, list[bytes]], format_: str) -> None:
    outcomes: Counter[bool] = Counter()
    files = seeds[format_]

    @settings(EVERY_TIME, max_examples=INPUTS_PER_FORMAT // FILES_PER_INPUT)
    @given(which=st.integers(0, 255), program=st.binary(min_size=3, max_size=24))
    def try_files(which: int, program: bytes) -> None:
        chosen = [(which + number) % len(files) for number in range(FILES_PER_INPUT)]
        entries = [Entry(f"file {number}", content=damaged(files[number], program)) for number in chosen]
        started_at = time.process_time()  # other work on the machine does not count
        chunk = decode_chunk([*entries, Entry("neighbour", content=NEIGHBOUR)], SIZE)
        assert time.process_time() - started_at < SLOW_S
        assert chunk.names == [*(entry.name for entry in entries), "neighbour"]
        assert all(error.isprintable() for error in chunk.errors)
        assert len(chunk.images_NHWC) == chunk.errors.count("")
        assert chunk.errors[-1] == ""
        assert np.array_equal(chunk.images_NHWC[-1], NEIGHBOUR)
        outcomes.update(not error for error in chunk.errors[:-1])

    try_files()
    assert outcomes.total() >= INPUTS_PER_FORMAT
    assert min(outcomes[True], outcomes[False]) > INPUTS_PER_FORMAT / 100, outcomes


def batches_with_images(readable: list[bool], size: int) -> int:
    """How many batches have an image, if each ends after `size` images or 4 x `size` entries."""
    batches, rest = 0, readable
    while rest:
        ends = (count for count in range(1, len(rest)) if sum(rest[:count]) == size or count == 4 * size)
        end = next(ends, len(rest))
        batches += any(rest[:end])
        rest = rest[end:]
    return batches


@settings(EVERY_TIME, max_examples=300)
@given(
    readable=st.lists(st.booleans(), max_size=70),
    batch_size=st.integers(1, 20),
    largest_batch=st.none() | st.integers(1, 20),
    chunk=st.integers(1, 9),
)
def test_answers_line_up_for_all_sizes_of_batches_and_chunks(
    readable: list[bool], batch_size: int, largest_batch: int | None, chunk: int
) -> None:
    entries = [
        Entry(f"{number}", content=np.full((6, 6, 3), number, np.uint8)) if good else Entry(f"{number}", "bad")
        for number, good in enumerate(readable)
    ]
    with Decoder(SIZE, processes=0) as decoder:
        decoder.chunk_images = chunk
        backend = FakeBackend(size=SIZE, max_batch=largest_batch)
        answers = list(classify(entries, backend, decoder, ClassifyConfig(batch_size)))
    assert [answer.file for answer in answers] == [entry.name for entry in entries]
    assert [answer.error for answer in answers] == [entry.error for entry in entries]
    classes = [answer.predictions[0].index if answer.predictions else None for answer in answers]
    assert classes == [108 * number % 10 if good else None for number, good in enumerate(readable)]
    size = min(batch_size, largest_batch or batch_size)
    assert backend.calls == batches_with_images(readable, size)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_files_of_every_mode_and_format_truncated_at_any_length(seeds: dict[str, list[bytes]], tmp_path: Path) -> None:
    whole, unreadable = 0, 0
    for content in (content for format_ in FORMATS for content in seeds[format_]):
        cuts = [content[: len(content) * percent // 100] for percent in range(0, 101, 5)]
        chunk = decode_chunk([Entry(f"{number}", content=cut) for number, cut in enumerate(cuts)], SIZE)
        assert len(chunk.images_NHWC) == chunk.errors.count("")
        assert chunk.errors[0] == "empty file"
        assert chunk.errors[-1] == ""
        whole += 1
        unreadable += sum(map(bool, chunk.errors))
    assert whole > 60
    assert unreadable > 10 * whole  # formats without a length accept truncated files
