"""Keep what was measured on a GPU: python -m rtk.tools.gpu_results FOLDER... [--date DATE] [--report FILE]

The folders are those of `make gpu`, or $OUT of the scripts in tools/gpu/. Each kind of result becomes
bench/results/gpu/GPU_DATE_KIND.json, from which `python -m rtk.tools.readme_tables --tables` makes the tables of the
documentation. One of the folders must say which machine it was, in engine.json or bench/report.json.
"""

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..cli.options import run_module
from ..core.errors import ArtifactError
from ..core.files import make_folder, write_whole
from ..core.json_text import json_text
from ..core.machine import Machine
from ..core.records import restored
from .gpu_record import keep_report, slug, without_folders

RECORDS = Path(__file__).parent.parent / "bench" / "results" / "gpu"
MACHINES = ("engine.json", "bench/report.json")
"""Files that name the machine."""


@dataclass(frozen=True)
class Kind:
    """One kind of result."""

    files: str
    """Pattern of its raw files."""
    key: tuple[str, ...] = ()
    """Fields that tell its rows apart; empty: the file holds no rows."""


KINDS = {
    "parity": Kind("smoke*.json", ("backend",)),
    "rtx-probe": Kind("rtx_probe.json"),
    "engines": Kind("engine.json"),
    "training-speed": Kind("train_speed*.json", ("arch", "variant")),
    "onnxruntime-options": Kind("onnxruntime_options*.json", ("precision", "options")),
    "onnxruntime-half": Kind("half_options*.json", ("precision", "options")),
}


@dataclass(frozen=True)
class GpuRecord:
    """One kind of result of one GPU."""

    machine: Machine
    date: str
    found: Any
    """As the script wrote it: rows, or for rtx-probe and engines names with values."""


def main(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders with the raw results.")],
    date: Annotated[str, typer.Option(help="Day of the measurement (default: today).")] = "",
    out: Annotated[Path, typer.Option(help="Folder of the records.")] = RECORDS,
    report: Annotated[Path | None, typer.Option(help="Keep this report.json of rtk bench as well.")] = None,
) -> None:
    """Keep the results of one GPU. A record of the same GPU, day and kind is replaced."""
    if report is not None:
        print(keep_report(report))
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    for path in keep(folders, out, date=date or today):
        print(path)


def keep(folders: Sequence[Path], out: Path, *, date: str) -> list[Path]:
    """Write a record of each kind that the folders hold, and return their paths.

    Rows of several files are joined; of rows with the same key the last one counts. Raises ArtifactError if no folder
    names the machine, or a file cannot be read.
    """
    machine, kept = _machine_of(folders), list[Path]()
    start = f"{slug(re.split(r' [0-9]+ ?GB', machine.gpu)[0])}_{date}"
    for name, kind in KINDS.items():
        contents = [_read(path) for folder in folders for path in sorted(folder.glob(kind.files))]
        if not contents:
            continue
        if kind.key:
            rows = {tuple(row[one] for one in kind.key): row for rows in contents for row in rows}
            found: Any = list(rows.values())
        else:
            found = {key: value for key, value in contents[-1].items() if key != "machine"}
        path = make_folder(out) / f"{start}_{name}.json"
        write_whole(path, _text(GpuRecord(machine, date, _without_folders(found))))
        kept.append(path)
    return kept


def newest(kind: str, folder: Path = RECORDS) -> GpuRecord | None:
    """The newest record of that kind; None without any."""
    records = [
        restored(GpuRecord, json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob(f"*_{kind}.json")
    ]
    return max(records, key=lambda one: one.date, default=None)


def _machine_of(folders: Sequence[Path]) -> Machine:
    for path in (folder / name for folder in folders for name in MACHINES):
        if path.is_file():
            machine: Machine = restored(Machine, _read(path)["machine"])
            return machine
    names = ", ".join(map(str, folders))
    raise ArtifactError(f"{names}: no {' or '.join(MACHINES)}, which name the machine; add the folder that has one")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error


def _without_folders(found: Any) -> Any:
    """The same without the folders of the machine in errors: they say nothing elsewhere."""
    if isinstance(found, list):
        return [_without_folders(one) for one in found]
    if isinstance(found, dict):
        return {
            key: without_folders(value) if key in ("error", "refused") else _without_folders(value)
            for key, value in found.items()
        }
    return found


def _text(record: GpuRecord) -> str:
    """JSON with one row, or one named value, on a line."""
    found, ends = record.found, "[]" if isinstance(record.found, list) else "{}"
    lines = [json_text(one) for one in found] if isinstance(found, list) else _named(found)
    head = f'{{\n"machine": {json_text(asdict(record.machine))},\n"date": {json_text(record.date)},\n"found": '
    return f"{head}{ends[0]}\n" + ",\n".join(lines) + f"\n{ends[1]}\n}}\n"


def _named(found: dict[str, Any]) -> list[str]:
    return [f"{json_text(name)}: {json_text(value)}" for name, value in found.items()]


if __name__ == "__main__":
    run_module(main)
