"""Output of answers: safe text, files that can be resumed, and folders of sorted images."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fakes.log import logged
from PIL import Image
from rtk.core.card import Input
from rtk.core.data.decode import Decoder
from rtk.core.data.sources.entry import Entry
from rtk.core.data.synthetic_shapes import draw_shapes
from rtk.core.errors import BackendError, DataError, OutputError, UsageError
from rtk.infer.classify import Answer, ClassifyConfig, Prediction, classify
from rtk.infer.fake import FakeBackend
from rtk.infer.output.formats import TEXT_FORMATS, Format, RowFormat, TextFormat
from rtk.infer.output.resumable import ResumableOutput, RunKey
from rtk.infer.output.rows import file_of_line, file_text, lines
from rtk.infer.output.sort import Sorter, folder_names

CAT = (Prediction("cat", 3, 0.75),)
SIZE = Input(6, 6, 3)
HOSTILE = [
    "=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", " =1", "\t=1", "\r=1", "\uff1d1", "new\nline.png", "\x1b[31mred",
    "\x9b31m", "del\x7f", "\u202egnp.exe", "\U0001f600", "\udcff.png",
    'a,"b".png', "\x00", "", "'", "\u2028", "plain.png",
]  # fmt: skip


# Names that could do harm.


@pytest.mark.parametrize("format_", TEXT_FORMATS)
def test_every_name_and_label_is_one_printable_line(format_: TextFormat) -> None:
    answers = [Answer(name, (Prediction(name, 3, 0.5),)) for name in HOSTILE]
    text = list(lines(answers, format_, top_k=1, with_heading=False))
    assert len(text) == len(HOSTILE)
    for line in text:
        assert line.endswith("\n")
        assert line[:-1].replace("\t", " " if format_ == "tsv" else "\t").isprintable()
        assert line.encode()


def test_no_csv_cell_begins_like_a_formula() -> None:
    text = "".join(
        lines([Answer(name, (Prediction(name, 3, 0.5),)) for name in HOSTILE], "csv", top_k=1, with_heading=False)
    )
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == len(HOSTILE)
    assert not [cell for row in rows for cell in row if cell.strip().startswith(("=", "+", "-", "@", "\uff1d"))]
    assert rows[0][0] == "'=cmd|' /C calc'!A0"
    assert rows[-1] == ["plain.png", "plain.png", "3", "0.5", ""]


def test_json_lines_restore_every_name_that_is_text() -> None:
    rows = [json.loads(line) for line in lines([Answer(name, CAT) for name in HOSTILE], "jsonl", top_k=1)]
    for name, row in zip(HOSTILE, rows, strict=True):
        assert row["file"] == ("\\xff.png" if name == "\udcff.png" else name)


@pytest.mark.parametrize("format_", ["csv", "tsv", "jsonl"])
def test_the_file_name_can_be_read_back_from_a_line(format_: RowFormat) -> None:
    for name in HOSTILE:
        for answer in (Answer(name, CAT), Answer(name, (), "damaged")):
            (line,) = lines([answer], format_, top_k=2, with_heading=False)
            assert file_of_line(line, format_) == (file_text(name, format_), bool(answer.error))
    for damaged in ("", "\0\0\0", '{"file": 3', '"unclosed', "[]"):
        with pytest.raises(ValueError):
            file_of_line(damaged, format_)


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_an_error_of_an_input_is_not_blamed_on_a_resumable_output(tmp_path: Path, format_: Format) -> None:
    def entries_with_a_failure() -> Iterator[Entry]:
        yield Entry("a.png")
        raise OSError(5, "Input/output error", "images.tar")

    def answers_with_a_failure() -> Iterator[Answer]:
        yield Answer("a.png", CAT)
        raise OSError(5, "Input/output error", "images.tar")

    key = RunKey("m", "b", format_, top_k=1, batch_size=4, fit="crop")
    for resume in (False, True):
        with (
            pytest.raises(OSError, match="'images.tar'") as caught,
            ResumableOutput(tmp_path / "out", key, resume=resume) as output,
        ):
            list(output.remaining(entries_with_a_failure()))
        assert not isinstance(caught.value, OutputError)
        with (
            pytest.raises(OSError, match="'images.tar'"),
            ResumableOutput(tmp_path / "out", key, resume=resume) as output,
        ):
            output.write(answers_with_a_failure())


def test_a_table_shows_the_answers_before_a_failure() -> None:
    def failing() -> Iterator[Answer]:
        yield Answer("a.png", CAT)
        raise KeyboardInterrupt

    shown: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        shown.extend(lines(failing(), "table", top_k=1))
    assert shown == ["a.png  cat   75.00%\n"]


# Resuming.


@pytest.fixture
def photos(tmp_path: Path) -> list[Entry]:
    """60 images, every 7th unreadable."""
    dice = np.random.default_rng(0)
    found = []
    (tmp_path / "in").mkdir()
    for number in range(60):
        path = tmp_path / "in" / f"{number:02}.png"
        if number % 7 == 2:
            path.write_bytes(b"broken")
        else:
            Image.fromarray(dice.integers(0, 256, (6, 6, 3), np.uint8)).save(path)
        found.append(Entry(str(path)))
    return found


def run(
    target: Path,
    photos: list[Entry],
    *,
    format_: Format = "csv",
    resume: bool = False,
    fail_at_call: int | None = None,
    batch_size: int = 8,
) -> FakeBackend:
    """Classify the photos into the target, and return the backend."""
    key = RunKey("fake", "fake", format_, 2, batch_size, "crop")
    backend = FakeBackend(size=SIZE, fail_at_call=fail_at_call)
    with Decoder(SIZE, processes=0) as decoder, ResumableOutput(target, key, resume=resume) as output:
        if not output.is_finished:
            config = ClassifyConfig(batch_size=batch_size, top_k=2)
            output.write(output.new(classify(output.remaining(photos), backend, decoder, config)))
            output.finish()
    return backend


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_a_failed_run_resumes_at_its_last_batch(tmp_path: Path, photos: list[Entry], format_: Format) -> None:
    run(tmp_path / "whole", photos, format_=format_)
    messages: list[str] = []
    with pytest.raises(BackendError):
        logged(messages.append, run, tmp_path / "a", photos, format_=format_, fail_at_call=3)
    assert messages == [f"28 answers are in {tmp_path}/a.part; to resume, run the same command with --resume"]
    assert not (tmp_path / "a").exists()
    again = run(tmp_path / "a", photos, format_=format_, resume=True)
    assert again.calls == 4  # of 7 batches: 51 images in batches of 8
    assert (tmp_path / "a").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "in", "whole"]


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_a_file_cut_at_any_byte_is_resumed_to_the_same_content(
    tmp_path: Path, photos: list[Entry], format_: Format
) -> None:
    run(tmp_path / "whole", photos, format_=format_)
    whole = (tmp_path / "whole").read_bytes()
    with pytest.raises(BackendError):
        run(tmp_path / "a", photos, format_=format_, fail_at_call=1)
    about = (tmp_path / "a.part.json").read_bytes()
    for cut in [0, 1, *range(5, len(whole), 211), len(whole) - 1, len(whole)]:
        (tmp_path / "a").unlink(missing_ok=True)
        (tmp_path / "a.part").write_bytes(whole[:cut])
        (tmp_path / "a.part.json").write_bytes(about)
        run(tmp_path / "a", photos, format_=format_, resume=True)
        assert (tmp_path / "a").read_bytes() == whole, cut


def test_a_resumed_run_has_the_batches_of_an_uninterrupted_run(tmp_path: Path, photos: list[Entry]) -> None:
    with pytest.raises(BackendError):
        run(tmp_path / "a.csv", photos, fail_at_call=2)
    part = tmp_path / "a.csv.part"
    part.write_text("".join(part.read_text().splitlines(keepends=True)[:-3]))
    sizes: list[int] = []

    class Watched(FakeBackend):
        def _run(self, images_NHWC: np.ndarray) -> np.ndarray:
            sizes.append(len(images_NHWC))
            return super()._run(images_NHWC)

    with Decoder(SIZE, processes=0) as decoder:
        key = RunKey("fake", "fake", "csv", 2, 8, "crop")
        with ResumableOutput(tmp_path / "a.csv", key, resume=True) as output:
            remaining = output.remaining(photos)
            output.write(output.new(classify(remaining, Watched(size=SIZE), decoder, ClassifyConfig(8, 2))))
            output.finish()
    assert sizes == [8, 8, 8, 8, 8, 3]  # the second batch again, because its last rows are missing


def test_batches_with_few_readable_images_end_at_the_same_entries(tmp_path: Path, photos: list[Entry]) -> None:
    rare = [one if k % 20 == 0 else Entry(f"{k}.png", "gone") for k, one in enumerate(photos)]
    run(tmp_path / "whole.csv", rare, batch_size=4)
    with pytest.raises(BackendError):
        run(tmp_path / "a.csv", rare, batch_size=4, fail_at_call=1)
    assert (tmp_path / "a.csv.part").read_text().count("\n") == 1 + 16  # the heading and four times the batch
    again = run(tmp_path / "a.csv", rare, batch_size=4, resume=True)
    assert again.calls == 2
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_only_one_process_at_a_time_writes_a_file(tmp_path: Path, photos: list[Entry]) -> None:
    key = RunKey("fake", "fake", "csv", 2, 8, "crop")
    with pytest.raises(BackendError):
        run(tmp_path / "a.csv", photos, fail_at_call=2)
    with ResumableOutput(tmp_path / "a.csv", key, resume=True):
        for resume in (True, False):
            with pytest.raises(OutputError, match=r"a\.csv\.part\.json: another process writes there; wait for it"):
                run(tmp_path / "a.csv", photos, resume=resume)
        run(tmp_path / "b.csv", photos)
    run(tmp_path / "a.csv", photos, resume=True)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "b.csv", "in"]


def test_rows_reach_the_file_even_if_no_more_rows_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtk.infer.output.resumable.FLUSH_S", 0.02)
    part = tmp_path / "a.csv.part"

    def slow() -> Iterator[Answer]:
        for number in range(3):
            yield Answer(f"{number}.png", CAT)
        deadline = time.monotonic() + 120
        while part.read_text().count("\n") < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert part.read_text().count("\n") == 4

    with ResumableOutput(tmp_path / "a.csv", RunKey("f", "f", "csv", 1, 8, "crop"), resume=False) as output:
        output.write(slow())
        output.finish()


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, photos: list[Entry]) -> None:
    run(tmp_path / "a.csv", photos)
    assert run(tmp_path / "a.csv", photos, resume=True).calls == 0


def test_without_resume_a_run_starts_again(tmp_path: Path, photos: list[Entry]) -> None:
    with pytest.raises(BackendError):
        run(tmp_path / "a.csv", photos, fail_at_call=2)
    assert run(tmp_path / "a.csv", photos).calls == 7


def test_a_run_with_other_images_or_options_is_not_resumed(tmp_path: Path, photos: list[Entry]) -> None:
    with pytest.raises(BackendError):
        run(tmp_path / "a.csv", photos, fail_at_call=2)
    before = (tmp_path / "a.csv.part").read_bytes()
    with pytest.raises(UsageError, match=r"a.csv.part: was started with batch size 8, not 9; start again"):
        run(tmp_path / "a.csv", photos, resume=True, batch_size=9)
    with pytest.raises(UsageError, match=r"line 6 is about .*04.png, but the sources now have .*05.png there"):
        run(tmp_path / "a.csv", photos[:4] + photos[5:], resume=True)
    with pytest.raises(UsageError, match="the sources now have no image there"):
        run(tmp_path / "a.csv", photos[:3], resume=True)
    assert (tmp_path / "a.csv.part").read_bytes() == before
    (tmp_path / "a.csv.part").write_bytes(before[:200] + bytes(50) + b"\n" + before[200:])
    with pytest.raises(UsageError, match="start again without --resume"):
        run(tmp_path / "a.csv", photos, resume=True)


def test_a_full_disk_is_an_output_error(tmp_path: Path, photos: list[Entry]) -> None:
    (tmp_path / "full.csv.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="full.csv"):
        key = RunKey("fake", "fake", "csv", 1, 8, "crop")
        with ResumableOutput(tmp_path / "full.csv", key, resume=False) as output:
            (tmp_path / "full.csv.part").unlink()
            (tmp_path / "full.csv.part").symlink_to("/dev/full")
            output.write(Answer(entry.name, CAT) for entry in photos)


def test_parquet_columns_have_types(tmp_path: Path, photos: list[Entry]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run(tmp_path / "a.parquet", photos, format_="parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    types = ["string", "string", "int32", "double", "string", "string", "int32", "double"]
    assert [str(field.type) for field in table.schema] == types
    assert table.column_names[:5] == ["file", "label", "index", "probability", "error"]
    assert table["file"].to_pylist() == [entry.name for entry in photos]
    assert table["error"].null_count == 51


# The command.


@pytest.fixture
def rtk(graph_path: Path, command_line: Callable[..., tuple[str, str]]) -> Callable[..., str]:
    """Run rtk classify in tmp_path and return its standard error: rtk("in", "-o", "a.csv", code=3)."""

    def classify_(*words: str, code: int = 0) -> str:
        _, printed = command_line("classify", *words, "--model", str(graph_path), code=code)
        return printed

    return classify_


def test_the_command_resumes_and_still_exits_with_3_for_unreadable_images(
    rtk: Callable[..., str], photos: list[Entry], tmp_path: Path
) -> None:
    rtk("in", "-o", "whole.csv", code=3)
    whole = (tmp_path / "whole.csv").read_text().splitlines(keepends=True)
    rtk("in", "-o", "a.csv", "--strict", code=1)
    (tmp_path / "a.csv.part").write_text("".join(whole[:40]))
    printed = rtk("in", "-o", "a.csv", "--resume", code=3)
    assert (tmp_path / "a.csv").read_text() == "".join(whole)
    assert printed.count("not an image") == 3  # unreadable images among the last 21
    assert "already finished" in rtk("in", "-o", "a.csv", "--resume")


@pytest.mark.parametrize(
    "words", [["--resume"], ["--resume", "-o", "a.txt"], ["--format", "parquet"], ["--resume", "-o", "/dev/null"]]
)
def test_an_output_that_cannot_be_resumed_is_a_usage_error(rtk: Callable[..., str], words: list[str]) -> None:
    assert "needs --output with a file" in rtk("in", *words, code=2)


def test_output_appended_to_a_file_keeps_its_content(tmp_path: Path, graph_path: Path) -> None:
    Image.fromarray(draw_shapes(1, seed=1)[0][0]).save(tmp_path / "\u732b.png")
    words = f"{sys.executable} -m rtk classify \u732b.png --model {graph_path} --workers 0"
    script = f"echo before > all.csv; {words} --format csv -o /dev/stdout >> all.csv && {words} && {words} -o B.CSV"
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, b"rtk:" in done.stderr) == (0, False)
    lines_ = (tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()
    assert lines_[:2] == ["before", "file,label,index,probability,error"]
    assert lines_[2].startswith("\u732b.png,")
    assert done.stdout.startswith(b"\\u732b.png")
    assert (tmp_path / "B.CSV").read_text(encoding="utf-8").splitlines() == lines_[1:]


def test_ctrl_c_keeps_the_answers_and_logs_how_to_resume(tmp_path: Path, graph_path: Path) -> None:
    images = np.tile(draw_shapes(64, seed=1)[0], (4_000, 1, 1, 1))  # a run of minutes
    np.save(tmp_path / "many.npy", images)
    command = [sys.executable, "-m", "rtk", "classify", "many.npy", "-m", str(graph_path), "-o", "a.jsonl"]
    # A background job of a shell ignores this signal.
    with_ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=with_ctrl_c) as process:
        _wait_for_rows(tmp_path / "a.jsonl.part")
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=600)
    assert process.returncode == 130
    rows = (tmp_path / "a.jsonl.part").read_text().splitlines()
    assert (
        printed
        == f"rtk: {len(rows):,} answers are in {tmp_path}/a.jsonl.part; to resume, run the same command with --resume\n"
    )
    assert [json.loads(row)["file"] for row in rows] == [f"many.npy[{k}]" for k in range(len(rows))]


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["csv", pytest.param("jsonl", marks=pytest.mark.long), "parquet"])
def test_kill_9_at_any_moment_neither_loses_nor_repeats_a_row(tmp_path: Path, graph_path: Path, format_: str) -> None:
    for number, image_HWC in enumerate(draw_shapes(6_000, seed=1)[0]):
        (tmp_path / "in" / str(number % 7)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_HWC).save(tmp_path / "in" / str(number % 7) / f"{number}.png")
    (tmp_path / "in" / "3" / "bad.png").write_bytes(b"no")
    command = [sys.executable, "-m", "rtk", "classify", "in", "-m", str(graph_path), "--top-k", "3", "-o"]
    done = subprocess.run([*command, f"whole.{format_}"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 3, done.stderr
    whole = (tmp_path / f"whole.{format_}").read_bytes()
    dice, kills, finished = random.Random(7), 0, False
    while kills < 20 or not finished:
        process = subprocess.Popen([*command, f"a.{format_}", "--resume"], cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:
            process.wait(dice.uniform(0.3, 4.0) if kills < 20 else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills, finished = kills + 1, False
        else:
            assert process.returncode in (0, 3)  # 0 if the last run was killed just after it finished
            assert (tmp_path / f"a.{format_}").read_bytes() == whole
            (tmp_path / f"a.{format_}").unlink()
            finished = True
    assert sorted(os.listdir(tmp_path)) == ["in", f"whole.{format_}"]


def _wait_for_rows(path: Path) -> None:
    for _ in range(3_000):
        if path.exists() and path.stat().st_size > 1_000:
            return
        time.sleep(0.1)
    raise AssertionError(f"{path}: no rows")


def test_the_command_sorts_only_into_folders_outside_the_sources(
    rtk: Callable[..., str], photos: list[Entry], tmp_path: Path
) -> None:
    rtk("in", "--sort-into", "out", "--link", "--workers", "0", code=3)
    sorted_ = sorted(path.name for path in (tmp_path / "out").rglob("*.png"))
    assert sorted_ == [f"{number:02}.png" for number in range(60) if number % 7 != 2]
    assert "is inside the source in" in rtk("in", "--sort-into", "in/sorted", code=2)
    assert "--link: needs --sort-into" in rtk("in", "--link", code=2)


def test_the_command_writes_a_contact_sheet_of_the_least_certain_answers(
    rtk: Callable[..., str], photos: list[Entry], tmp_path: Path
) -> None:
    rtk("in", "--report", "sheets/a.html", "--sort-into", "out", "-o", "a.csv", "--workers", "0", code=3)
    page = (tmp_path / "sheets" / "a.html").read_text()
    assert "51 of 60 images, 9 of them unreadable" in page
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    least = min((row for row in rows if row["label"]), key=lambda row: float(row["probability"]))
    assert page.index(least["file"]) == min(page.index(row["file"]) for row in rows if row["label"])
    assert len(list((tmp_path / "out").rglob("*.png"))) == 51
    rtk("in", "--report", "b.html", "--strict", "--workers", "0", code=1)
    assert "of 3 images" in (tmp_path / "b.html").read_text()  # the answers before the run stopped
    assert "leave out --resume" in rtk("in", "--report", "c.html", "--resume", "-o", "c.csv", code=2)
    assert "is a folder" in rtk("in", "--report", "out", code=2)


# Folders of classes.


def sort(folder: Path, entries: list[Entry], label: str = "class 0", *, link: bool = False) -> list[str]:
    sorter = Sorter(folder, ["class 0", "T-shirt/top"], link=link)
    index = 0 if label == "class 0" else 1
    for entry in entries:
        predictions = () if entry.error else (Prediction(label, index, 1.0),)
        sorter.put(Answer(entry.name, predictions, entry.error, entry))
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_sorting_the_same_images_again_changes_nothing(tmp_path: Path, photos: list[Entry]) -> None:
    once = sort(tmp_path / "out", photos[:3], "T-shirt/top")
    assert once == [f"T-shirt_top/{number:02}.png" for number in range(3)]
    assert sort(tmp_path / "out", photos[:3], "T-shirt/top") == once
    assert (tmp_path / "out" / "T-shirt_top" / "01.png").read_bytes() == photos[1].path.read_bytes()


def test_an_image_that_is_gone_when_it_is_sorted_is_named(tmp_path: Path) -> None:
    for name in ("gone.png", "there.png"):
        with pytest.raises(DataError, match=rf"^{tmp_path}/{name}: was classified, but .*: No such file or directory$"):
            sort(tmp_path / "out", [Entry(f"{tmp_path}/{name}")])
        (tmp_path / "out" / "class 0" / "there.png").touch()  # compared with the source


def test_images_with_the_same_name_are_all_kept(tmp_path: Path) -> None:
    for folder in "abc":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(folder.encode())
    entries = [Entry(f"{tmp_path}/{folder}/x.png") for folder in "abc"]
    for how in ("copy", "link"):
        once = sort(tmp_path / how, entries, link=how == "link")
        assert len(once) == 3
        assert {(tmp_path / how / name).read_bytes() for name in once} == {b"a", b"b", b"c"}
        assert sort(tmp_path / how, entries, link=how == "link") == once
    assert all((tmp_path / "link" / name).is_symlink() for name in once)


def test_the_target_of_an_existing_link_is_not_overwritten(tmp_path: Path) -> None:
    for folder in ("x", "r1", "r2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(folder.encode())
    current = tmp_path / "current"
    entries = [Entry(f"{tmp_path}/x/1.png"), Entry(f"{current}/1.png")]
    for where, link in (("r1", True), ("r2", False)):
        current.unlink(missing_ok=True)
        current.symlink_to(tmp_path / where)
        found = sort(tmp_path / "out", entries, link=link)
    assert (tmp_path / "r1" / "1.png").read_bytes() == b"r1"
    assert {(tmp_path / "out" / name).read_bytes() for name in found} >= {b"x", b"r2"}


def test_images_with_the_same_relative_path_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in "abc":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(folder.encode())
        monkeypatch.chdir(tmp_path / folder)
        found = sort(tmp_path / "out", [Entry("x.png")])
    assert {(tmp_path / "out" / name).read_bytes() for name in found} == {b"a", b"b", b"c"}


def test_names_of_the_greatest_length_are_sorted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / ("\u732b" * 83 + ".png")
    path.write_bytes(b"x")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / path.name).write_bytes(folder.encode())
    found = sort(tmp_path / "out", [Entry(f"{tmp_path}/{folder}/{path.name}") for folder in "ab"])
    assert len(found) == 2
    assert all(name.endswith(".png") for name in found)


def test_images_from_archives_and_arrays_are_written_and_unreadable_ones_are_not(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    entries = [
        Entry("a.tar!/../x/1.png", content=b"bytes"),
        Entry("a.npy[3]", content=pixels),
        Entry("g.npy[3]", content=pixels[..., :1]),
        Entry("bad.png", "damaged"),
    ]
    once = sort(tmp_path / "out", entries)
    assert once == ["class 0/1.png", "class 0/a.npy[3].png", "class 0/g.npy[3].png"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / once[1])), pixels)
    assert sort(tmp_path / "out", entries) == once


def test_class_folders_have_plain_names_that_all_differ() -> None:
    labels = ["a/b", "a_b", "..", "", "CON:", "x\ny", "A_B", "/", "-rf"]
    names = folder_names(labels)
    assert len({name.casefold() for name in names}) == len(labels)
    assert not [name for name in names if "/" in name or name.startswith(".") or not name.isprintable()]
