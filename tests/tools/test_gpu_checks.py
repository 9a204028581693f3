"""make gpu: it resumes, keeps results of one machine and one state of the code, and runs dry without a GPU."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from rtk.core.errors import (
    ArtifactError,
    BackendError,
    OtherGpuError,
    RtkError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)
from rtk.core.machine import this_machine
from rtk.tools import gpu_checks, gpu_record
from rtk.tools.gpu_steps import ROOT, Step, steps

REPORT = {
    "model": {"name": "resnet20v1-cifar10"},
    "machine": {"gpu": "NVIDIA H100 80GB HBM3"},
    "date": "2026-12-01 10:00 UTC",
    "parity": [
        {
            "candidate": "trt fp16",
            "images": 10000,
            "reference_correct": 9278,
            "candidate_correct": 9277,
            "agreeing": 9998,
        }
    ],
    "cells": [
        {"backend": "trt", "precision": "fp16", "scope": scope, "batch": batch, "images_per_s": rate, "error": error}
        for scope, batch, rate, error in (
            ("sync", 1, 9_000.4, ""),
            ("compute", 256, 812_000.4, ""),
            ("stream", 64, 70_000.0, ""),
            ("stream", 4096, 0.0, "out of GPU memory"),
        )
    ],
    "unusable": {"onnx": "not installed"},
}
"""The parts of a report of `rtk bench` that are read."""


def exit_with(code: int, *words: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; print({' '.join(words)!r}); sys.exit({code})"]


def clean_environment() -> dict[str, str]:
    """The environment without what the Makefile reads."""
    read = ("OUT", "STEPS", "PYTHON", "DRY", "ANEW", "VENV", "MAKEFLAGS")
    return {name: value for name, value in os.environ.items() if name not in read}


def step(command: list[str], **fields: Any) -> Step:
    return Step("something", command, fields.pop("dry", command), "the rest", **fields)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Step]:
    """The steps that there are; a test fills them in."""
    table: dict[str, Step] = {}
    monkeypatch.setattr(gpu_checks, "steps", lambda out: table)
    return table


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an H100."""
    machine = replace(this_machine(), gpu="NVIDIA H100 80GB HBM3", driver="580.1")
    monkeypatch.setattr(gpu_checks, "gpu_count", lambda: 1)
    for module in (gpu_checks, gpu_record):
        monkeypatch.setattr(module, "this_machine", lambda: machine)


def results(folder: Path) -> dict[str, Any]:
    """The steps of summary.json."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())["steps"]
    return found


# Steps.


def test_a_failed_step_is_counted_and_the_next_one_runs(tmp_path: Path, known: dict[str, Step]) -> None:
    known |= {"a": step(exit_with(1)), "b": step(exit_with(0))}
    assert gpu_checks.run_steps(tmp_path, []) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt", "summary.json", "summary.md"]


def test_the_tests_of_a_step_report_as_usual_whatever_the_user_prefers(
    tmp_path: Path, known: dict[str, Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    known["a"] = step([sys.executable, "-m", "pytest", "-q", str(tmp_path / "test_one.py")])
    monkeypatch.setenv("PYTEST_ADDOPTS", "-q")  # with the step's own -q, pytest would count nothing
    assert gpu_checks.run_steps(tmp_path, []) == 0
    assert "1 passed in" in results(tmp_path)["a"]["found"][-1]


# A shell may have started the tests in the background, where SIGINT is ignored.
INTERRUPTED = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize("stopped", [exit_with(130), [sys.executable, "-c", INTERRUPTED]])
@pytest.mark.usefixtures("with_gpu")
def test_ctrl_c_in_a_step_ends_all(
    stopped: list[str], tmp_path: Path, known: dict[str, Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    known |= {"a": step(stopped), "b": step(exit_with(0))}
    monkeypatch.setattr(sys, "argv", ["gpu_checks", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        gpu_checks.main()
    assert ended.value.code == 130
    assert not (tmp_path / "b.txt").exists()


def test_a_step_that_takes_too_long_is_stopped_and_keeps_what_it_said(
    tmp_path: Path, known: dict[str, Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    known["a"] = step([sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"])
    monkeypatch.setattr(gpu_checks, "STEP_TIMEOUT_S", 2)
    assert gpu_checks.run_steps(tmp_path, []) == 1
    assert (results(tmp_path)["a"]["exit_code"], results(tmp_path)["a"]["found"]) == (
        124,
        ["begun", "stopped after 2 s"],
    )


def test_an_unknown_step_is_named_before_any_runs(tmp_path: Path, known: dict[str, Step]) -> None:
    known["bench"] = step(exit_with(0))
    with pytest.raises(UnknownNameError, match=r"^step 'banch' is unknown; did you mean bench\? known: bench$"):
        gpu_checks.run_steps(tmp_path / "out", ["bench", "banch"])
    assert not (tmp_path / "out").exists()


# Resuming.


def test_a_second_run_repeats_only_what_did_not_end_well(
    tmp_path: Path, known: dict[str, Step], capsys: pytest.CaptureFixture[str]
) -> None:
    known |= {"a": step(exit_with(0, "first")), "b": step(exit_with(3))}
    assert gpu_checks.run_steps(tmp_path, []) == 1
    known |= {"a": step(exit_with(0, "second")), "b": step(exit_with(0)), "c": step(exit_with(0))}
    capsys.readouterr()
    assert gpu_checks.run_steps(tmp_path, []) == 0
    assert (tmp_path / "a.txt").read_text() == "first\n"
    assert {name: one["exit_code"] for name, one in results(tmp_path).items()} == {"a": 0, "b": 0, "c": 0}
    assert re.search(r"^== a: ended well on \S+ \S+ UTC, is not run again$", capsys.readouterr().out, re.MULTILINE)


def test_anew_repeats_all(tmp_path: Path, known: dict[str, Step]) -> None:
    known["a"] = step(exit_with(0, "first"))
    gpu_checks.run_steps(tmp_path, [])
    known["a"] = step(exit_with(0, "second"))
    gpu_checks.run_steps(tmp_path, [], anew=True)
    assert (tmp_path / "a.txt").read_text() == "second\n"


@pytest.mark.parametrize("name", ["commit", "code", "GPU", "driver", "torch"])
def test_results_of_another_machine_or_code_do_not_count(
    name: str,
    tmp_path: Path,
    known: dict[str, Step],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known |= {"a": step(exit_with(0)), "b": step(exit_with(0))}
    original = gpu_record.made_with
    monkeypatch.setattr(gpu_record, "made_with", lambda machine, *, dry: {**original(machine, dry=dry), name: "old"})
    gpu_checks.run_steps(tmp_path, [])
    monkeypatch.setattr(gpu_record, "made_with", lambda machine, *, dry: {**original(machine, dry=dry), name: "new"})
    capsys.readouterr()
    gpu_checks.run_steps(tmp_path, ["b"])
    said = f"rtk: {tmp_path}: its results are of {name} old, here it is new: every step runs anew"
    assert capsys.readouterr().out.splitlines()[0] == said
    assert list(results(tmp_path)) == ["b"]
    assert not (tmp_path / "a.txt").exists()


def test_a_summary_that_was_cut_off_does_not_count(
    tmp_path: Path, known: dict[str, Step], capsys: pytest.CaptureFixture[str]
) -> None:
    known["a"] = step(exit_with(0))
    (tmp_path / "summary.json").write_text('{"dry": fal')
    assert gpu_checks.run_steps(tmp_path, []) == 0
    assert f"rtk: {tmp_path / 'summary.json'} cannot be read: every step runs anew\n" in capsys.readouterr().out


def test_code_counts_by_its_content(tmp_path: Path) -> None:
    for path in ("train/__init__.py", "tests/test_a.py", "build/b.py"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).touch()
    first = gpu_record.code_sha256(tmp_path)
    (tmp_path / "build" / "b.py").write_text("1")
    assert gpu_record.code_sha256(tmp_path) == first
    (tmp_path / "tests" / "test_a.py").write_text("1")
    assert gpu_record.code_sha256(tmp_path) != first


# What is kept.


def test_the_summary_names_machine_versions_command_result_and_files(tmp_path: Path, known: dict[str, Step]) -> None:
    write = (
        f"import os; open(os.environ['OUT'] + '/a.json', 'w').close(); print('in', os.environ['OUT'], {str(ROOT)!r})"
    )
    known["a"] = step([sys.executable, "-c", write], files=("a.json", "not-written.json"))
    gpu_checks.run_steps(tmp_path, [])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["machine"]["processor"] == summary["made_with"]["processor"] == this_machine().processor
    assert summary["made_with"]["numpy"] == this_machine().libraries["numpy"]
    record = summary["steps"]["a"]
    assert record["files"] == ["a.txt", "a.json"]
    assert (record["exit_code"], record["found"]) == (0, ["in OUT ."])
    assert record["command"].startswith("python3 -c ")
    page = (tmp_path / "summary.md").read_text()
    for words in ("| a | ok |", "`a.txt`, `a.json`", "Shows something.", "in OUT .", this_machine().processor):
        assert words in page
    assert str(tmp_path) not in page
    assert str(ROOT) not in page


def test_a_report_is_shown_by_its_parity_its_best_rates_and_what_did_not_run(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    assert gpu_record.report_lines(tmp_path / "report.json") == (
        "trt fp16: 9,277 of 10,000 right, PyTorch 9,278; 9,998 answers the same",
        "trt fp16: 812,000 images/s at most (compute, batch 256)",
        "onnx: not run: not installed",
    )


@pytest.mark.usefixtures("with_gpu")
def test_the_table_is_kept_by_machine_model_and_date(
    tmp_path: Path, known: dict[str, Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (gpu_checks, gpu_record):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    code = (
        f"import os, pathlib; f = pathlib.Path(os.environ['OUT'], 'bench'); f.mkdir(); "
        f"(f / 'report.json').write_text({json.dumps(REPORT)!r}); (f / 'report.md').write_text('a table')"
    )
    script = tmp_path / "bench.py"
    script.write_text(code)
    known["bench"] = step([sys.executable, str(script)], files=("bench/report.json", "bench/report.md"))
    monkeypatch.setattr(sys, "argv", ["gpu_checks", str(tmp_path / "gpu" / "MACHINE")])
    with pytest.raises(SystemExit) as ended:
        gpu_checks.main()
    assert ended.value.code == 0
    assert results(tmp_path / "gpu" / "nvidia-h100-80gb-hbm3")["bench"]["exit_code"] == 0
    kept = tmp_path / "nvidia-h100-80gb-hbm3_resnet20v1-cifar10_2026-12-01.json"
    assert json.loads(kept.read_text())["date"] == "2026-12-01 10:00 UTC"
    assert kept.with_suffix(".md").read_text() == "a table"


# Without a GPU.


def test_without_a_gpu_it_ends_at_once_with_one_line(tmp_path: Path) -> None:
    # Python finds neither NumPy nor typer here, as where it is not the interpreter of an environment.
    code = (
        "import sys, runpy; sys.modules |= dict.fromkeys(['numpy', 'typer', 'torch'])\n"
        f"sys.argv = ['gpu_checks', {str(tmp_path / 'out')!r}]\n"
        "runpy.run_module('rtk.tools.gpu_checks', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"rtk: this needs an NVIDIA GPU: .+; to try it on the CPU: make gpu DRY=1\n", done.stderr)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_needs_a_gpu(
    tmp_path: Path, known: dict[str, Step], capsys: pytest.CaptureFixture[str]
) -> None:
    known |= {"a": step(exit_with(9), dry=exit_with(0, "small")), "b": step(exit_with(9), dry=[])}
    assert gpu_checks.run_steps(tmp_path, [], dry=True) == 0
    assert capsys.readouterr().out.count("because it needs a GPU: the rest") == 2
    assert [(one["exit_code"], one["found"]) for one in results(tmp_path).values()] == [(0, ["small"]), (None, [])]
    page = (tmp_path / "summary.md").read_text()
    assert page.startswith("# Dry run of the GPU checks, on a CPU\n")
    assert page.count("Needs a GPU: the rest.") == 2
    assert "| b | needs a GPU |" in page


def test_a_dry_run_never_writes_among_the_results(known: dict[str, Step]) -> None:
    folder = ROOT / "bench" / "results" / "gpu"
    with pytest.raises(UsageError, match="results of a dry run do not belong in bench/results; name another folder"):
        gpu_checks.run_steps(folder, [], dry=True)
    assert not folder.exists() or not (folder / "images").exists()


@pytest.mark.parametrize("name", [name for name, one in steps(Path()).items() if "rtk" in one.command])
def test_rtk_knows_every_option_of_a_step(name: str, command_line: Callable[..., tuple[str, str]]) -> None:
    command = steps(Path("out"))[name].command
    words = command[command.index("rtk") + 1 :]
    known, _ = command_line(words[0], "--help")
    for option in (word for word in words if word.startswith("--")):
        assert f"{option} " in known, (name, option)


@pytest.mark.parametrize("name", [name for name, one in steps(Path()).items() if one.command[1].endswith(".py")])
def test_every_script_knows_every_option_of_its_step(name: str) -> None:
    for command in (steps(Path("out"))[name].command, steps(Path("out"))[name].dry):
        source = Path(command[1]).read_text(encoding="utf-8")
        for option in (word for word in command if word.startswith("--")):
            assert f'"{option}"' in source, (name, option)


@pytest.mark.slow
def test_a_dry_run_tries_every_step_and_a_second_one_none(tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "bench" / "results").rglob("*")}
    make = ["make", "-s", "-C", str(ROOT), "gpu", "DRY=1", f"OUT={tmp_path / 'dry'}", f"PYTHON={sys.executable}"]
    first = subprocess.run(make, capture_output=True, text=True, env=clean_environment())
    assert first.returncode == 0, first.stdout + first.stderr
    expected = {name: 0 if one.dry else None for name, one in steps(Path()).items()}
    assert {name: one["exit_code"] for name, one in results(tmp_path / "dry").items()} == expected
    assert first.stdout.count("\nnot tried here, because it needs a GPU: ") == len(expected)
    assert re.search(r"\d+ skipped, \d+ deselected", " ".join(results(tmp_path / "dry")["tests"]["found"]))
    second = subprocess.run(make, capture_output=True, text=True, env=clean_environment())
    assert second.stdout.count(", is not run again") == sum(code == 0 for code in expected.values())
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "bench" / "results").rglob("*")} == before


def test_results_are_those_of_the_real_folder_also_through_the_link_of_make(tmp_path: Path) -> None:
    (tmp_path / "rtk").symlink_to(ROOT)
    code = "from rtk.tools import gpu_checks; print(gpu_checks.__file__, gpu_checks.RESULTS)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    file, found = shown.stdout.split()
    assert Path(file).is_relative_to(tmp_path / "rtk")
    assert Path(found) == ROOT.resolve() / "bench" / "results"
    assert gpu_checks._without_paths(f"{ROOT}/tools/x.py", tmp_path / "out") == "./tools/x.py"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"refused": "tensorrt-rtx is not installed"}, ""),
        ({"error": "cuda:0: out of GPU memory"}, "^tensorrt-rtx: an engine failed: cuda:0: out of GPU memory$"),
        ({"same_answers": 255}, "^tensorrt-rtx: 255 of 256 answers are those of PyTorch$"),
        ({"same_answers": 256}, ""),
    ],
)
def test_an_engine_that_fails_or_answers_otherwise_fails_its_step_and_a_refusal_does_not(
    found: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtk.tools import gpu_engines

    result: dict[str, object] = {"flavor": "tensorrt-rtx", **found}
    monkeypatch.setattr(gpu_engines, "_results", lambda *_, **__: [result])
    with pytest.raises(BackendError, match=message) if message else contextlib.nullcontext():
        gpu_engines.check_engines(tmp_path)
    assert json.loads((tmp_path / "engine.json").read_text())["engines"] == [result]


def test_a_tensorrt_that_is_not_installed_is_a_refusal_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message of `--flavor` is another one than that of a module that is missing."""
    from rtk.tools import gpu_engines

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *more: None if "tensorrt" in name else find(name, *more))
    monkeypatch.setattr(gpu_engines, "IMAGES", 2)
    gpu_engines.check_engines(tmp_path)
    found = [(one["flavor"], one["refused"]) for one in json.loads((tmp_path / "engine.json").read_text())["engines"]]
    expected = "--flavor {}: not installed; pip install {}"
    names = ("tensorrt", "tensorrt-rtx", "tensorrt-rtx")
    assert [name for name, _ in found] == list(names)
    assert all(text.startswith(expected.format(name, name)) for name, text in found)


@pytest.mark.parametrize(
    ("refusal", "key"),
    [
        (UnavailableError("tensorrt-rtx 1.7 does not support this GPU (UNSUPPORTED_CC)"), "refused"),
        (OtherGpuError("an.engine: built for compute capability 8.0"), "refused"),
        (BackendError("cuda:0: out of GPU memory"), "error"),
        (ArtifactError("an.engine: truncated"), "error"),
    ],
)
def test_what_kind_of_error_it_is_decides_and_not_its_words(
    refusal: RtkError, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtk.tools import gpu_engines

    def engine(config: object) -> None:
        raise refusal

    monkeypatch.setattr(gpu_engines, "engine_from_onnx", engine)
    monkeypatch.setattr(gpu_engines, "IMAGES", 2)
    with pytest.raises(BackendError, match="an engine failed") if key == "error" else contextlib.nullcontext():
        gpu_engines.check_engines(tmp_path)
    engines = json.loads((tmp_path / "engine.json").read_text())["engines"]
    assert [one.get(key) for one in engines] == [str(refusal)] * 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "python3 -m rtk.tools.gpu_checks bench/results/gpu/MACHINE"),
        (["OUT=out", "STEPS=engine bench", "ANEW=1"], "python3 -m rtk.tools.gpu_checks out engine bench --anew"),
        (["DRY=1", "VENV=none"], "python3 -m rtk.tools.gpu_checks build/gpu-dry --dry"),
    ],
)
def test_make_gpu_passes_its_variables_on(words: list[str], expected: str) -> None:
    shown = subprocess.run(
        ["make", "-n", "-C", str(ROOT), "gpu", *words], capture_output=True, text=True, env=clean_environment()
    )
    assert expected in " ".join(shown.stdout.split())
