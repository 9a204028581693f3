"""The commands as users type them: output, messages and exit codes."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
from PIL import Image
from rtk.core.artifacts.graph import load_graph, set_card
from rtk.core.data.synthetic_shapes import draw_shapes
from rtk.tools.planted_faults import faulty, logit_moved, negated_unless

HEAVY = {"numpy", "torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda", "matplotlib", "pooch", "PIL"}
COMMANDS = (
    "train",
    "import",
    "export",
    "classify",
    "bench",
    "bench-train",
    "bench-files",
    "inspect",
    "models",
    "doctor",
    "demo",
)


@dataclass(frozen=True)
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


Rtk = Callable[..., Done]


@pytest.fixture
def rtk(command_line: Callable[..., tuple[str, str]]) -> Rtk:
    """A function that runs a command line of rtk's in tmp_path: rtk("classify", "a.png", code=3)."""

    def run(*words: str, code: int = 0, stdin: str = "") -> Done:
        done = Done(*command_line(*words, code=code, stdin=stdin))
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten PNG files of shapes, 0.png to 9.png."""
    folder = tmp_path_factory.mktemp("photos")
    for number, image_HWC in enumerate(draw_shapes(10, seed=11)[0]):
        Image.fromarray(image_HWC).save(folder / f"{number}.png")
    return folder


# Help and wrong usage.


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_loads_no_heavy_library(words: Sequence[str], in_new_process: Callable[[str], str]) -> None:
    printed = in_new_process(
        "import sys\nfrom rtk.cli.app import app\n"
        f"try: app({list(words)!r})\nexcept SystemExit as stop: assert not stop.code\n"
        f"heavy = {HEAVY!r}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    assert printed.splitlines()[-1] == "loaded: []"
    assert "Usage:" in printed


def test_the_version_is_printed(rtk: Rtk) -> None:
    assert rtk("--version").stdout.strip() == "0.1.0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "resnet21v1"], "architecture 'resnet21v1': depth 21 is not 6n+2; nearest: 20 or 26"),
        (["train", "resnet20v3"], "architecture 'resnet20v3' is unknown"),
        (["train", "resnet20v1", "--dataset", "cifar11"], "data set 'cifar11' is unknown; did you mean cifar10?"),
        (["train", "resnet20v1", "--recipe", "rkt"], "recipe 'rkt' is unknown; did you mean rtk?"),
        (["train"], "the architecture is missing"),
        (["train", "--foo"], "no such option: --foo"),
        (["train", "resnet20v1", "--precision", "fp16"], "'--precision': 'fp16' is not one of 'auto', 'fp32', 'bf16'"),
        (["train", "resnet20v1", "--lr", "abc"], "invalid value for '--lr': "),
        (["export"], "missing argument 'MODEL...'; see: "),
        (["foo"], "no such command 'foo'; see: "),
        (["train", "resnet20v1", "--augment", "rotate=15"], "--augment 'rotate' is unknown; did you mean rotation?"),
        (["train", "resnet20v1", "--preprocess", "zcaa"], "--preprocess 'zcaa' is unknown; did you mean zca?"),
        (["train", "resnet20v1", "--holdout", "5", "--validation-split", "0.1"], "leave one of them out"),
        (["train", "resnet20v1", "--recipe", "finetune"], "--recipe finetune starts from trained weights"),
        (["classify", "x.png", "--model", "resnet99"], "model 'resnet99' is unknown"),
        (["bench", "--batch", "one"], "--batch 'one': expected sizes"),
        (["bench", "--preset", "trtexec"], "preset 'trtexec' is unknown; did you mean trtexec-11? known: trtexec-10,"),
        (["bench", "--scope", "files-to-labels"], "scope 'files-to-labels' is unknown"),
        (["bench", "--preset", "mlperf-singlestream", "--batch", "8"], "measures a batch of 1 only; leave out --batch"),
        (["bench", "--preset", "mlperf-offline", "--scope", "sync"], "defines the scope; leave out --scope"),
        (
            ["classify", "x.png", "--backend", "onxx"],
            "backend 'onxx' is unknown; did you mean onnx? known: auto, torch",
        ),
        (["models", "resnet3v1"], "depth 3 is not 6n+2; nearest: 8"),
        (
            ["models", "resnet20v1-cifar10"],
            "resnet20v1-cifar10: is a model of the zoo; run: rtk inspect resnet20v1-cifar10",
        ),
        (
            ["classify", "x.png", "-o", "x.foo"],
            "x.foo: unknown suffix; expected .csv, .tsv, .json, .jsonl or .parquet, or",
        ),
        (["classify", "x.png", "-o", "x.csv.gz"], "x.csv.gz: unknown suffix; expected .csv, .tsv, .json, .jsonl or"),
        (["classify", "x.png", "--report", "x.json"], "--report x.json: unknown suffix; expected .html"),
        (["classify", "x.png", "-o", "x.json", "--resume"], "--resume: needs --output with a file, in the format csv"),
        (["classify", "x.png", "-o", "x.json", "--csv-bom"], "--csv-bom: needs the format csv or tsv, not json"),
        (["classify", "x.png", "--csv-bom"], "--csv-bom: needs the format csv or tsv, not table"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(rtk: Rtk, words: list[str], message: str) -> None:
    stderr = rtk(*words, code=2).stderr.strip()
    assert message in stderr
    assert len(stderr.splitlines()) == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rtk", "--debug", "inspect", "gone.pt"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "gone.pt: no such checkpoint" in done.stderr


# Classify.


def test_classify_prints_a_row_for_each_image(rtk: Rtk, graph_path: Path, photos: Path) -> None:
    rows = rtk("classify", str(photos), "--model", str(graph_path)).stdout.splitlines()
    assert [row.split()[0] for row in rows] == [str(photos / f"{number}.png") for number in range(10)]
    assert all(row.endswith("%") for row in rows)


def test_good_images_are_classified_and_bad_images_are_listed(
    rtk: Rtk, graph_path: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes((photos / "0.png").read_bytes()[:200])
    (tmp_path / "folder.png").mkdir()
    Image.new("1", (9_000, 9_000)).save(tmp_path / "enormous.png")
    words = [
        str(photos / "0.png"),
        "empty.png",
        "cut.png",
        "folder.png",
        "enormous.png",
        "gone.png",
        str(photos / "1.png"),
    ]
    done = rtk("classify", *words, "--model", str(graph_path), "--format", "csv", code=3)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["file"] for row in rows] == words
    assert [bool(row["error"]) for row in rows] == [False, True, True, True, True, True, False]
    assert rows[1]["error"] == "empty file"
    assert rows[3]["error"] == "no images in this folder"
    assert "81,000,000" in rows[4]["error"] or "9000 x 9000" in rows[4]["error"]
    assert rows[5]["error"] == "no such file"
    assert "empty.png: empty file" in done.stderr


def test_a_glob_without_matches_is_reported(rtk: Rtk, graph_path: Path) -> None:
    assert "*.gif: the pattern matches no file" in rtk("classify", "*.gif", "--model", str(graph_path), code=3).stderr


def test_strict_stops_at_the_first_unreadable_image(rtk: Rtk, graph_path: Path, photos: Path) -> None:
    done = rtk("classify", "gone.png", str(photos), "--strict", "--model", str(graph_path), code=1)
    assert "gone.png: no such file; stopped because of --strict" in done.stderr


def test_paths_on_standard_input_and_an_output_file(rtk: Rtk, graph_path: Path, photos: Path, tmp_path: Path) -> None:
    stdin = f"{photos / '3.png'}\n{photos / '1.png'}\n"
    done = rtk("classify", "-", "--model", str(graph_path), "--output", "answers.jsonl", "--top-k", "3", stdin=stdin)
    assert done.stdout == ""
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [Path(row["file"]).name for row in rows] == ["3.png", "1.png"]
    assert rows[0]["probability"] >= rows[0]["probability_2"] >= rows[0]["probability_3"]


def test_a_table_for_an_existing_folder_is_refused_before_images_are_read(rtk: Rtk, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    stderr = rtk("classify", "gone.png", "-o", "folder", code=1).stderr
    assert stderr == "rtk: folder: is a folder; expected the name of a file\n"


@pytest.mark.parametrize("words", [["-o", "answers.TXT"], ["-o", "answers"], ["-o", "a.foo", "--format", "table"]])
def test_a_table_is_written_to_other_names(
    rtk: Rtk, graph_path: Path, photos: Path, tmp_path: Path, words: list[str]
) -> None:
    rtk("classify", str(photos / "0.png"), "--model", str(graph_path), *words)
    assert "0.png" in (tmp_path / words[1]).read_text()


@pytest.mark.parametrize("target", ["/dev/full", "folder", "file/answers.csv"])
def test_an_output_that_cannot_be_written_is_a_one_line_error(
    rtk: Rtk, graph_path: Path, photos: Path, tmp_path: Path, target: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    stderr = rtk("classify", str(photos), "--model", str(graph_path), "-o", target, "--format", "csv", code=1).stderr
    assert target.removesuffix("/answers.csv") in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_the_folder_of_an_output_file_is_made(rtk: Rtk, graph_path: Path, photos: Path, tmp_path: Path) -> None:
    for name in ("new/a.csv", "new/er/a.txt", "new/est/a.json"):
        rtk("classify", str(photos), "--model", str(graph_path), "-o", name)
        assert "0.png" in (tmp_path / name).read_text()


def test_json_is_one_array_that_any_parser_reads(rtk: Rtk, graph_path: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = ["classify", str(photos), "empty", "--model", str(graph_path), "--top-k", "2"]
    lines = rtk(*words, "--format", "jsonl", code=3).stdout.splitlines()
    assert json.loads(rtk(*words, "--format", "json", code=3).stdout) == [json.loads(line) for line in lines]
    rtk(*words, "-o", "a.json", code=3)
    assert json.loads((tmp_path / "a.json").read_text()) == [json.loads(line) for line in lines]
    rtk(*words, "-o", "a.json", "--strict", code=1)
    assert len(json.loads((tmp_path / "a.json").read_text())) == 11  # the file of the run before
    assert sorted(os.listdir(tmp_path)) == ["a.json", "empty"]
    assert json.loads(rtk("classify", "-", "-m", str(graph_path), "--format", "json").stdout) == []


def test_tsv_has_the_cells_of_csv_between_tabs(rtk: Rtk, graph_path: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / 'tab\t",.png').write_bytes((photos / "0.png").read_bytes())
    words = ["classify", str(photos), 'tab\t",.png', "--model", str(graph_path), "-o"]
    for name in ("a.csv", "a.tsv"):
        rtk(*words, name)
    by_tab = csv.reader((tmp_path / "a.tsv").read_text().splitlines(), delimiter="\t")
    assert list(by_tab) == list(csv.reader((tmp_path / "a.csv").read_text().splitlines()))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_csv_for_excel_begins_with_the_mark_of_utf_8(
    rtk: Rtk, graph_path: Path, photos: Path, tmp_path: Path, name: str
) -> None:
    words = ["classify", str(photos), "--model", str(graph_path), "-o", name]
    rtk(*words)
    plain = (tmp_path / name).read_bytes()
    rtk(*words, "--csv-bom")
    assert (tmp_path / name).read_bytes() == b"\xef\xbb\xbf" + plain
    assert plain.startswith(b"file")
    printed = rtk(*words[:-2], "--format", "csv", "--csv-bom").stdout
    assert printed.startswith("\ufefffile,label")


def test_a_command_without_a_model_says_which_one_answers(rtk: Rtk, photos: Path) -> None:
    quiet = rtk("classify", str(photos), "--model", "resnet20v1-cifar10")
    done = rtk("classify", str(photos))
    assert done.stdout == quiet.stdout
    assert quiet.stderr == ""
    assert done.stderr == "model: resnet20v1-cifar10 (airplane, automobile, bird ...); another: --model\n"


def test_a_run_with_outputs_ends_with_counts_and_paths(rtk: Rtk, graph_path: Path, photos: Path) -> None:
    words = ["classify", str(photos), "gone.png", "--model", str(graph_path)]
    end = rtk(*words, "-o", "a.csv", code=3).stderr.splitlines()[-1]
    assert re.fullmatch(r"11 images, 1 unreadable, \d+\.\d s; output: a\.csv", end)
    end = rtk(*words, "--report", "a.html", "--sort-into", "to", code=3).stderr.splitlines()[-1]
    assert re.fullmatch(r"11 images, 1 unreadable, \d+\.\d s; output: a\.html, to", end)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        (
            "https://example.org/a b.png?x=1",
            "a URL, expected a path; download it first: curl -LO 'https://example.org/",
        ),
        ("s3://bucket/*.png", "a URL of s3, expected a path; copy it to this machine, or mount it"),
        ("file:///tmp/a%20b.png", "a URL, expected a path: /tmp/a b.png"),
        ("FILE:/tmp/a.png", "a URL, expected a path: /tmp/a.png"),
    ],
)
def test_a_url_is_told_from_a_path(rtk: Rtk, graph_path: Path, url: str, advice: str) -> None:
    stderr = rtk("classify", url, "--model", str(graph_path), code=3).stderr
    assert stderr.startswith(f"rtk: {url}: {advice}")
    assert len(stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["classify", "a.png", "--model", "https://example.org/a.onnx"],
        ["inspect", "https://example.org/a.pt"],
        ["export", "https://example.org/a.pt"],
        ["bench", "https://example.org/a.onnx"],
        ["bench-files", "https://example.org/a.onnx"],
        ["bench-files", "--dataset", "https://example.org/pets"],
        ["train", "resnet8v1", "--dataset", "https://example.org/pets"],
        ["classify", "a.png", "-o", "s3://bucket/a.csv"],
        ["classify", "a.png", "--report", "s3://bucket/a.html"],
        ["classify", "a.png", "--sort-into", "s3://bucket/a"],
        ["export", "resnet20v1-cifar10", "--out", "s3://bucket/a"],
        ["export", "resnet20v1-cifar10", "--triton", "s3://bucket/a", "--out", "here"],
        ["bench", "--report", "s3://bucket/a", "--seconds", "0.1"],
        ["train", "resnet8v1", "--dataset", "shapes", "--out", "s3://bucket/a"],
    ],
)
def test_a_url_of_a_model_a_data_set_or_an_output_is_told_from_a_path(
    rtk: Rtk, tmp_path: Path, words: list[str]
) -> None:
    lines = rtk(*words, code=1).stderr.splitlines()
    assert "a URL, expected a path" in lines[-1]
    assert len(lines) <= 2
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(":")]


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "--report"],
        ["export", "resnet20v1-cifar10", "--out", "here", "--triton"],
        ["classify", "gone.png", "--sort-into"],
        ["classify", "gone.png", "-o"],
    ],
)
def test_an_output_that_cannot_be_written_is_found_before_the_work(rtk: Rtk, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "file").touch()
    stderr = rtk(*words, "file/new/a.csv", code=1).stderr
    assert re.fullmatch(r"(model: .*\n)?rtk: file/new\S*: the folder cannot be created: Not a directory\n", stderr)
    assert os.listdir(tmp_path) == ["file"]


def test_an_existing_output_file_survives_a_failed_run(
    rtk: Rtk, graph_path: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "answers.csv").write_text("old\n")
    rtk("classify", "gone.png", str(photos), "--strict", "--model", str(graph_path), "-o", "answers.csv", code=1)
    assert (tmp_path / "answers.csv").read_text() == "old\n"
    assert os.listdir(tmp_path) == ["answers.csv"]


@pytest.mark.parametrize("option", ["-o", "--model"])
def test_an_invalid_file_name_is_a_one_line_error(rtk: Rtk, photos: Path, option: str) -> None:
    name = "x" * 300 + (".csv" if option == "-o" else ".onnx")
    done = rtk("classify", str(photos), option, name, code=1)
    assert done.stderr.startswith("rtk: ")
    assert done.stderr.count("\n") == 1
    assert "File name too long" in done.stderr


def test_a_closed_pipe_is_not_an_error(graph_path: Path, photos: Path) -> None:
    words = " ".join([sys.executable, "-m", "rtk", "classify", str(photos), "--model", str(graph_path)])
    done = subprocess.run(["bash", "-c", f"{words} | head -1"], capture_output=True, text=True, check=False)
    assert "0.png" in done.stdout
    assert "rror" not in done.stderr


def test_an_unexpected_error_of_the_system_is_one_line(rtk: Rtk, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtk.workflow import models

    for error, line in (
        (OSError(28, "No space left on device"), "rtk: No space left on device; to see where: rtk --debug ...\n"),
        (OSError(13, "Permission denied", "a.pt"), "rtk: a.pt: Permission denied\n"),
    ):
        monkeypatch.setattr(models, "find_model", Mock(side_effect=error))
        assert rtk("inspect", "a.pt", code=1).stderr == line


# The workflow.


def test_a_checkpoint_is_exported_next_to_itself_and_inspected(rtk: Rtk, checkpoint_path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(checkpoint_path.read_bytes())
    done = rtk("export", "mine.pt")
    assert done.stdout.strip() == "mine.onnx"
    assert "largest logit difference from PyTorch" in done.stderr
    text = rtk("inspect", "mine.onnx").stdout
    assert "resnet8v1" in text
    assert "uint8 [N, 32, 32, 3]" in text
    card = json.loads(rtk("inspect", "mine.onnx", "--json").stdout)
    assert card["checkpoint_sha256"] == json.loads(rtk("inspect", "mine.pt", "--json").stdout)["checkpoint_sha256"]
    assert card["notes"]["export"]["largest_logit_difference"] <= 1e-4


def test_several_checkpoints_are_exported_as_one(
    rtk: Rtk, checkpoint_path: Path, graph_path: Path, photos: Path
) -> None:
    done = rtk("export", str(checkpoint_path), str(checkpoint_path), "--out", "pair")
    assert done.stdout == "pair/resnet8v1-cifar10-x2.onnx\n"
    assert "resnet8v1-cifar10-x2: an ensemble of 2\n" in done.stderr
    assert "resnet8v1+resnet8v1" in rtk("inspect", "pair/resnet8v1-cifar10-x2.onnx").stdout
    alone, both = (
        rtk("classify", str(photos), "--backend", "onnx", "-m", model, "--format", "csv").stdout
        for model in (str(graph_path), "pair/resnet8v1-cifar10-x2.onnx")
    )
    assert [row["label"] for row in csv.DictReader(io.StringIO(alone))] == [
        row["label"] for row in csv.DictReader(io.StringIO(both))
    ]
    refused = rtk("export", str(checkpoint_path), str(graph_path), code=2).stderr
    assert refused == f"rtk: {graph_path}: an ensemble is made of checkpoints\n"


def test_an_ensemble_that_fails_the_gate_leaves_no_file(rtk: Rtk, shapes_model: Path, tmp_path: Path) -> None:
    words = ["export", "shapes.pt", "shapes.pt", "--out", "pair", "--require-parity"]
    assert "2,000 images cannot show so small a loss" in rtk(*words, "0.0001", code=5).stderr
    assert not list((tmp_path / "pair").iterdir())
    name = "resnet8v1-cifar10-x2"
    assert rtk(*words, "5").stdout == f"pair/{name}.onnx\n"
    assert sorted(path.name for path in (tmp_path / "pair").iterdir()) == [f"{name}.onnx", f"{name}.pt"]


def test_a_checkpoint_is_exported_into_the_cache_once(rtk: Rtk, checkpoint_path: Path, photos: Path) -> None:
    words = ["classify", str(photos / "0.png"), "--model", str(checkpoint_path), "--backend", "onnx"]
    first, second = rtk(*words), rtk(*words)
    assert first.stdout == second.stdout
    assert second.stderr == ""


def test_torch_and_onnx_give_the_same_answers(rtk: Rtk, checkpoint_path: Path, graph_path: Path, photos: Path) -> None:
    by_torch = rtk("classify", str(photos), "--model", str(checkpoint_path), "--backend", "torch", "--format", "jsonl")
    by_onnx = rtk("classify", str(photos), "--model", str(graph_path), "--backend", "onnx", "--format", "jsonl")
    for one, other in zip(by_torch.stdout.splitlines(), by_onnx.stdout.splitlines(), strict=True):
        assert json.loads(one)["index"] == json.loads(other)["index"]
        assert json.loads(one)["probability"] == pytest.approx(json.loads(other)["probability"], abs=1e-4)


@pytest.mark.usefixtures("without_self_check")
def test_bench_compares_answers_and_writes_its_report(rtk: Rtk, shapes_model: Path, tmp_path: Path) -> None:
    words = ["--batch", "4", "--seconds", "0.5", "--no-baselines", "--report", "report"]
    done = rtk("bench", "shapes.pt", *words)
    assert "Parity on shapes (test split, 2,000 images), against PyTorch fp32" in done.stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["schema"] == "rtk-bench-7"
    assert [one["candidate"] for one in report["parity"]][:2] == ["torch", "onnx"]
    for one in report["parity"]:
        assert one["images"] == one["agreeing"] == 2000
        assert one["largest_difference"] <= 1e-4
    for cell in report["cells"]:
        assert cell["rounds"]
        samples = [sample for one in cell["rounds"] for sample in one]
        assert cell["mean_images_per_s"] == pytest.approx(4 * len(samples) / sum(samples))
        assert cell["images_per_s"] == pytest.approx(4 / np.median([np.mean(one) for one in cell["rounds"]]))
    assert "| onnx |" in (tmp_path / "report" / "report.md").read_text()


def test_bench_finds_the_reference_of_a_graph_or_asks_for_it(rtk: Rtk, shapes_model: Path, tmp_path: Path) -> None:
    rtk("export", "shapes.pt", "--out", "elsewhere")
    stderr = rtk("bench", "elsewhere/shapes.onnx", "--seconds", "0.1", code=1).stderr
    assert "is neither beside it nor in the zoo; name it with --reference FILE" in stderr
    words = ["--batch", "1", "--seconds", "0.1", "--backend", "onnx", "--no-baselines"]
    assert "onnx" in rtk("bench", "elsewhere/shapes.onnx", "--reference", "shapes.pt", *words).stdout


def test_bench_refuses_a_data_set_with_other_classes(rtk: Rtk, checkpoint_path: Path) -> None:
    stderr = rtk("bench", str(checkpoint_path), "--dataset", "shapes", "--seconds", "0.1", code=1).stderr
    assert "its classes are not the model's: found 'circle', expected 'airplane'" in stderr


def test_a_requested_backend_that_cannot_run_is_an_error(rtk: Rtk, shapes_model: Path) -> None:
    stderr = rtk("bench", "shapes.pt", "--backend", "onnx", "--device", "cuda:7", "--seconds", "0.1", code=1).stderr
    assert "--device cuda:7" in stderr


def test_without_a_gpu_trt_is_refused_before_heavy_libraries_are_loaded(in_new_process: Callable[[str], str]) -> None:
    printed = in_new_process(
        "import sys\nfrom rtk.core.errors import BackendError\nfrom rtk.cli.app import app\n"
        "from rtk.infer.trt import preflight as trt_preflight\ntrt_preflight.gpu_count = lambda: 0\n"
        "try: app(['bench', '--backend', 'trt'], standalone_mode=False)\nexcept BackendError as error: print(error)\n"
        "print('loaded:', sorted({'torch', 'onnx', 'onnxruntime', 'openvino', 'matplotlib'} & set(sys.modules)))"
    )
    assert printed.splitlines()[0].startswith("trt: ")
    assert "without a GPU use --backend onnx" in printed
    assert printed.splitlines()[-1] == "loaded: []"


def test_models_lists_architectures_and_the_zoo(rtk: Rtk) -> None:
    printed = rtk("models").stdout
    assert "resnet20v1       273,066" in printed
    listed = json.loads(rtk("models", "--json").stdout)
    assert {"architecture": "resnet110v2", "parameters": 3302442} in listed["architectures"]
    names = [row["architecture"] for row in listed["architectures"]]
    assert {"resnet18", "resnet50", "resnet152", "resnet18d2l", "plain20"} <= set(names)


def test_models_shows_the_layers_of_an_architecture(rtk: Rtk) -> None:
    printed = rtk("models", "resnet20v1").stdout.splitlines()
    assert printed[1].split() == ["stem.0", "SameConv2d", "16", "x", "32", "x", "32", "448"]
    assert printed[-1].split() == ["all", "273,066"]
    words = ["--image-size", "224", "--channels", "1", "--classes", "1000"]
    printed = rtk("models", "resnet50", *words).stdout.splitlines()
    assert printed[1].split() == ["conv1", "Conv2d", "64", "x", "112", "x", "112", "3,136"]
    assert printed[-1].split() == ["all", "25,550,760"]  # torchvision's 25,557,032 less 2 x 64 x 49


def test_training_on_a_folder_of_classes_prints_its_score(rtk: Rtk, class_folders: Path, tmp_path: Path) -> None:
    done = rtk(
        "train", "resnet8v1", "--dataset", str(class_folders), "--epochs", "2", "--batch-size", "8", "--out", "run"
    )
    assert done.stdout.startswith("test accuracy ")
    assert sorted(os.listdir(tmp_path / "run")) == [
        "best.pt",
        "config.json",
        "curves.png",
        "data",
        "eval",
        "history.csv",
        "history.jsonl",
        "last.pt",
    ]
    assert "12 of 12" in done.stdout or "of 12)" in done.stdout
    with Image.open(tmp_path / "run" / "curves.png") as curves:
        assert curves.size[0] > 800
    again = rtk("train", "resnet8v1", "--dataset", str(class_folders), "--out", "run", code=2)
    assert "run: holds a run already; resume it with: rtk train --resume run" in again.stderr


def test_a_run_resumes_only_with_its_own_options(
    rtk: Rtk, class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "resnet8v1", "--dataset", str(class_folders), "--epochs", "1", "--batch-size", "8")
    first = rtk(*words, "--out", "run")
    stderr = rtk("train", "--resume", "run", "--epochs", "3", "--lr", "0.5", "--plateau", code=2).stderr
    assert stderr == (
        "rtk: run: a run resumes only with its own options, found --epochs 3 (run: 1), --lr 0.5 (run: the recipe's "
        "0.2), --plateau True (run: False); leave them out, or start a new run with another --out\n"
    )
    assert rtk("train", "resnet8v1", "--resume", "run", "--epochs", "1", "--save-every", "1").stdout == first.stdout
    config = (tmp_path / "run" / "config.json").read_text()
    monkeypatch.setenv("RTK_DATA_DIR", str(tmp_path / "gone"))
    assert rtk("train", "--resume", "run").stdout == first.stdout
    assert (tmp_path / "run" / "config.json").read_text() == config  # a finished run needs no data
    stderr = rtk("train", "--resume", "run", "--seeds", "2", code=2).stderr
    assert stderr.startswith("rtk: --resume takes one run; to resume several seeds, repeat the --seeds command")


def test_several_seeds_print_mean_and_spread(rtk: Rtk, class_folders: Path) -> None:
    words = ("train", "resnet8v1", "--dataset", str(class_folders), "--epochs", "1", "--batch-size", "8")
    done = rtk(*words, "--seeds", "2", "--out", "run")
    assert done.stdout.startswith("test accuracy ")
    assert " (mean of 2 seeds, standard deviation " in done.stdout
    assert done.stdout.endswith("run/seeds.json\n")


def test_a_missing_data_set_names_the_file_and_its_folder(rtk: Rtk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    stderr = rtk("train", "resnet8v1", "--data-dir", "data", code=1).stderr
    assert "cifar-10-binary.tar.gz: missing, and the download failed" in stderr
    assert "download https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz and put it there" in stderr


@pytest.mark.torch
def test_doctor_tries_every_backend(rtk: Rtk) -> None:
    found = json.loads(rtk("doctor", "--json").stdout)
    assert found["machine"]["cores"] >= 1
    works = {(trial["backend"], trial["device"]): trial["works"] for trial in found["trials"]}
    assert works[("torch", "cpu")]
    assert works[("onnx", "cpu")]


# TensorRT on a machine without a GPU.


@pytest.fixture
def no_gpu() -> None:
    """Skips where a GPU would be used after all."""
    from rtk.core.nvidia.driver import gpu_count

    if gpu_count():
        pytest.skip("this machine has a GPU")


@pytest.mark.usefixtures("no_gpu")
def test_an_engine_is_built_inspected_and_found_again_in_the_cache(rtk: Rtk, graph_path: Path, tmp_path: Path) -> None:
    rtk("cache", "clear")
    (tmp_path / "mine.onnx").write_bytes(graph_path.read_bytes())
    first = rtk("export", "--trt", "mine.onnx", "--max-batch", "128")
    assert first.stdout == "mine.engine\n"
    assert "built in" in first.stderr
    assert "batches of 1 to 128, fastest at 64" in first.stderr
    assert sorted(os.listdir(tmp_path)) == ["mine.engine", "mine.engine.json", "mine.onnx"]
    assert "from the cache" in rtk("export", "--trt", "mine.onnx", "--max-batch", "128").stderr
    text = " ".join(rtk("inspect", "mine.engine").stdout.split())
    assert "tensorrt-rtx" in text
    assert "not yet inspected on a GPU" in text
    assert json.loads(rtk("inspect", "mine.engine", "--json").stdout)["profile"]["max_batch"] == 128
    listed = rtk("cache", "ls").stdout
    assert "resnet8v1-cifar10" in listed
    assert "1 engine checked, none damaged" in rtk("cache", "verify").stdout
    assert "removed 1 engine," in rtk("cache", "clear").stdout
    assert "(none)" in rtk("cache", "ls").stdout


@pytest.mark.usefixtures("no_gpu")
def test_an_altered_engine_is_reported(rtk: Rtk, graph_path: Path, tmp_path: Path) -> None:
    rtk("export", "--trt", str(graph_path), "--out", ".")
    engine = tmp_path / f"{graph_path.stem}.engine"
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    assert engine.name in rtk("inspect", engine.name, code=1).stderr
    assert engine.name in rtk("classify", "x.png", "--backend", "trt", "--model", engine.name, code=1).stderr


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("words", [["classify", "x.png", "--model"], ["bench", "--dataset", "shapes"]])
def test_without_a_gpu_the_trt_backend_gives_the_reason_and_a_fix(
    rtk: Rtk, shapes_model: Path, words: list[str]
) -> None:
    stderr = rtk(*words, "shapes.pt", "--backend", "trt", code=1).stderr.strip()
    assert stderr.startswith("rtk: trt: ")
    assert stderr.endswith("without a GPU use --backend onnx")
    assert len(stderr.splitlines()) == 1


def test_an_engine_cannot_be_exported_from_an_engine_nor_a_graph_from_a_graph(rtk: Rtk, graph_path: Path) -> None:
    refused = rtk("export", str(graph_path), code=2).stderr
    assert refused == f"rtk: {graph_path}: is a graph already; to build an engine: rtk export --trt {graph_path}\n"
    Path("mine.engine").touch()
    for words in ([], ["--trt"], ["--trt", "--triton", "models"]):
        refused = rtk("export", "mine.engine", *words, code=2).stderr
        assert refused == "rtk: mine.engine: is an engine already; expected a checkpoint or a graph\n"
    words = ["--triton", "models", "--precision", "fp16"]
    assert "expected a checkpoint" in rtk("export", str(graph_path), *words, code=2).stderr


def test_a_triton_repository_is_written_from_checkpoints_graphs_and_engines(
    rtk: Rtk, graph_path: Path, checkpoint_path: Path
) -> None:
    done = rtk("export", str(graph_path), "--triton", "models", "--max-batch", "32")
    assert done.stdout == "models/tiny\n"
    assert "tritonserver --model-repository=models" in done.stderr
    assert "max_batch_size: 32" in Path("models/tiny/config.pbtxt").read_text()
    printed = rtk("export", str(checkpoint_path), "--precision", "fp16", "--triton", "models", "--out", ".").stdout
    assert printed == "tiny.fp16.onnx\nmodels/tiny.fp16\n"
    words = ["--trt", "--flavor", "tensorrt-rtx", "--triton", "others", "--out", "built"]
    assert "not of TensorRT-RTX" in rtk("export", str(graph_path), *words, code=2).stderr
    assert not Path("others").exists()
    assert not Path("built").exists()


def test_an_unknown_flavor_is_refused_before_any_file_is_written(rtk: Rtk, shapes_model: Path) -> None:
    before = sorted(os.listdir())
    assert "'rtx' is unknown" in rtk("export", "shapes.pt", "--trt", "--flavor", "rtx", code=2).stderr
    assert sorted(os.listdir()) == before


def test_a_regression_beyond_noise_ends_with_exit_code_4(rtk: Rtk, tmp_path: Path) -> None:
    kept = json.loads(
        next((Path(__file__).parent.parent.parent / "bench" / "results").glob("*cifar10*.json")).read_text()
    )
    for name, second in (("old", 0.01), ("new", 0.0125)):
        cells = [
            {
                "backend": "onnx",
                "batch": 8,
                "precision": "fp32",
                "scope": "sync",
                "error": "",
                "rounds": [[second * (1 + k % 3 / 100)] * 3 for k in range(12)],
            }
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(kept | {"cells": cells}))
    done = rtk("bench", "--compare", "old.json", "new.json", code=4)
    assert "slower" in done.stdout
    assert "1 of 1 cells are slower by more than 5 %, onnx at batch 8 by 20.0 %" in done.stderr
    rtk("bench", "--compare", "old.json", "new.json", "--limit", "25")
    assert "faster" in rtk("bench", "--compare", "new.json", "old.json").stdout


# Precision and the parity gate.


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_lower_precision_has_its_own_graph_and_an_engine_of_that_precision(
    rtk: Rtk, shapes_model: Path, precision: str
) -> None:
    done = rtk("export", "shapes.pt", "--precision", precision, "--trt")
    assert done.stdout.split() == [f"shapes.{precision}.onnx", f"shapes.{precision}.engine"]
    assert f"precision: {precision} (" in done.stderr
    assert json.loads(rtk("inspect", f"shapes.{precision}.onnx", "--json").stdout)["precision"] == precision


def test_int8_is_calibrated_on_training_images_and_explained_by_layer(rtk: Rtk, shapes_model: Path) -> None:
    done = rtk("export", "shapes.pt", "--precision", "int8", "--int8-flavor", "cpu")
    assert done.stdout.strip() == "shapes.int8.onnx"
    assert "on 1,000 training images" in done.stderr
    card = json.loads(rtk("inspect", "shapes.int8.onnx", "--json").stdout)
    assert card["notes"]["export"]["calibration"]["dataset"] == "shapes, training split"
    words = ["--backend", "onnx", "--batch", "8", "--seconds", "0.1", "--require-parity", "5", "--no-baselines"]
    assert "onnx int8: " in rtk("bench", "shapes.int8.onnx", *words).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "fp8"], "'fp8' is unknown"),
        (["--precision", "int8", "--int8-flavor", "gpu"], "int8 flavor 'gpu' is unknown"),
        (["--keep-fp32", "stem"], "--keep-fp32: only for --precision int8"),
    ],
)
def test_contradictory_export_options_are_refused(rtk: Rtk, shapes_model: Path, words: list[str], message: str) -> None:
    assert message in rtk("export", "shapes.pt", *words, code=2).stderr


def test_the_parity_gate_can_fail(rtk: Rtk, shapes_model: Path, tmp_path: Path) -> None:
    """A graph of other weights that claims to be this checkpoint's is refused with exit code 4 and the numbers."""
    rtk("export", "shapes.pt")
    graph = onnx.load(tmp_path / "shapes.onnx")
    onnx.save(faulty(graph, logit_moved(9, 40)), tmp_path / "altered.onnx")  # every image is of the last class
    words = ["--backend", "onnx", "--batch", "8", "--seconds", "0.1", "--no-baselines"]
    assert "NO PARITY" in rtk("bench", "altered.onnx", *words).stdout
    refused = rtk("bench", "altered.onnx", *words, "--require-parity", "default", code=4)
    assert refused.stdout.split("The worst answers of onnx\n\n")[1].count("\n") == 1 + 20  # a heading
    stderr = refused.stderr
    assert "onnx: no parity with the reference in fp32" in stderr


@pytest.mark.usefixtures("without_self_check")
def test_bench_ends_with_0_for_parity_4_for_no_parity_and_5_if_the_images_are_too_few(
    rtk: Rtk, shapes_model: Path, tmp_path: Path
) -> None:
    """The test split of shapes has 2,000 images: without any changed answer, they show a loss below 0.192 points."""
    rtk("export", "shapes.pt")
    words = ["--backend", "onnx", "--batch", "8", "--seconds", "0.1", "--no-baselines", "--require-parity"]
    parity = rtk("bench", "shapes.onnx", *words, "0.3")
    assert "onnx (fp32): parity (" in parity.stdout
    too_few = rtk("bench", "shapes.onnx", *words, "default", code=5)
    assert "onnx (fp32): inconclusive (" not in too_few.stdout, "with the checks, not in one line"
    assert "onnx (fp32): inconclusive\n" in too_few.stdout
    assert too_few.stderr.startswith("rtk: onnx: inconclusive in fp32: accuracy kept: ")
    assert (
        "2,000 images cannot show so small a loss even if no answer changes; that needs at least 7,680"
        in too_few.stderr
    )
    assert too_few.stderr.endswith("these can show a loss below 0.2: --require-parity 0.2 passes\n")
    assert "onnx (fp32): parity (" in rtk("bench", "shapes.onnx", *words, "0.2").stdout
    graph = onnx.load(tmp_path / "shapes.onnx")
    onnx.save(faulty(graph, logit_moved(9, 40)), tmp_path / "altered.onnx")  # every image is of the last class
    for name, margin in (("altered.onnx", "0.3"), ("altered.onnx", "default")):
        refused = rtk("bench", name, *words, margin, code=4)
        assert "rtk: onnx: no parity with the reference in fp32: within fp32 tolerance: " in refused.stderr


@pytest.mark.usefixtures("without_self_check")
def test_a_graph_that_is_right_in_one_batch_size_only_is_refused(rtk: Rtk, shapes_model: Path, tmp_path: Path) -> None:
    rtk("export", "shapes.pt")
    graph = onnx.load(tmp_path / "shapes.onnx")
    onnx.save(faulty(graph, negated_unless(250)), tmp_path / "altered.onnx")
    words = ["--backend", "onnx", "--batch", "8", "--seconds", "0.1", "--no-baselines", "--require-parity", "0.3"]
    refused = rtk("bench", "altered.onnx", *words, code=4).stderr
    assert "no parity with the reference in fp32: the same in every batch: asked again, and in batches of " in refused


@pytest.mark.usefixtures("without_self_check")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_graph_whose_card_has_other_classes_is_refused(
    rtk: Rtk, shapes_model: Path, tmp_path: Path, precision: str
) -> None:
    """The answers are the same, and classify would name every image wrongly."""
    rtk("export", "shapes.pt", "--precision", precision, "--out", "made")
    (made,) = (tmp_path / "made").iterdir()
    graph, card = load_graph(made)
    set_card(graph, replace(card, classes=(*card.classes[1:], card.classes[0])))
    onnx.save(graph, tmp_path / "rotated.onnx")
    words = ["--backend", "onnx", "--batch", "8", "--seconds", "0.1", "--no-baselines", "--require-parity", "5"]
    refused = rtk("bench", "rotated.onnx", *words, code=4).stderr
    assert f"no parity with the reference in {precision}: the reference's card: its card has other classes" in refused
