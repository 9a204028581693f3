"""Run everything that needs a GPU, in steps of under ten minutes: python -m rtk.tools.gpu_checks OUT [STEP...].

Each step is a process of its own, writes its raw results below OUT, and is kept in OUT/summary.json and summary.md.
If something is missing (TensorRT, pytest, a second GPU), the step reports it and the next step runs. A second run
skips the steps that ended well. `--dry` does on a CPU what can be done there, and says what cannot.
"""

import argparse
import datetime
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ..core.errors import RtkError, UnknownNameError, UsageError
from ..core.machine import this_machine
from ..core.nvidia.driver import gpu_count, no_gpu_reason
from .gpu_record import MARKDOWN, RESULTS, StepRecord, Summary, keep_report, open_summary, report_lines, slug
from .gpu_steps import ROOT, Step, steps

STEP_TIMEOUT_S = 570
STOPPED = 124
"""Exit code of a step that was stopped, as of the program timeout."""
MACHINE = "MACHINE"
"""A part of OUT that is replaced by the name of the GPU."""


def run_steps(out: Path, chosen: Sequence[str], *, dry: bool = False, anew: bool = False) -> int:
    """Run the chosen steps, or all, unless they ended well before, and return how many failed.

    Raises UnknownNameError, and KeyboardInterrupt when Ctrl-C stops a step.
    """
    out = out.resolve()
    known = steps(out)
    for name in chosen:
        if name not in known:
            raise UnknownNameError("step", name, known)
    if dry and RESULTS in (out, *out.parents):
        raise UsageError(f"{out}: results of a dry run do not belong in bench/results; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    summary, why = open_summary(out, dry=dry, anew=anew)
    if why:
        print(f"rtk: {why}")
    if dry:
        from .gpu_images import draw_images  # needs Pillow, which is not needed to say that there is no GPU

        draw_images(out)
    for name in chosen or known:
        if name in summary.steps and summary.steps[name].ok:
            print(f"\n== {name}: ended well on {summary.steps[name].date}, is not run again", flush=True)
            continue
        record = run_step(name, known[name], out, dry=dry)
        ended = {**summary.steps, name: record}
        summary.steps = {one: ended[one] for one in known if one in ended}
        summary.write()
        print(*record.found, sep="\n", end="\n" if record.found else "", flush=True)
    return _finish(summary, chosen or list(known))


def run_step(name: str, step: Step, out: Path, *, dry: bool) -> StepRecord:
    """Run one step, with its output in OUT/NAME.txt. Raises KeyboardInterrupt when Ctrl-C stops it."""
    from ..cli.options import ENDED_BY_CTRL_C  # needs typer, likewise

    command = step.dry if dry else step.command
    needs_gpu = step.needs_gpu if dry else ""
    print(f"\n== {name}: {step.shows}", flush=True)
    if dry:
        print(f"not tried here, because it needs a GPU: {needs_gpu}", flush=True)
    started_at, date = time.monotonic(), datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    if not command:
        return StepRecord(step.shows, "", None, 0.0, date, (), needs_gpu, ())
    for file in step.files:
        (out / file).unlink(missing_ok=True)  # else the summary would show that of an earlier try
    # pytest's count of the tests is kept, which the user's own options may suppress.
    environment = {**os.environ, "OUT": str(out), "PYTEST_ADDOPTS": ""}
    if dry:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "RTK_CACHE_DIR": str(out / "cache")}
    said = out / f"{name}.txt"
    with said.open("wb") as output:
        code = _run(command, output, environment)
        if code == STOPPED:
            output.write(f"stopped after {STEP_TIMEOUT_S} s\n".encode())
    if code in ENDED_BY_CTRL_C:
        raise KeyboardInterrupt
    return StepRecord(
        step.shows,
        _without_paths(shlex.join(["python3", *command[1:]]), out),
        code,
        round(time.monotonic() - started_at, 1),
        date,
        _found(step, said, out, ok=code == 0),
        needs_gpu,
        (said.name, *(file for file in step.files if (out / file).is_file())),
    )


def _run(command: list[str], output: BinaryIO, environment: dict[str, str]) -> int:
    """Run a command with all processes that it starts for STEP_TIMEOUT_S at most, and return its exit code."""
    with subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    ) as running:
        try:
            return running.wait(STEP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)  # what is left on the GPU would slow down the next step
            return STOPPED
        except KeyboardInterrupt:
            os.killpg(running.pid, signal.SIGINT)
            raise


def _found(step: Step, said: Path, out: Path, *, ok: bool) -> tuple[str, ...]:
    """What goes into the summary: of a report its short form, else the last lines of the output."""
    reports = [out / file for file in step.files if Path(file).name == "report.json"]
    if ok and reports:
        return report_lines(reports[0])
    lines = _without_paths(said.read_text(encoding="utf-8", errors="replace"), out).rstrip().splitlines()
    return tuple(lines[-step.lines :])


def _without_paths(text: str, out: Path) -> str:
    """The text without the folders of this machine."""
    linked = Path(__file__).parent.parent
    for folder, name in ((str(out), "OUT"), (str(linked), "."), (str(ROOT), "."), (str(Path.home()), "~")):
        text = text.replace(f"{folder}/", f"{name}/").replace(folder, name) if len(folder) > 1 else text
    return text


def _finish(summary: Summary, names: Sequence[str]) -> int:
    """Print the table, keep the report of `rtk bench` if the folder is one of bench/results, count what failed."""
    print()
    for name in names:
        record = summary.steps[name]
        print(f"{name:18} {record.result:14} {record.seconds:5.0f} s")
    print(f"\n{summary.out / MARKDOWN}")
    report = summary.out / "bench" / "report.json"
    if RESULTS in summary.out.parents and "bench" in summary.steps and summary.steps["bench"].ok:
        print(f"{keep_report(report)}; `make results` writes it into the documentation")
    return sum(summary.steps[name].exit_code not in (0, None) for name in names)


def main() -> None:
    """Read the command line."""
    usage = f"python -m rtk.tools.gpu_checks OUT [{'|'.join(steps(Path()))}]... [--dry] [--anew]"
    parser = argparse.ArgumentParser(usage=usage, description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help=f"Folder of the results; {MACHINE} in it becomes the GPU")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="Steps to run; default: all")
    parser.add_argument("--dry", action="store_true", help="Do on the CPU what can be done there")
    parser.add_argument("--anew", action="store_true", help="Also run the steps that ended well before")
    asked = parser.parse_args()
    if not asked.dry and not gpu_count():
        print(
            f"rtk: this needs an NVIDIA GPU: {no_gpu_reason()}; to try it on the CPU: make gpu DRY=1", file=sys.stderr
        )
        sys.exit(1)
    out = Path(*(slug(this_machine().gpu) or "cpu" if part == MACHINE else part for part in asked.out.parts))
    try:
        failed = run_steps(out, asked.steps, dry=asked.dry, anew=asked.anew)
    except KeyboardInterrupt:
        from ..cli.options import INTERRUPTED

        sys.exit(INTERRUPTED)
    except RtkError as error:
        print(f"rtk: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
