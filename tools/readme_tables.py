"""Fill in the generated parts of README.md and docs/*.md: python -m rtk.tools.readme_tables [--tables].

A generated part is between `<!-- NAME:begin -->` and `<!-- NAME:end -->`:

    headline    accuracy, best throughput and parity of every model that was measured
    zoo         the models of core/zoo/*.json
    measured    the newest report of every machine and model in bench/results/*.json
    published   published accuracies next to rtk's own trainings
    limits      the limits of the parity gate, by precision
    bounds      examples of the gate's 95 % bound
    folders     every folder of the package, by the first line of its docstring
    own-data    starts and memory of a large data set of the user's own, from bench/results/own-data/*.json
    busy-machine    whether two runs on a busy machine agree, from bench/results/busy-machine/*.json
    gpu-parity, gpu-bench, gpu-training-speed, gpu-onnxruntime
                measured on a GPU, from bench/results/gpu/*.json
    int8        int8 graphs of rtk and of other programs, from bench/results/int8/*.json
    commands    what the commands of the README's tour print
    files       what `rtk bench-files` prints

The README's picture, docs/throughput.png, is drawn from the same reports. `commands` and `files` run commands, which
takes minutes because one of them trains; `--tables` leaves them as they are and makes everything else from files.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..cli.options import run_module
from ..core.data.images import encoded_image
from ..core.data.open_dataset import open_dataset
from ..core.errors import ArtifactError, BackendError
from ..core.files import make_folder, write_whole
from .readme_blocks import RESULTS, ROOT, newest_reports, picture_report, table_blocks
from .readme_picture import write_picture

PICTURE = Path("docs") / "throughput.png"
SHOWN_COLUMNS = 80
IMAGES_SHOWN = 6
SHOWN = (
    ("train", "resnet20v1", "--recipe", "quick", "--out", "run"),
    ("export", "--trt", "run/best.pt"),
    ("classify", "images", "--top-k", "2"),
    ("bench", "--batch", "64", "--seconds", "8"),
)
"""The README's tour, run in a temporary folder in which `images` holds some images of the test split."""
FILES_SHOWN = (
    ("bench-files", "--backend", "onnx"),
    ("bench-files", "--backend", "openvino", "--precision", "int8"),
)


def readme_tables(
    tables: Annotated[bool, typer.Option("--tables", help="Use files only; run no command.")] = False,
    root: Annotated[Path, typer.Option(help="Folder with README.md and docs/.")] = ROOT,
    folder: Annotated[Path, typer.Option("--from", help="Folder of the reports.")] = RESULTS,
) -> None:
    """Fill in the generated parts of README.md and docs/*.md, and draw the README's picture."""
    blocks = table_blocks(folder)
    if not tables:
        blocks |= {"commands": commands_block(SHOWN), "files": commands_block(FILES_SHOWN)}
    report = picture_report(newest_reports(folder))
    if report:
        write_picture(report, root / PICTURE)
        print(root / PICTURE)
    for page, names in fill_pages(root, blocks).items():
        print(f"{page}: {', '.join(names)}")


# Pages and their markers.


def pages_of(root: Path) -> list[Path]:
    """Return README.md and the pages of docs/."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def fill_pages(root: Path, blocks: Mapping[str, str]) -> dict[Path, list[str]]:
    """Write each block into the pages that have its markers; return the names of the blocks by page.

    Raises ArtifactError, before anything is written, when no page has the markers of a block.
    """
    texts = {page: page.read_text(encoding="utf-8") for page in pages_of(root)}
    names = {page: [name for name in blocks if f"<!-- {name}:begin -->" in text] for page, text in texts.items()}
    missing = [name for name in blocks if not any(name in found for found in names.values())]
    if missing:
        raise ArtifactError(
            f"{root}: no page has the markers <!-- {missing[0]}:begin --> and <!-- {missing[0]}:end -->"
        )
    for page, text in texts.items():
        if names[page]:
            write_whole(page, filled(text, {name: blocks[name] for name in names[page]}))
    return {page: found for page, found in names.items() if found}


def filled(text: str, blocks: Mapping[str, str]) -> str:
    """Return the text with each block between its markers. Raises ArtifactError where markers are missing."""
    for name, block in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ArtifactError(f"the markers {begin} and {end}: expected once, one after the other")
        inside = f"\n\n{block}\n\n" if block else "\n"
        text = pattern.sub(lambda match, whole=f"{begin}{inside}{end}": whole, text)  # type: ignore[misc]
    return text


def block_in(text: str, name: str) -> str:
    """Return the text between the markers of that name, without the empty lines around it."""
    match = re.search(f"<!-- {name}:begin -->(.*?)<!-- {name}:end -->", text, re.DOTALL)
    if match is None:
        raise ArtifactError(f"the markers of {name!r} are missing")
    return match[1].strip("\n")


# Blocks that are made by running commands.


def commands_block(commands: Sequence[Sequence[str]]) -> str:
    """Return what these commands of rtk print, both streams as in a terminal. Raises BackendError when one fails."""
    with tempfile.TemporaryDirectory(prefix="rtk-results-") as folder:
        _write_images(Path(folder) / "images")
        return "\n\n".join(
            f"    $ rtk {' '.join(words)}\n{_indented(_output_of(words, Path(folder)))}" for words in commands
        )


def _output_of(words: Sequence[str], folder: Path) -> str:
    environment = {
        **os.environ,
        "RTK_CACHE_DIR": str(folder / ".cache"),
        "NO_COLOR": "1",
        "COLUMNS": str(SHOWN_COLUMNS),
        "PYTHONUNBUFFERED": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "rtk", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BackendError(f"rtk {' '.join(words)}: exit code {done.returncode}: {done.stdout.strip()}")
    return done.stdout.replace(f"{folder}/", "").replace(f"{ROOT}/", "").rstrip()


def _write_images(folder: Path) -> None:
    """Write the first images of CIFAR-10's test split, each named by its label."""
    dataset = open_dataset("cifar10")
    split = dataset.split("test").head(IMAGES_SHOWN)
    make_folder(folder)
    for number, (image_HWC, label) in enumerate(zip(split.images_NHWC, split.labels_N, strict=True), 1):
        write_whole(folder / f"{number}-{dataset.classes[label]}.png", encoded_image(image_HWC))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


if __name__ == "__main__":
    run_module(readme_tables)
