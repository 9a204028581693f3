"""Every entry gets its own answer, in order, whatever the batch size and whatever is unreadable in between."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rtk.core.card import Input
from rtk.core.errors import BackendError
from rtk.infer.backend import FakeBackend
from rtk.infer.classify import Answer, ClassifyConfig, Guess, classify, softmax
from rtk.infer.decode import AT_ONCE, Decoder
from rtk.infer.formats import TEXT_FORMATS
from rtk.infer.output import columns, lines
from rtk.infer.sources import Entry

SIZE = Input(6, 6, 3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Entry], list[int | None]]:
    """600 entries, every 7th unreadable, and the class that the fake must give each of the others."""
    folder, random = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    entries: list[Entry] = []
    expected: list[int | None] = []
    for number in range(600):
        path = folder / f"{number:03}.png"
        if number % 7 == 3:
            path.write_bytes(b"\x89PNG broken")
            expected.append(None)
        else:
            pixels = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            expected.append(int(pixels.sum(dtype=np.int64)) % 10)
        entries.append(Entry(str(path)))
    return entries, expected


@pytest.mark.parametrize(("batch_size", "processes"), [(1, 0), (5, 0), (64, 0), (1000, 0), (37, 2), (256, 1)])
def test_answers_line_up_with_their_entries(
    corpus: tuple[list[Entry], list[int | None]], batch_size: int, processes: int
) -> None:
    entries, expected = corpus
    assert len(entries) > AT_ONCE  # so that processes are really started
    with Decoder(SIZE, processes=processes) as decoder:
        answers = list(classify(entries, FakeBackend(size=SIZE), decoder, ClassifyConfig(batch_size=batch_size)))
    assert [answer.file for answer in answers] == [entry.name for entry in entries]
    assert [answer.guesses[0].index if answer.guesses else None for answer in answers] == expected
    assert all(bool(answer.error) != bool(answer.guesses) for answer in answers)


@pytest.mark.parametrize("unreadable", [0, 1, 4])
def test_entries_that_are_all_unreadable_are_all_named(tmp_path: Path, unreadable: int) -> None:
    entries = [Entry(str(tmp_path / f"{number}.png")) for number in range(unreadable)]
    with Decoder(SIZE, processes=0) as decoder:
        answers = list(classify(entries, FakeBackend(size=SIZE), decoder, ClassifyConfig(batch_size=2)))
    assert [answer.error for answer in answers] == ["no such file"] * unreadable


def test_a_batch_is_never_larger_than_the_backend_takes(corpus: tuple[list[Entry], list[int | None]]) -> None:
    entries, expected = corpus
    backend = FakeBackend(size=SIZE, max_batch=8)
    with Decoder(SIZE, processes=0) as decoder:
        answers = list(classify(entries[:100], backend, decoder, ClassifyConfig(batch_size=64)))
    assert [answer.guesses[0].index if answer.guesses else None for answer in answers] == expected[:100]


def test_answers_before_a_failure_of_the_backend_are_given(corpus: tuple[list[Entry], list[int | None]]) -> None:
    answers = []
    with Decoder(SIZE, processes=0) as decoder, pytest.raises(BackendError, match="failed on purpose"):
        for answer in classify(
            corpus[0], FakeBackend(size=SIZE, fail_at_call=3), decoder, ClassifyConfig(batch_size=10)
        ):
            answers.append(answer)
    assert sum(not answer.error for answer in answers) == 30


def test_guesses_are_sorted_and_their_probabilities_are_softmax() -> None:
    probabilities = softmax(np.array([[0.0, np.log(3.0), -1000.0]], np.float32))
    np.testing.assert_allclose(probabilities, [[0.25, 0.75, 0.0]], atol=1e-7)


ANSWERS = [
    Answer("a.png", (Guess("cat", 3, 0.75), Guess("dog", 5, 0.125))),
    Answer('b\x1b[31m, "b".png', (), "damaged"),
]


def test_csv_has_a_heading_and_one_row_an_answer() -> None:
    rows = list(csv.DictReader(io.StringIO("".join(lines(ANSWERS, "csv", top_k=2)))))
    assert list(rows[0]) == ["file", "label", "index", "probability", "error", "label_2", "index_2", "probability_2"]
    assert rows[0] == {
        "file": "a.png",
        "label": "cat",
        "index": "3",
        "probability": "0.75",
        "error": "",
        "label_2": "dog",
        "index_2": "5",
        "probability_2": "0.125",
    }
    assert rows[1]["file"] == 'b\\x1b[31m, "b".png'
    assert rows[1]["error"] == "damaged"
    assert rows[1]["label"] == ""


def test_json_lines_have_the_same_columns_and_null_where_there_is_nothing() -> None:
    rows = [json.loads(line) for line in lines(ANSWERS, "jsonl", top_k=2)]
    assert [list(row) for row in rows] == [columns(2)] * 2
    assert rows[0]["probability"] == 0.75
    assert rows[1]["label"] is None
    assert rows[1]["error"] == "damaged"


def test_a_table_shows_names_without_letting_them_steer_the_terminal() -> None:
    text = "".join(lines(ANSWERS, "table", top_k=2))
    assert "\x1b" not in text
    assert "cat   75.00%" in text
    assert "not classified: damaged" in text


@pytest.mark.parametrize("format_", TEXT_FORMATS)
def test_a_name_that_is_no_utf8_can_be_written(format_: str) -> None:
    text = "".join(lines([Answer("\udcff.png", (Guess("cat", 3, 1.0),))], format_, top_k=1))  # type: ignore[arg-type]
    assert text.encode()
