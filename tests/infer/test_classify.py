"""Every entry gets its own answer, in order, for all batch sizes and with unreadable entries in between."""

import csv
import io
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.image_files import saved_images
from PIL import Image
from rtk.core.card import Input
from rtk.core.data import decode
from rtk.core.data.decode import CRASHED, IMAGES_BEFORE_POOL, Decoder, decode_chunk
from rtk.core.data.images import model_image
from rtk.core.data.sources.entry import Entry
from rtk.core.errors import BackendError, DataError
from rtk.infer.classify import Answer, ClassifyConfig, Prediction, classify, columns, log_smaller_batches, softmax
from rtk.infer.fake import FakeBackend
from rtk.infer.output.formats import TEXT_FORMATS
from rtk.infer.output.rows import lines
from rtk.infer.sources import listing as sources

SIZE = Input(6, 6, 3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Entry], list[int | None]]:
    """600 entries, every 7th unreadable, and the class that the fake backend gives each readable one."""
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


@pytest.mark.parametrize(
    ("batch_size", "processes"),
    [
        *((1, 0), (5, 0), (64, 0), (1000, 0), (37, 2), (256, 1)),
        *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in [(1, 1), (101, 3), (13, 4), (255, 7)]),
    ],
)
def test_answers_line_up_with_their_entries(
    corpus: tuple[list[Entry], list[int | None]], batch_size: int, processes: int
) -> None:
    entries, expected = corpus
    assert len(entries) > IMAGES_BEFORE_POOL  # so that processes really start
    with Decoder(SIZE, processes=processes) as decoder:
        answers = list(classify(entries, FakeBackend(size=SIZE), decoder, ClassifyConfig(batch_size=batch_size)))
    assert [answer.file for answer in answers] == [entry.name for entry in entries]
    assert [answer.predictions[0].index if answer.predictions else None for answer in answers] == expected
    assert all(bool(answer.error) != bool(answer.predictions) for answer in answers)


def test_answers_carry_their_entries_only_on_request(corpus: tuple[list[Entry], list[int | None]]) -> None:
    entries = [Entry(entry.name, content=entry.path.read_bytes()) for entry in corpus[0]]
    for processes in (0, 1):
        with Decoder(SIZE, processes=processes) as decoder:
            config = ClassifyConfig(batch_size=37, keep_entries=True)
            answers = list(classify(entries, FakeBackend(size=SIZE), decoder, config))
            assert all(answer.entry is entry for answer, entry in zip(answers, entries, strict=True))
            without = list(classify(entries, FakeBackend(size=SIZE), decoder, ClassifyConfig(batch_size=37)))
            assert without == answers
            assert not any(answer.entry for answer in without)


@pytest.mark.parametrize("unreadable", [0, 1, 4])
def test_unreadable_entries_alone_are_all_reported(tmp_path: Path, unreadable: int) -> None:
    entries = [Entry(str(tmp_path / f"{number}.png")) for number in range(unreadable)]
    with Decoder(SIZE, processes=0) as decoder:
        answers = list(classify(entries, FakeBackend(size=SIZE), decoder, ClassifyConfig(batch_size=2)))
    assert [answer.error for answer in answers] == ["no such file"] * unreadable


@pytest.mark.parametrize("readable_first", [0, 3])
def test_unreadable_entries_are_answered_before_many_more_are_read(readable_first: int) -> None:
    asked = 0

    def endless() -> Iterator[Entry]:
        nonlocal asked
        while True:
            pixels = np.zeros((6, 6, 3), np.uint8)
            yield Entry(f"{asked}.png", content=pixels) if asked < readable_first else Entry(f"{asked}.png", "gone")
            asked += 1

    with Decoder(SIZE, processes=0) as decoder:
        answers = classify(endless(), FakeBackend(size=SIZE), decoder, ClassifyConfig(batch_size=16))
        for number in range(2_000):
            answer = next(answers)
            assert answer.file == f"{number}.png"
            assert bool(answer.predictions) == (number < readable_first)
            assert asked <= number + 4 * 16 + decoder.chunk_images


def test_a_batch_is_never_larger_than_the_backend_allows(corpus: tuple[list[Entry], list[int | None]]) -> None:
    entries, expected = corpus
    backend = FakeBackend(size=SIZE, max_batch=8)
    with Decoder(SIZE, processes=0) as decoder:
        answers = list(classify(entries[:100], backend, decoder, ClassifyConfig(batch_size=64)))
    assert [answer.predictions[0].index if answer.predictions else None for answer in answers] == expected[:100]


def test_batches_that_are_smaller_than_requested_are_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rtk")
    log_smaller_batches(FakeBackend(name="trt", max_batch=1024), 2048)
    (line,) = (" ".join(record.message.split()) for record in caplog.records)
    assert line == (
        "trt: batches of 1,024 images instead of 2,048: the engine was built for no more; to build it for larger ones: "
        "rtk export --trt MODEL --max-batch 2048"
    )
    caplog.clear()
    log_smaller_batches(FakeBackend(max_batch=1024), 1024)
    log_smaller_batches(FakeBackend(), 2048)
    assert not caplog.records


def test_answers_before_a_failure_of_the_backend_are_yielded(corpus: tuple[list[Entry], list[int | None]]) -> None:
    answers = []
    with Decoder(SIZE, processes=0) as decoder, pytest.raises(BackendError, match="failed on purpose"):
        for answer in classify(
            corpus[0], FakeBackend(size=SIZE, fail_at_call=3), decoder, ClassifyConfig(batch_size=10)
        ):
            answers.append(answer)
    assert sum(not answer.error for answer in answers) == 30


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    probabilities = softmax(np.array([[0.0, np.log(3.0), -1000.0]], np.float32))
    np.testing.assert_allclose(probabilities, [[0.25, 0.75, 0.0]], atol=1e-7)


def test_the_logits_are_divided_by_the_temperature() -> None:
    logits_NK = np.array([[0.0, 2 * np.log(3.0), -1000.0], [5.0, 5.0, 5.0]], np.float32)
    np.testing.assert_allclose(
        softmax(logits_NK, temperature=2.0), [[0.25, 0.75, 0.0], [1 / 3] * 3], atol=1e-7
    )  # 3 ** (2 / 2) = 3 times as probable
    assert (softmax(logits_NK, temperature=1.0) == softmax(logits_NK)).all()


def test_without_a_temperature_no_bit_of_a_probability_changes() -> None:
    logits_NK = np.random.default_rng(0).normal(0, 8, (1_000, 10)).astype(np.float32)
    shifted_NK = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)  # as before there was one
    powers_NK = np.exp(shifted_NK)
    assert (softmax(logits_NK) == powers_NK / powers_NK.sum(axis=1, keepdims=True)).all()


@pytest.mark.parametrize("temperature", [0.05, 10.0, 1e300])
def test_a_temperature_changes_probabilities_and_no_answer(
    corpus: tuple[list[Entry], list[int | None]], temperature: float
) -> None:
    plain, scaled = FakeBackend(size=SIZE), FakeBackend(size=SIZE)
    scaled.card = replace(scaled.card, temperature=temperature)
    config = ClassifyConfig(batch_size=10, top_k=3)
    with Decoder(SIZE, processes=0) as decoder:
        before, after = (list(classify(corpus[0], backend, decoder, config)) for backend in (plain, scaled))
    assert [[one.index for one in answer.predictions] for answer in after] == [
        [one.index for one in answer.predictions] for answer in before
    ]
    best = 1 / (1 + 9 * np.exp(-10 / temperature))  # the logits are 10 and nine times 0
    assert [answer.probability for answer in after if not answer.error] == pytest.approx([best] * 514)
    assert before[0].probability == pytest.approx(1 / (1 + 9 * np.exp(-10)))


ANSWERS = [
    Answer("a.png", (Prediction("cat", 3, 0.75), Prediction("dog", 5, 0.125))),
    Answer('b\x1b[31m, "b".png', (), "damaged"),
]


def test_csv_has_a_heading_and_one_row_per_answer() -> None:
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


def test_json_lines_have_the_same_columns_and_null_for_missing_values() -> None:
    rows = [json.loads(line) for line in lines(ANSWERS, "jsonl", top_k=2)]
    assert [list(row) for row in rows] == [columns(2)] * 2
    assert rows[0]["probability"] == 0.75
    assert rows[1]["label"] is None
    assert rows[1]["error"] == "damaged"


def test_names_in_a_table_cannot_steer_the_terminal() -> None:
    text = "".join(lines(ANSWERS, "table", top_k=2))
    assert "\x1b" not in text
    assert "cat   75.00%" in text
    assert "not classified: damaged" in text


def test_a_table_continues_in_the_next_line_after_80_columns() -> None:
    predictions = tuple(Prediction(f"class {k}", k, 0.1) for k in range(5))
    assert list(lines([Answer("photos/a.png", predictions), Answer("b.png", (), "damaged")], "table", top_k=5)) == [
        "photos/a.png  class 0   10.00%  class 1   10.00%  class 2   10.00%\n",
        "              class 3   10.00%  class 4   10.00%\n",
        "b.png         not classified: damaged\n",
    ]
    long = list(lines([Answer("x" * 90, predictions[:2])], "table", top_k=2))
    assert long == [f"{'x' * 90}  class 0   10.00%\n", f"{' ' * 90}  class 1   10.00%\n"]


@pytest.mark.parametrize("format_", TEXT_FORMATS)
def test_a_name_that_is_not_utf8_can_be_written(format_: str) -> None:
    text = "".join(lines([Answer("\udcff.png", (Prediction("cat", 3, 1.0),))], format_, top_k=1))  # type: ignore[arg-type]
    assert text.encode()


# Processes that die.


@pytest.fixture(scope="module")
def pixels_500() -> list[Entry]:
    """500 images of another size than the model's."""
    pixels = np.random.default_rng(3).integers(0, 256, (500, 9, 9, 3), np.uint8)
    return [Entry(f"{number}", content=image) for number, image in enumerate(pixels)]


@pytest.mark.parametrize("victims", [{300}, {290, 291, 499}])
def test_an_image_that_kills_its_process_is_unreadable_and_the_others_are_classified(
    pixels_500: list[Entry], victims: set[int]
) -> None:
    entries = [_killer(entry) if number in victims else entry for number, entry in enumerate(pixels_500)]
    with Decoder(SIZE, processes=2) as decoder:
        answers = list(classify(entries, FakeBackend(size=SIZE), decoder, ClassifyConfig(batch_size=37)))
    assert [answer.file for answer in answers] == [entry.name for entry in entries]
    assert {number for number, answer in enumerate(answers) if answer.error} == victims
    assert {answers[number].error for number in victims} == {CRASHED}
    with Decoder(SIZE, processes=0) as decoder:
        alone = list(classify(pixels_500, FakeBackend(size=SIZE), decoder, ClassifyConfig(batch_size=500)))
    assert [a.predictions for a in answers if not a.error] == [
        a.predictions for n, a in enumerate(alone) if n not in victims
    ]


def test_killing_a_process_loses_no_answer(corpus: tuple[list[Entry], list[int | None]]) -> None:
    entries, expected = corpus
    found: list[int | None] = []
    with Decoder(SIZE, processes=2) as decoder:
        for answer in classify(entries * 4, FakeBackend(size=SIZE), decoder, ClassifyConfig(batch_size=16)):
            found.append(answer.predictions[0].index if answer.predictions else None)
            if len(found) in (700, 1_500):
                next(iter(decoder.start()._processes.values())).kill()  # SIGKILL; no error if it has ended already
    assert found == expected * 4


def test_processes_that_always_die_are_one_clear_error(
    pixels_500: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "MAX_DEATHS", 3)
    entries = [_killer(entry) for entry in pixels_500[:40]]
    with Decoder(SIZE, processes=1) as decoder, pytest.raises(DataError, match="4 processes died while decoding"):
        decoder.start()
        list(decoder.chunks(entries))


def test_a_name_in_that_error_cannot_steer_a_terminal(pixels_500: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_DEATHS", 0)
    entry = Entry("\x1b[2J.png", content=_killer(pixels_500[0]).content)
    with Decoder(SIZE, processes=1) as decoder, pytest.raises(DataError, match=r"^'\\x1b\[2J\.png': 1 processes"):
        decoder.start()
        list(decoder.chunks([entry]))


def test_decoding_processes_end_when_their_parent_is_killed(in_new_process: Callable[[str], str]) -> None:
    printed = in_new_process(
        "import os, time, signal, numpy as np, subprocess, sys\n"
        "code = '''\n"
        "from rtk.core.card import Input\n"
        "from rtk.core.data.decode import Decoder, decode_chunk\n"
        'if __name__ == "__main__":\n'
        "    decoder = Decoder(Input(6, 6, 3), processes=2)\n"
        "    pool = decoder.start()\n"
        "    [f.result() for f in [pool.submit(decode_chunk, [], decoder.reading.size) for _ in range(8)]]\n"
        "    print(*pool._processes, flush=True)\n"
        "    input()\n"
        "'''\n"
        "parent = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "children = [int(pid) for pid in parent.stdout.readline().split()]\n"
        "assert children\n"
        "parent.kill(); parent.wait(); parent.stdin.close(); parent.stdout.close()\n"
        "def state(pid):\n"
        "    try: return open(f'/proc/{pid}/stat').read().split()[2]\n"
        "    except OSError: return 'gone'\n"
        "ended = lambda: all(state(pid) in ('gone', 'Z') for pid in children)\n"
        "deadline = time.monotonic() + 120\n"
        "while not ended() and time.monotonic() < deadline: time.sleep(0.05)\n"
        "print(ended())"
    )
    assert printed.strip() == "True"


class _Killing(np.ndarray):
    """Pixels that kill a process other than this one when they are unpickled there."""

    def __reduce__(self) -> tuple[object, ...]:
        return _kill_unless, (os.getpid(), np.asarray(self).tolist())


def _kill_unless(parent: int, pixels: list[object]) -> np.ndarray:
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.array(pixels, np.uint8)


def _killer(entry: Entry) -> Entry:
    assert isinstance(entry.content, np.ndarray)
    return Entry(entry.name, content=entry.content.view(_Killing))


def test_the_pool_starts_early_for_large_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "BEFORE_POOL_S", 0.0)
    entries = [Entry(f"{n}", content=np.full((9, 9, 3), n, np.uint8)) for n in range(100)]
    with Decoder(SIZE, processes=1) as decoder:
        assert [len(chunk.names) for chunk in decoder.chunks(entries)] == [32, 68]
        assert decoder._pool is not None


def test_pixels_of_the_model_size_need_no_process() -> None:
    entries = [Entry(f"{n}", content=np.full((6, 6, 3), n % 256, np.uint8)) for n in range(600)]
    with Decoder(SIZE, processes=2) as decoder:
        chunks = list(decoder.chunks(entries))
        assert decoder._pool is None
    np.testing.assert_array_equal(np.concatenate([c.images_NHWC for c in chunks])[:, 0, 0, 0], np.arange(600) % 256)


def test_entries_with_large_contents_go_in_smaller_chunks() -> None:
    entries = [Entry(f"{n}", content=bytes(3 << 20)) for n in range(6)]
    with Decoder(SIZE, processes=0) as decoder:
        assert [len(chunk.names) for chunk in decoder.chunks(entries)] == [2, 2, 2]


def test_letterbox_keeps_the_whole_image_and_crop_cuts_the_edges() -> None:
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, :4, 0], wide[:, 8:, 2] = 240, 240
    (boxed,) = decode_chunk([Entry("wide", content=wide)], SIZE, "letterbox").images_NHWC
    (cropped,) = decode_chunk([Entry("wide", content=wide)], SIZE).images_NHWC
    assert boxed[:2].max() == boxed[4:].max() == 0
    assert boxed[2, 0].tolist() == [240, 0, 0]
    assert boxed[2, -1].tolist() == [0, 0, 240]
    assert cropped[0, 2].max() == 0


# All image formats, and malicious files.


def _malicious(folder: Path, good: bytes) -> dict[str, str]:
    """Write files that cannot be read, and return their names with a part of the reason."""
    reasons: dict[str, str] = {}
    for percent in range(0, 100, 5):
        (folder / f"cut{percent}.png").write_bytes(good[: len(good) * percent // 100])
        reasons[f"cut{percent}.png"] = ""
    for name, content in {
        "text.png": b"hello",
        "magic.jpg": b"\xff\xd8\xff" + bytes(500),
        "zeros.gif": bytes(999),
    }.items():
        (folder / name).write_bytes(content)
        reasons[name] = ""
    Image.new("1", (9_000, 9_000)).save(folder / "bomb.png")
    Image.new("1", (1, 100_000)).save(folder / "thin.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "self.png").symlink_to("self.png")
    (folder / "memory.png").symlink_to("/proc/self/mem")
    reasons |= {"bomb.png": "pixels", "thin.png": "too long and thin", "pipe.png": "not a regular file"}
    return reasons | {"device.png": "not a regular file", "self.png": "cannot be read", "memory.png": "cannot be read"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Pillow leaves unreadable files open
@pytest.mark.parametrize("processes", [0, 2])
def test_every_mode_and_format_is_read_and_malicious_files_are_refused(tmp_path: Path, processes: int) -> None:
    good_paths = saved_images(tmp_path)
    assert len(good_paths) > 80
    reasons = _malicious(tmp_path, (tmp_path / "RGB.png").read_bytes())
    for name in ("two\nlines.png", "\U0001f600.png", "\udcff.png", "-rf.png", "=1+1.png", "\x1b[2J.png"):
        (tmp_path / name).write_bytes((tmp_path / "RGB.png").read_bytes())
        good_paths.append(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "within.png").write_bytes((tmp_path / "L.png").read_bytes())
    (tmp_path / "folder.png" / "round").symlink_to(tmp_path)
    good = {str(path): model_image(path, SIZE).sum(dtype=int) % 10 for path in good_paths}
    entries = [*map(Entry, good), *(Entry(str(tmp_path / name)) for name in reasons)]
    entries += sources.entries([str(tmp_path / "folder.png")])
    np.random.default_rng(0).shuffle(entries)  # type: ignore[arg-type]
    with Decoder(SIZE, processes=processes) as decoder:
        if processes:
            decoder.start()
        answers = list(classify(entries, FakeBackend(size=SIZE), decoder, ClassifyConfig(batch_size=7)))
    assert [answer.file for answer in answers] == [entry.name for entry in entries]
    for answer in answers:
        if answer.file in good:
            assert not answer.error, answer
            assert answer.predictions[0].index == good[answer.file]
    found = {Path(answer.file).name: answer.error for answer in answers if answer.error}
    assert {name for name in reasons if not name.startswith("cut")} <= set(found)
    assert set(found) <= set(reasons)  # Pillow reads a PNG without its last bytes
    assert len(found) >= len(reasons) - 1
    for name, error in found.items():
        assert reasons[name] in error
    assert any(answer.file.endswith("within.png") and answer.predictions for answer in answers)


@pytest.mark.slow
def test_a_hundred_thousand_damaged_images_are_classified_or_reported(tmp_path: Path) -> None:
    seeds = [path.read_bytes() for path in saved_images(tmp_path) if path.stat().st_size < 20_000]
    dice = random.Random(11)

    def damaged() -> Iterator[Entry]:
        for number in range(100_000):
            content = bytearray(dice.choice(seeds))
            for _ in range(dice.choice([1, 1, 2, 4, 30])):
                content[dice.randrange(min(len(content), dice.choice([40, 300, len(content)])))] = dice.randrange(256)
            yield Entry(
                f"{number}", content=bytes(content[: dice.choice([len(content)] * 4 + [dice.randrange(len(content))])])
            )

    with Decoder(SIZE) as decoder:
        answers = classify(damaged(), FakeBackend(size=SIZE), decoder)
        unreadable = 0
        for number, answer in enumerate(answers):
            assert answer.file == str(number)
            assert bool(answer.error) != bool(answer.predictions)
            assert answer.error != CRASHED
            unreadable += bool(answer.error)
    assert number == 99_999
    assert 1_000 < unreadable < 99_000
