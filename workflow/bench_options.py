"""The options of rtk bench around a measurement: what they must not be together, and what a result must reach."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..bench.config import BenchConfig, parse_scopes
from ..core.errors import InconclusiveError, LimitError, ParityError, RtkError, UsageError
from ..core.files import make_folder, write_whole
from .bench_request import BenchRequest
from .speed_model import no_reference

if TYPE_CHECKING:
    from ..bench.report.regressions import ComparedReports
    from ..bench.report.report import Report

LIMIT = 5.0
"""Per cent that a comparison of reports lets a cell lose."""
NOTHING_TO_JUDGE = "--require-parity: there is no backend to judge, except the reference"


def bench_config(
    preset: str | None,
    *,
    batches: tuple[int, ...] | None,
    scopes: Sequence[str],
    seconds: float | None,
    wait_quiet: bool,
) -> BenchConfig:
    """The options of the measurement as a config. Raises UsageError."""
    if preset is None:
        return BenchConfig(
            batches=batches or BenchConfig.batches,
            seconds=BenchConfig.seconds if seconds is None else seconds,
            scopes=parse_scopes(scopes) or BenchConfig.scopes,
            wait_quiet=wait_quiet,
        )
    if scopes:
        raise UsageError(f"--preset {preset} defines the scope; leave out --scope")
    return BenchConfig.from_preset(preset, batches=batches, seconds=seconds, wait_quiet=wait_quiet)


def refuse_unused(given: Collection[str], *, compares: bool) -> None:
    """Raise UsageError for options that have no effect in this form. `given`: options as they are spelled."""
    if not compares and "--limit" in given:
        raise UsageError("--limit goes with --compare OLD NEW")
    unused = [name for name in given if name not in ("--compare", "--limit", "--force")]
    if compares and unused:
        raise UsageError(f"--compare: leave out {', '.join(unused)}, which would have no effect")


def check_request(request: BenchRequest, *, require_parity: str | None) -> None:
    """Raise UsageError or ParityError for options that do not fit together."""
    if not request.measures_parity:
        _refuse_parity_options(request, require_parity=require_parity)
    if request.force and request.reference is None:
        raise UsageError("--force goes with --reference FILE or --compare OLD NEW")
    if require_parity is not None and set(request.backends) == {"torch"} and request.reference is None:
        raise ParityError(NOTHING_TO_JUDGE)


def _refuse_parity_options(request: BenchRequest, *, require_parity: str | None) -> None:
    """Raise UsageError for options that ask for a comparison of answers, where none is made."""
    asked = {"--require-parity": require_parity is not None, "--reference": request.reference is not None}
    for option in (name for name, value in asked.items() if value):
        why = no_reference(request.model) or "--no-parity compares no answers"
        raise UsageError(f"{request.model}: {option}: {why}; omit {option}")


def write_report(report: "Report", folder: Path) -> Path:
    """Write report.json, report.md and report.html, without the paths of the user's home and of rtk; return the page.

    Raises OutputError.
    """
    from ..bench.report.html import page_of
    from ..bench.report.render import report_markdown
    from ..core.paths import as_published

    make_folder(folder)
    for suffix, text in (("json", report.to_json()), ("md", report_markdown(report)), ("html", page_of(report))):
        write_whole(folder / f"report.{suffix}", as_published(text))
    return folder / "report.html"


def parity_failure(report: "Report", *, judged: Sequence[str]) -> RtkError | None:
    """Why the report does not have the parity that is required; None if it has.

    ParityError: no parity, or a verdict is missing. InconclusiveError: some verdict is inconclusive, and none worse.
    """
    if not report.verdicts:
        return ParityError(NOTHING_TO_JUDGE)
    missing = sorted({*judged} - {"torch"} - {verdict.candidate for verdict in report.verdicts})
    problems: dict[str, RtkError] = {}
    for verdict in report.verdicts:
        try:
            verdict.enforce()
        except (ParityError, InconclusiveError) as error:
            problems.setdefault(verdict.outcome, error)
    if "failed" in problems:
        return problems["failed"]
    if missing:
        return ParityError(f"--require-parity: {missing[0]} could not be judged: {report.unusable[missing[0]]}")
    return problems.get("inconclusive")


def limit_failure(compared: "ComparedReports", limit: float) -> LimitError | None:
    """The cell, or the batch sizes together, that lost more than `limit` per cent; None if none did."""
    slower = [change for change in compared.changes if change.slower_by_more_than(limit)]
    pooled = [change for change in compared.pooled if change.slower_by_more_than(limit)]
    if slower:
        worst = min(slower, key=lambda change: change.ratio)
        return LimitError(
            f"{len(slower)} of {len(compared.changes)} cells are slower by more than {limit:g} %, "
            f"{worst.new.label} at batch {worst.new.batch} by {100 * (1 - worst.ratio):.1f} %"
        )
    if pooled:
        worst = min(pooled, key=lambda change: change.ratio)
        return LimitError(
            f"{worst.new.label} is slower by more than {limit:g} % in all batch sizes together, "
            f"by {100 * (1 - worst.ratio):.1f} %"
        )
    return None
