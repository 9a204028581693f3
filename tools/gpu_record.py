"""What `make gpu` found: summary.json and summary.md in its folder, and whether an older summary still counts."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.files import write_whole
from ..core.json_text import json_text
from ..core.machine import Machine, this_machine
from .gpu_steps import ROOT

JSON, MARKDOWN = "summary.json", "summary.md"
RESULTS = ROOT / "bench" / "results"
FOLDERS = re.compile(r'(?<![^\s"(])(?:/(?:[\w.+-]+/)*?(?=rtk/core/)|(?:/[\w.+-]+)+/)')
"""The folders of an absolute path in a text; of rtk's own files those above rtk/."""
DIGITS = 6
"""Digits of a number in a kept report, which is a third smaller so; nothing is measured that exactly."""


@dataclass(frozen=True)
class StepRecord:
    """One step that ended."""

    shows: str
    command: str
    exit_code: int | None
    """None: a dry run left it out."""
    seconds: float
    date: str
    found: tuple[str, ...]
    needs_gpu: str
    """What a dry run cannot show; empty on a GPU."""
    files: tuple[str, ...]
    """Raw results in the folder of the summary."""

    @property
    def ok(self) -> bool:
        """Whether the step need not run again."""
        return self.exit_code == 0

    @property
    def result(self) -> str:
        """The result in two words."""
        if self.exit_code is None:
            return "needs a GPU"
        return "ok" if self.ok else f"exit code {self.exit_code}"


@dataclass
class Summary:
    """The steps that ran in one folder, all with the same code on the same machine."""

    out: Path
    dry: bool
    made_with: dict[str, str]
    """Commit, GPU, driver and versions: results of others do not count."""
    machine: Machine = field(default_factory=this_machine)
    steps: dict[str, StepRecord] = field(default_factory=dict)

    def write(self) -> None:
        """Write both files."""
        content = {
            "dry": self.dry,
            "machine": asdict(self.machine),
            "made_with": self.made_with,
            "steps": {name: asdict(record) for name, record in self.steps.items()},
        }
        write_whole(self.out / JSON, json_text(content, indent=1) + "\n")
        write_whole(self.out / MARKDOWN, self.markdown())

    def markdown(self) -> str:
        """The summary as a page."""
        title = "Dry run of the GPU checks, on a CPU" if self.dry else f"GPU checks on {self.machine.gpu}"
        versions = ", ".join(f"{name} {version}" for name, version in self.made_with.items() if version)
        lines = [f"# {title}", "", f"Machine: {self.machine.summary}.", "", f"Made with: {versions}.", ""]
        lines += ["| step | result | seconds | date | raw results |", "| --- | --- | ---: | --- | --- |"]
        for name, record in self.steps.items():
            files = ", ".join(f"`{file}`" for file in record.files)
            lines.append(f"| {name} | {record.result} | {record.seconds:.0f} | {record.date} | {files} |")
        for name, record in self.steps.items():
            lines += ["", f"## {name}", "", f"Shows {record.shows}."]
            if record.needs_gpu:
                lines += ["", f"Needs a GPU: {record.needs_gpu}."]
            if record.command:
                lines += ["", f"`{record.command}`"]
            if record.found:
                lines += ["", "```text", *record.found, "```"]
        return "\n".join(lines) + "\n"


def open_summary(out: Path, *, dry: bool, anew: bool) -> tuple[Summary, str]:
    """The summary of a folder, and a line that says why older results do not count; the line may be empty.

    The raw results of steps that do not count are removed.
    """
    machine = this_machine()
    summary = Summary(out, dry, made_with(machine, dry=dry), machine)
    try:
        old = json.loads((out / JSON).read_text(encoding="utf-8"))
        before: dict[str, str] = old["made_with"]
        records = {name: _record(fields) for name, fields in old["steps"].items()}
    except FileNotFoundError:
        return summary, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return summary, f"{out / JSON} cannot be read: every step runs anew"
    changed = [name for name in {**before, **summary.made_with} if before.get(name) != summary.made_with.get(name)]
    if not changed and not anew:
        summary.steps = records
        return summary, ""
    for record in records.values():
        for file in record.files:
            (out / file).unlink(missing_ok=True)
    if not changed:
        return summary, f"{out}: every step runs anew, as asked"
    name = changed[0]
    old_words, new_words = before.get(name) or "none", summary.made_with.get(name) or "none"
    return summary, f"{out}: its results are of {name} {old_words}, here it is {new_words}: every step runs anew"


def made_with(machine: Machine, *, dry: bool) -> dict[str, str]:
    """What results depend on. The code counts by its content too: files may differ from the commit."""
    return {
        "run": "on the CPU" if dry else "on a GPU",
        "commit": machine.commit.rstrip("+"),
        "code": code_sha256(),
        "GPU": machine.gpu,
        "driver": machine.driver,
        "processor": machine.processor,
        "Python": machine.python,
        **machine.libraries,
    }


def code_sha256(root: Path = ROOT) -> str:
    """The first 12 digits of the SHA-256 of all source files of the package and its tests."""
    folders = [one for one in root.iterdir() if (one / "__init__.py").is_file() or one.name == "tests"]
    paths = [
        *root.glob("*.py"),
        *(path for one in folders for path in one.rglob("*.*") if path.suffix in (".py", ".cu")),
    ]
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return total.hexdigest()[:12]


def slug(text: str) -> str:
    """A name for files: "NVIDIA H100 80GB HBM3" is nvidia-h100-80gb-hbm3."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def without_folders(text: str) -> str:
    """The text without the folders of absolute paths, which say nothing on another machine."""
    return FOLDERS.sub("", text)


def keep_report(report: Path) -> Path:
    """Copy report.json and report.md to bench/results/MACHINE_MODEL_DATE, where `make results` reads them.

    Folders of the machine are left out, and the pictures: images of data sets do not belong in the repository. Numbers
    keep DIGITS digits.
    """
    content = json.loads(report.read_text(encoding="utf-8"))
    name = f"{slug(content['machine']['gpu'])}_{content['model']['name']}_{content['date'][:10]}"
    text = json_text(_rounded(content | {"pictures": {}}), compact=True) + "\n"
    write_whole(RESULTS / f"{name}.json", without_folders(text))
    write_whole(RESULTS / f"{name}.md", without_folders(report.with_suffix(".md").read_text(encoding="utf-8")))
    return RESULTS / f"{name}.json"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return {key: _rounded(one) for key, one in value.items()} if isinstance(value, dict) else value


def report_lines(path: Path) -> tuple[str, ...]:
    """A report of `rtk bench` in a few lines: parity and the highest rate of each backend, and what did not run."""
    report = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"{one['candidate']}: {one['candidate_correct']:,} of {one['images']:,} right, PyTorch "
        f"{one['reference_correct']:,}; {one['agreeing']:,} answers the same"
        for one in report["parity"]
    ]
    best: dict[str, Any] = {}
    for cell in report["cells"]:
        label = f"{cell['backend']} {cell['precision']}"
        rate = cell["images_per_s"] or 0
        if not cell["error"] and rate > best.get(label, {"images_per_s": 0})["images_per_s"]:
            best[label] = cell
    lines += [
        f"{label}: {one['images_per_s']:,.0f} images/s at most ({one['scope']}, batch {one['batch']})"
        for label, one in best.items()
    ]
    return (*lines, *(f"{name}: not run: {reason}" for name, reason in report["unusable"].items()))


def _record(fields: dict[str, Any]) -> StepRecord:
    return StepRecord(**{**fields, "found": tuple(fields["found"]), "files": tuple(fields["files"])})
