"""Every command that the documentation shows exists with these options, and the quick ones are run."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from docs.pages import PAGES, commands_in, inline_commands_in, snippets_in, text_of
from PIL import Image
from rtk.cli.app import app
from rtk.core.data.synthetic_shapes import SHAPES_CLASSES, draw_shapes

RUN = (
    "rtk train resnet20v1 --dataset pets --recipe quick --out run",
    "rtk train --resume run",
    "rtk export run/best.pt",
    "rtk export run/best.pt --precision fp16",
    "rtk export --trt run/best.pt",
    "rtk export run/best.pt --triton models",
    "rtk inspect run/resnet20v1-pets-s0.onnx",
    "rtk inspect resnet20v1-cifar10 --json",
    "rtk classify photos --top-k 2",
    "rtk classify photos --model run/best.pt --top-k 3",
    "rtk classify photos --output answers.csv",
    "rtk classify photos --format jsonl",
    "rtk classify photos --sort-into sorted",
    "rtk classify photos --report least-certain.html",
    "rtk classify photos --backend onnx",
    "rtk eval run/best.pt --report eval",
    "rtk eval run/best.pt --per-image images.csv",
    "rtk models",
    "rtk models resnet18 --image-size 96 --channels 1",
    "rtk doctor",
    "rtk cache ls",
    "rtk cache verify",
    "rtk cache clear",
)
"""Shown commands that run in a few seconds each without a download, in an order in which each finds its files."""
RUN_A_MINUTE = ("rtk train resnet20v1 --dataset pets --recipe quick --out run", "rtk bench run/best.pt --dataset pets")


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """Return the Click command that these words call, and the rest of the words. Raises KeyError without one."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def options_of(command: Any) -> set[str]:
    """Return the spellings of all options of a command."""
    spelled = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return {name for name in spelled if name.startswith("-")} | {"-h", "--help"}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with `photos`, and with the data set `pets` of two classes; it is the working directory."""
    images_NHWC, labels_N = draw_shapes(2_000, seed=3)
    for split, start, count in (("train", 0, 100), ("test", 100, 40)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for index in np.flatnonzero(labels_N == label)[start : start + count]:
                Image.fromarray(images_NHWC[index]).save(folder / f"{index}.png")
    (tmp_path / "photos").mkdir()
    for number, (image_HWC, label) in enumerate(zip(images_NHWC[:6], labels_N, strict=False), 1):
        for suffix in ("png", "jpg"):
            Image.fromarray(image_HWC).save(tmp_path / "photos" / f"{number}.{suffix}")
        assert SHAPES_CLASSES[label]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / ".cache"))
    return tmp_path


def run(words: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a program in the working directory."""
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80"}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_shown_command_parses(page: Path) -> None:
    for words in commands_in(text_of(page)):
        command, rest = command_of(words)
        context = command.make_context("rtk", list(rest))
        assert context.params is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_sentence_exists_with_its_options(page: Path) -> None:
    for words in inline_commands_in(text_of(page)):
        command, rest = command_of(words)
        options = {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"}
        assert options <= options_of(command), words


def test_commands_are_found_in_code_blocks_and_sentences() -> None:
    text = """
    $ rtk train resnet20v1 --out run
    loss 1.0, as rtk's output says
    find . | rtk classify - && A=b rtk doctor   # it's a comment
    torchrun --nproc-per-node 8 -m rtk train resnet50
    rtk export \\
        run/best.pt

Use `rtk bench MODEL --batch 1`, not `make demo`.
"""
    assert commands_in(text) == [
        ["train", "resnet20v1", "--out", "run"],
        ["classify", "-"],
        ["doctor"],
        ["train", "resnet50"],
        ["export", "run/best.pt"],
    ]
    assert inline_commands_in(text) == [["bench", "MODEL", "--batch", "1"]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("rtk evaluate run/best.pt", "evaluate"),
        ("rtk train resnet20v1 --epoch 5", "No such option: --epoch"),
        ("rtk bench --batch", "requires an argument"),
    ],
)
def test_a_command_that_does_not_exist_is_found(wrong: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        command, rest = command_of(shlex.split(wrong)[1:])
        command.make_context("rtk", list(rest))


def run_as_shown(lines: tuple[str, ...]) -> None:
    """Run commands that the documentation shows; each must succeed."""
    shown = [words for page in PAGES for words in commands_in(text_of(page))]
    for line in lines:
        words = shlex.split(line)[1:]
        assert words in shown, f"{line}: not in the documentation"
        done = run([sys.executable, "-m", "rtk", *words])
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("workspace")
def test_a_benchmark_runs_as_it_is_shown() -> None:
    run_as_shown(RUN_A_MINUTE)


@pytest.mark.slow
def test_the_quick_commands_run(workspace: Path) -> None:
    run_as_shown(RUN)
    assert {path.name for path in (workspace / "run").iterdir()} >= {
        "best.pt",
        "resnet20v1-pets-s0.onnx",
        "resnet20v1-pets-s0.engine",
        "curves.png",
    }


@pytest.mark.parametrize("page", [page for page in PAGES if snippets_in(text_of(page))], ids=lambda page: page.name)
@pytest.mark.usefixtures("workspace")
def test_every_python_snippet_runs(page: Path) -> None:
    for snippet in snippets_in(text_of(page)):
        done = run([sys.executable, "-c", snippet])
        assert done.returncode == 0, f"{snippet}\n{done.stderr}"


def test_there_are_snippets() -> None:
    assert {page.name for page in PAGES if snippets_in(text_of(page))} == {"README.md", "python.md"}
