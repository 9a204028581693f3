"""rtk.bench: a benchmark as `rtk bench` does it."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..core.errors import RtkError
from ..core.files import make_writable_folder
from ..core.zoo import DEFAULT
from ..workflow.bench_options import (
    LIMIT,
    bench_config,
    check_request,
    limit_failure,
    parity_failure,
    refuse_unused,
    write_report,
)
from ..workflow.bench_request import BenchRequest
from ..workflow.benchmark import run_benchmark
from .argument_types import checked
from .arguments import PathLike, allow, named_network, path_or_none, several, text, text_or_none
from .own_call import own_call

if TYPE_CHECKING:
    from ..bench.report.regressions import ComparedReports
    from ..bench.report.report import Report


@dataclass(frozen=True)
class BenchResult:
    """A benchmark."""

    report: "Report"
    """What was measured: cells, verdicts of parity, what could not run; `interrupted` after Ctrl-C."""
    page: Path | None = None
    """The file report.html, if a folder for the report was named."""
    failure: RtkError | None = None
    """Why `require_parity` is not met: ParityError or InconclusiveError."""

    @property
    def passed(self) -> bool:
        """Whether everything that was required is met."""
        return self.failure is None


@dataclass(frozen=True)
class ReportComparison:
    """A comparison of two reports."""

    compared: "ComparedReports"
    """The changes of the cells, and what else differs."""
    failure: RtkError | None = None
    """The LimitError of a cell that lost more than the limit."""

    @property
    def passed(self) -> bool:
        """Whether no cell lost more than the limit."""
        return self.failure is None


@overload
def bench(
    model: PathLike = DEFAULT,
    *,
    net_arg: Mapping[str, Any] | Sequence[str] | None = None,
    allow_code: str | Sequence[str] | None = None,
    reference: PathLike | None = None,
    force: bool = False,
    backend: str | Sequence[str] | None = None,
    precision: str | Sequence[str] | None = None,
    baselines: bool = True,
    dataset: PathLike | None = None,
    data_dir: PathLike | None = None,
    image_size: str | None = None,
    batch: int | Sequence[int] | None = None,
    scope: str | Sequence[str] | None = None,
    preset: str | None = None,
    seconds: float | None = None,
    wait_quiet: bool = False,
    device: str = "auto",
    require_parity: str | float | None = None,
    parity: bool = True,
    report: PathLike | None = None,
    compare: None = None,
) -> BenchResult: ...


@overload
def bench(*, compare: tuple[PathLike, PathLike], limit: float = LIMIT, force: bool = False) -> ReportComparison: ...


@checked
def bench(
    model: PathLike = DEFAULT,
    *,
    net_arg: Mapping[str, Any] | Sequence[str] | None = None,
    allow_code: str | Sequence[str] | None = None,
    reference: PathLike | None = None,
    force: bool = False,
    backend: str | Sequence[str] | None = None,
    precision: str | Sequence[str] | None = None,
    baselines: bool = True,
    dataset: PathLike | None = None,
    data_dir: PathLike | None = None,
    image_size: str | None = None,
    batch: int | Sequence[int] | None = None,
    scope: str | Sequence[str] | None = None,
    preset: str | None = None,
    seconds: float | None = None,
    wait_quiet: bool = False,
    device: str = "auto",
    require_parity: str | float | None = None,
    parity: bool = True,
    report: PathLike | None = None,
    compare: tuple[PathLike, PathLike] | None = None,
    limit: float = LIMIT,
) -> BenchResult | ReportComparison:
    """Measure throughput, latency and test-set parity of every backend; with `compare`, compare two reports instead.

    `parity=False`, and the name of an architecture as the model, measure speed alone. The options are those of
    `rtk bench`, which explains each. A requirement or limit that is not met is no exception: the result has `passed`
    and `failure`. The process keeps its own memory allocator settings, with which eager PyTorch can be slower on a CPU
    than in `rtk bench`.

    Raises UsageError, ArtifactError, DataError, BackendError and OutputError; all of them are RtkError.
    """
    given = _given(dict(locals()))
    refuse_unused(given, compares=compare is not None)
    with own_call():
        allow(allow_code)
        if compare is not None:
            return _compared(Path(compare[0]), Path(compare[1]), limit=limit, force=force)
        batches = None if batch is None else (batch,) if isinstance(batch, int) else tuple(dict.fromkeys(batch))
        request = BenchRequest(
            model=named_network(text(model), net_arg),
            reference=path_or_none(reference),
            backends=several(backend),
            precisions=tuple(dict.fromkeys(several(precision))),
            baselines=baselines,
            dataset=text_or_none(dataset),
            data_dir=path_or_none(data_dir),
            config=bench_config(preset, batches=batches, scopes=several(scope), seconds=seconds, wait_quiet=wait_quiet),
            seconds_given=seconds is not None,
            device=device,
            require_parity="default" if require_parity is None else str(require_parity),
            force=force,
            parity=parity,
            image_size=image_size,
        )
        required = None if require_parity is None else str(require_parity)
        check_request(request, require_parity=required)
        if report is not None:
            make_writable_folder(Path(report))
        found, judged = run_benchmark(request)
        page = write_report(found, Path(report)) if report is not None else None
        failure = parity_failure(found, judged=judged) if required is not None and not found.interrupted else None
        return BenchResult(found, page, failure)


def _compared(old: Path, new: Path, *, limit: float, force: bool) -> ReportComparison:
    from ..bench.report.regressions import compare_reports

    compared = compare_reports(old, new, force=force)
    return ReportComparison(compared, limit_failure(compared, limit))


def _given(values: dict[str, Any]) -> list[str]:
    """The options that differ from their defaults, as the command spells them."""
    defaults = {name: one.default for name, one in inspect.signature(bench).parameters.items()}
    changed = [name for name, value in values.items() if value != defaults[name]]
    return ["MODEL" if name == "model" else f"--{name.replace('_', '-')}" for name in changed]
