"""From files to labels: every way gives every image, and the ratios follow from the rounds."""

import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from rtk.bench import files
from rtk.bench.files import FilesResult, MemoryResult, measure_files, measure_memory
from rtk.cli import app as cli
from rtk.core.data.datasets import Split
from rtk.infer.classify import ClassifyConfig
from rtk.infer.fake import FakeBackend
from rtk.infer.sources.listing import entries


def test_ratios_are_totals_over_totals() -> None:
    seconds = {
        "backend": 0.003,
        "decoding PNG files": 0.001,
        "PNG files": 0.005,
        "decoding tar": 0.002,
        "tar": 0.01,
        ".npy": 0.003,
        "plain loop": 0.02,
        "plain loop, onnx fp32": 0.04,
    }
    result = FilesResult(100, [seconds, {**seconds, "PNG files": 0.003}])
    by_both, tar, npy, plain, other_plain = result.ratios
    assert by_both.images_per_s == pytest.approx(250)  # 0.008 s for two images
    assert by_both.other_per_s == pytest.approx(250)  # 1 / (1/1000 + 1/333)
    assert by_both.value == pytest.approx(1.0)
    assert by_both.rounds == pytest.approx([0.8, 4 / 3])
    assert tar.value == pytest.approx(0.5)
    assert npy.value == pytest.approx(1.0)
    assert plain.value == pytest.approx(5.0)
    assert other_plain.value == pytest.approx(10.0)
    assert [one.at_least for one in result.ratios] == [0.9, 0.9, 0.95, 2.0, 2.0]
    assert result.allowed == pytest.approx({"the plain loop": 5.0, "the plain loop, onnx fp32": 10.0})
    assert result.rows[0]["rounds"] == "0.80 to 1.33"
    assert result.rows[3] == {
        "from": "PNG files",
        "images/s": "250",
        "compared with": "the plain loop",
        "its images/s": "50",
        "ratio": "5.00",
        "rounds": "4.00 to 6.67",
        "meant": "2",
    }
    assert result.rows[4]["compared with"] == "the plain loop, onnx fp32"


def test_files_tar_and_array_hold_the_split_as_often_as_wanted(tmp_path: Path, shapes64: Split) -> None:
    pngs = files._written(shapes64, tmp_path, 150)
    files._write_tar(tmp_path / "a.tar", pngs)
    files._write_npy(tmp_path / "a.npy", shapes64, 150)
    wanted = shapes64.images_NHWC[np.arange(150) % 64]
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), wanted)
    np.testing.assert_array_equal(np.concatenate(list(files._batches(shapes64, 150, 37))), wanted)
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert len(archive.getnames()) == 150
    assert [entry.content for entry in entries([str(tmp_path / "a.tar")])] == [
        entry.path.read_bytes() for entry in pngs
    ]


def test_the_plain_loop_answers_as_the_backend_does(tmp_path: Path, shapes64: Split) -> None:
    backend = FakeBackend()
    pngs = files._written(shapes64, tmp_path, 20)
    assert list(files._plain_loop(pngs, backend)) == backend(shapes64.images_NHWC[:20]).argmax(1).tolist()
    assert backend.calls == 21


def test_every_way_is_measured_in_every_round(shapes64: Split) -> None:
    backend, alone, other = FakeBackend(), FakeBackend(), FakeBackend()
    advanced: list[int] = []
    loops = {"": alone, ", onnx fp32": other}
    result = measure_files(
        backend, alone, loops, shapes64, ClassifyConfig(batch_size=16), images=80, rounds=2, advance=advanced.append
    )
    assert advanced == [1, 1]
    assert backend.calls == 5 + 2 * 3 * 5  # warming up; files, tar and array
    assert alone.calls == 80 + 2 * (5 + 80)  # warming up; the backend alone and the plain loop
    assert other.calls == 80 + 2 * 80
    assert all(len(one) == 8 and min(one.values()) > 0 for one in result.rounds)
    assert len(result.rows) == 5


def test_memory_is_watched_over_the_whole_run(shapes64: Split) -> None:
    done: list[int] = []
    held = measure_memory(FakeBackend(), shapes64, ClassifyConfig(batch_size=16), count=1_000, advance=done.append)
    assert sum(done) == held.entries == 1_000
    assert len(held.samples_mib) == 50
    assert 10 < min(held.samples_mib) < 10_000
    assert MemoryResult(10, [9.0, 9.0, 100.0, 100.0, 1.0, 1.0, 1.0, 1.0, 150.0, 150.0]).growth == pytest.approx(1.5)


def test_the_command_compares_with_the_plain_loop_in_fp32_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shapes_model: Path
) -> None:
    words = [str(shapes_model), "--backend", "onnx", "--images", "300", "--memory", "400"]
    printed = _printed(["--files", *words], monkeypatch, capsys)
    assert printed.startswith("300 images to labels, fp32, ONNX Runtime ")
    assert [line.split("  ")[0] for line in printed.splitlines()[3:7]] == ["PNG files", "tar", ".npy", "PNG files"]
    assert re.search(r"^decoding .* allow together at most [\d.]+ times the plain loop$", printed, re.MULTILINE)
    assert re.search(r"^memory over 400 entries: at most [\d,]+ MiB, .* [\d.]+ times as much", printed, re.MULTILINE)
    printed = _printed(["--files", *words[:-2], "--precision", "int8"], monkeypatch, capsys)
    assert printed.startswith("300 images to labels, int8, ONNX Runtime ")
    assert re.search(r" times the plain loop, [\d.]+ times the plain loop, onnx fp32$", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--images 4", "--images goes with --files"),
        ("--limit 3", "--limit goes with --compare OLD NEW"),
        ("--keras", "--keras goes with --train ARCH"),
        ("--files --scope sync --batch 3", "--files: leave out --scope, --batch, which would have no effect"),
        ("a.pt --train resnet8v1", "--train: leave out MODEL, which would have no effect"),
        ("--train resnet8v1 --files", "--train: leave out --files, which would have no effect"),
        ("--compare a b --report c", "--compare: leave out --report, which would have no effect"),
        ("--files --precision int8 --precision fp32", "--precision fp32: one alone goes with --files"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    words: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rtk", "bench", *words.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"rtk: {line}\n"


def _printed(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr("sys.argv", ["rtk", "bench", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    return capsys.readouterr().out
