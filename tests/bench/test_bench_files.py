"""From files to labels: every kind of file holds every image, and the ratios follow from the rounds."""

import re
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from rtk.bench.files import image_files, throughput
from rtk.bench.files.memory import MemoryResult, measure_memory
from rtk.bench.files.throughput import FilesResult, measure_files
from rtk.cli import app as cli
from rtk.core.card import ModelCard
from rtk.core.data.datasets import Split
from rtk.core.errors import OutputError
from rtk.infer.classify import ClassifyConfig
from rtk.infer.fake import FakeBackend
from rtk.infer.sources.listing import entries


def test_rates_and_ratios_are_those_of_the_median_round() -> None:
    seconds = {
        "backend": 0.003,
        "decoding PNG": 0.001,
        "PNG": 0.005,
        "decoding tar": 0.002,
        "tar": 0.01,
        ".npy": 0.003,
        "plain loop": 0.02,
        "plain loop, onnx fp32": 0.04,
    }
    result = FilesResult(100, [seconds, {**seconds, "PNG": 0.004}, {**seconds, "PNG": 0.003}])
    by_both, tar, npy, plain, other_plain = result.ratios
    assert by_both.images_per_s == pytest.approx(250)
    assert by_both.other_per_s == pytest.approx(250)  # 1 / (1/1000 + 1/333)
    assert by_both.value == pytest.approx(1.0)
    assert by_both.rounds == pytest.approx([0.8, 1.0, 4 / 3])
    assert tar.value == pytest.approx(0.5)
    assert npy.value == pytest.approx(1.0)
    assert plain.value == pytest.approx(5.0)
    assert other_plain.value == pytest.approx(10.0)
    assert [one.target for one in result.ratios] == [0.9, 0.9, 0.95, 2.0, 2.0]
    assert result.allowed == pytest.approx({"the plain loop": 5.0, "the plain loop, onnx fp32": 10.0})
    assert result.rows[0]["range"] == "0.80 to 1.33"
    assert result.rows[3] == {
        "from": "PNG",
        "images/s": "250",
        "compared with": "plain loop",
        "other img/s": "50",
        "ratio": "5.00",
        "range": "4.00 to 6.67",
        "goal": "2",
    }
    assert result.rows[4]["compared with"] == "plain loop, onnx fp32"


def test_a_pause_in_one_round_changes_no_ratio() -> None:
    names = ("backend", "decoding PNG", "PNG", "decoding tar", "tar", ".npy", "plain loop")
    rounds = [dict.fromkeys(names, 0.01) for _ in range(3)]
    before = FilesResult(100, [dict(one) for one in rounds]).rows
    rounds[1]["PNG"] = 5.0
    after = FilesResult(100, rounds).rows
    assert [row["ratio"] for row in after] == [row["ratio"] for row in before]
    assert [row["images/s"] for row in after] == [row["images/s"] for row in before]


def test_other_processes_beside_the_measurement_are_named() -> None:
    rounds = [dict.fromkeys(("backend", "decoding PNG", "PNG", "decoding tar", "tar", ".npy"), 0.01)]
    assert FilesResult(100, rounds).busy == ""
    assert FilesResult(100, rounds, other_share=0.0).busy == ""
    assert FilesResult(100, rounds, other_share=0.9).busy == (
        "busy: other processes took up to 90% of the cores, which changes the ratios; --wait-quiet waits until they "
        "stop"
    )


def test_each_measurement_starts_when_threads_and_decoding_processes_are_idle(
    shapes64: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(throughput, "wait_until_idle", lambda processes: waits.append(len(processes())))
    backend, before_rounds = FakeBackend(), []
    measure_files(
        backend,
        backend,
        {"": backend},
        shapes64,
        ClassifyConfig(),
        images=64,
        rounds=2,
        advance=lambda count: None,
        before_round=lambda: before_rounds.append(len(waits)),
    )
    assert before_rounds == [0, 7]
    assert len(waits) == 2 * 7
    assert min(waits) >= 1  # the decoding processes are among those that must be idle


def test_a_full_disk_of_temporary_files_is_an_error_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes64: Split, card: ModelCard
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    def refused(reason: str) -> None:
        start = f"^{re.escape(tempfile.gettempdir())}: the image files of the benchmark cannot be written: {reason}; "
        backend, config = FakeBackend(), ClassifyConfig()
        with pytest.raises(OutputError, match=f"{start}.*TMPDIR=DIR"):
            measure_files(backend, backend, {}, shapes64, config, images=8, rounds=1, advance=lambda count: None)
        with pytest.raises(OutputError, match=start):
            measure_memory(backend, shapes64, config, count=8, advance=lambda count: None)
        with pytest.raises(OutputError, match=start):
            image_files.PngFiles(shapes64, card.input)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        refused("No space left on device")
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="^no temporary folder can be written: Not a directory; set TMPDIR "):
        image_files.PngFiles(shapes64, FakeBackend().card.input)


def test_png_files_tar_and_array_repeat_the_split_up_to_the_number_of_images(tmp_path: Path, shapes64: Split) -> None:
    pngs = image_files.write_pngs(shapes64, tmp_path, 150)
    image_files.write_tar(tmp_path / "a.tar", pngs)
    image_files.write_npy(tmp_path / "a.npy", shapes64, 150)
    wanted = shapes64.images_NHWC[np.arange(150) % 64]
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), wanted)
    np.testing.assert_array_equal(np.concatenate(list(throughput._batches(shapes64, 150, 37))), wanted)
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert len(archive.getnames()) == 150
    assert [entry.content for entry in entries([str(tmp_path / "a.tar")])] == [
        entry.path.read_bytes() for entry in pngs
    ]


def test_the_plain_loop_answers_as_the_backend_does(tmp_path: Path, shapes64: Split) -> None:
    backend = FakeBackend()
    pngs = image_files.write_pngs(shapes64, tmp_path, 20)
    assert list(throughput._plain_loop(pngs, backend)) == backend(shapes64.images_NHWC[:20]).argmax(1).tolist()
    assert backend.calls == 21


def test_everything_is_measured_in_every_round(shapes64: Split) -> None:
    backend, alone, other = FakeBackend(), FakeBackend(), FakeBackend()
    advanced: list[int] = []
    loops = {"": alone, ", onnx fp32": other}
    result = measure_files(
        backend, alone, loops, shapes64, ClassifyConfig(batch_size=16), images=80, rounds=2, advance=advanced.append
    )
    assert advanced == [1, 1]
    assert backend.calls == 5 + 2 * 3 * 5  # warm-up; files, tar and array
    assert alone.calls == 80 + 2 * (5 + 80)  # warm-up; the backend alone and the plain loop
    assert other.calls == 80 + 2 * 80
    assert all(len(one) == 8 and min(one.values()) > 0 for one in result.rounds)
    assert len(result.rows) == 5


def test_memory_is_measured_over_the_whole_run(shapes64: Split) -> None:
    done: list[int] = []
    held = measure_memory(FakeBackend(), shapes64, ClassifyConfig(batch_size=16), count=1_000, advance=done.append)
    assert sum(done) == held.entries == 1_000
    assert len(held.samples_mib) == 50
    assert 10 < min(held.samples_mib) < 10_000
    assert MemoryResult(10, [9.0, 9.0, 100.0, 100.0, 1.0, 1.0, 1.0, 1.0, 150.0, 150.0]).growth == pytest.approx(1.5)


def test_bench_files_also_compares_with_the_plain_loop_in_fp32(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shapes_model: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = [str(shapes_model), "--backend", "onnx", "--images", "300", "--memory", "400"]
    printed = _printed(["bench-files", *words], monkeypatch, capsys)
    assert printed.startswith("300 images to labels, fp32, ONNX Runtime ")
    table = printed[printed.index("from ") :].splitlines()
    assert [line.split("  ")[0] for line in table[1:5]] == ["PNG", "tar", ".npy", "PNG"]
    assert max(map(len, printed.splitlines())) <= 80
    one_line = " ".join(printed.split())
    bound = r"bound: no pipeline can be faster here than [\d.]+ times the plain loop"
    assert re.search(rf" {bound} memory", one_line)
    assert re.search(r" memory over 400 entries: at most [\d,]+ MiB, .* [\d.]+ times as much", one_line)
    printed = _printed(["bench-files", *words[:-2], "--precision", "int8"], monkeypatch, capsys)
    assert printed.startswith("300 images to labels, int8, ONNX Runtime ")
    assert max(map(len, printed.splitlines())) <= 80
    one_line = " ".join(printed.split())
    assert re.search(rf" {bound} {bound}, onnx fp32$", one_line)


def _printed(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr("sys.argv", ["rtk", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    return capsys.readouterr().out
