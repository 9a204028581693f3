"""The README's generated parts, made from files: python -m rtk.tools.readme_tables [--tables].

Between `<!-- NAME:begin -->` and `<!-- NAME:end -->` stand: `zoo`, the models of core/zoo/*.json; `measured`, the
newest report of every machine and model in bench/results/*.json; `published`, what others report beside rtk's own
trainings; `commands`, what the four commands really print; and `files`, what rtk bench-files prints. The tables follow
from files alone; running the commands takes minutes, for one of them trains, and --tables leaves them as they are.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..bench.report.notes import notes_on
from ..bench.report.report import Report, read_report
from ..bench.report.tables import parity_table, report_table
from ..cli.options import run_module
from ..core.card import ModelCard, Training
from ..core.data.datasets import open_dataset
from ..core.data.images import encoded_image
from ..core.errors import ArtifactError, BackendError
from ..core.files import make_folder, write_whole
from ..core.models.summary import parameter_count
from ..core.text import markdown_table
from ..core.zoo import zoo_card, zoo_names
from ..train.augment.options import spelled
from ..train.recipes import NO_AUGMENTATION
from .published import kept_cards, table_rows

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "bench" / "results"
IMAGES_SHOWN = 6
SHOWN = (
    ("train", "resnet20v1", "--recipe", "quick", "--out", "run"),
    ("export", "--trt", "run/best.pt"),
    ("classify", "images", "--top-k", "2"),
    ("bench", "--batch", "1,64", "--seconds", "8"),
)
"""The four commands, run in a folder of their own in which `images` holds some of the test split."""
FILES_SHOWN = (
    ("bench-files", "--backend", "onnx"),
    ("bench-files", "--backend", "openvino", "--precision", "int8"),
)


def results(
    tables: Annotated[bool, typer.Option("--tables", help="Only the tables; run no command.")] = False,
    readme: Annotated[Path, typer.Option(help="The file to fill in.")] = README,
    folder: Annotated[Path, typer.Option("--from", help="The folder of reports.")] = RESULTS,
) -> None:
    """Fill in the generated parts of the README."""
    blocks = table_blocks(folder)
    if not tables:
        blocks |= {"commands": commands_block(SHOWN), "files": commands_block(FILES_SHOWN)}
    write_whole(readme, filled(readme.read_text(encoding="utf-8"), blocks))
    print(f"{readme}: {', '.join(blocks)}")


def table_blocks(folder: Path = RESULTS) -> dict[str, str]:
    """The parts that follow from files alone."""
    return {
        "zoo": zoo_block([zoo_card(name) for name in zoo_names()]),
        "measured": measured_block([read_report(path) for path in sorted(folder.glob("*.json"))]),
        "published": markdown_table(table_rows(kept_cards())),
    }


def filled(text: str, blocks: Mapping[str, str]) -> str:
    """The text with each of these blocks between its markers. Raises ArtifactError where markers are missing."""
    for name, block in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ArtifactError(f"the markers {begin} and {end}: expected once, one after the other")
        inside = f"\n\n{block}\n\n" if block else "\n"
        text = pattern.sub(lambda match, whole=f"{begin}{inside}{end}": whole, text)  # type: ignore[misc]
    return text


def block_in(text: str, name: str) -> str:
    """What stands between the markers of that name, without the empty lines around it."""
    match = re.search(f"<!-- {name}:begin -->(.*?)<!-- {name}:end -->", text, re.DOTALL)
    if match is None:
        raise ArtifactError(f"the markers of {name!r} are missing")
    return match[1].strip("\n")


def zoo_block(cards: Sequence[ModelCard]) -> str:
    """One row a model; nothing when there is none."""
    rows = []
    for card in cards:
        size, training, score = card.input, card.training, card.score
        parameters = parameter_count(card.arch, in_channels=card.preprocessing.channels, classes=len(card.classes))
        rows.append(
            {
                "model": f"`{card.name}`",
                "parameters": f"{parameters:,}",
                "input": f"{size.height} x {size.width} x {size.channels}",
                "right answers on the test split": f"{score.correct:,} of {score.total:,}" if score else "unknown",
                "accuracy": f"{score.accuracy:.2%}" if score else "unknown",
                "recipe": f"`{training.recipe}`, {training.epochs} epochs, seed {training.seed}" if training else "",
                "augmentation": augmentation_words(training) if training else "",
                "trained": f"{training.train_s / 60:,.0f} minutes on {training.machine}" if training else "",
            }
        )
    return markdown_table(rows) if rows else ""


def augmentation_words(training: Training) -> str:
    """What was done to the images, as --augment spells it."""
    nothing = asdict(NO_AUGMENTATION)
    used = training.settings.get("augmentation", {})
    return " ".join(f"`{spelled(name)}={value}`" for name, value in used.items() if value != nothing.get(name))


def measured_block(reports: Sequence[Report]) -> str:
    """The tables of the newest report of each machine and model; nothing when there is none."""
    newest: dict[tuple[str, str], Report] = {}
    for report in sorted(reports, key=lambda one: one.date):
        newest[report.machine.summary, report.model.name] = report
    return "\n\n".join(_tables_of(newest[one]) for one in sorted(newest))


def commands_block(commands: Sequence[Sequence[str]]) -> str:
    """What these commands of rtk's print, both streams as in a terminal. Raises BackendError when one fails."""
    with tempfile.TemporaryDirectory(prefix="rtk-results-") as folder:
        _write_images(Path(folder) / "images")
        return "\n\n".join(
            f"    $ rtk {' '.join(words)}\n{_indented(_printed_by(words, Path(folder)))}" for words in commands
        )


def _tables_of(report: Report) -> str:
    lines = [f"**{report.machine.summary}**: {report.model.name}, {report.date}, commit {report.machine.commit}", ""]
    lines += [f"- {name}: {runs_on}" for name, runs_on in report.backends.items()]
    lines += ["", markdown_table(report_table(report)), "", *(f"- {note}" for note in notes_on(report))]
    if report.parity:
        lines += [
            "",
            f"Parity on {report.dataset}, against PyTorch fp32:",
            "",
            markdown_table(parity_table(report.parity)),
        ]
    return "\n".join(lines)


def _printed_by(words: Sequence[str], folder: Path) -> str:
    environment = {
        **os.environ,
        "RTK_CACHE_DIR": str(folder / ".cache"),
        "NO_COLOR": "1",
        "COLUMNS": "120",
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
    """The first images of CIFAR-10's test split, each named by its label."""
    dataset = open_dataset("cifar10")
    split = dataset.split("test").head(IMAGES_SHOWN)
    make_folder(folder)
    for number, (image_HWC, label) in enumerate(zip(split.images_NHWC, split.labels_N, strict=True), 1):
        write_whole(folder / f"{number}-{dataset.classes[label]}.png", encoded_image(image_HWC))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


if __name__ == "__main__":
    run_module(results)
