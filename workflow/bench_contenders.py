"""What a benchmark measures, with parity or without: the contenders of a request, and for how long."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..bench.config import BenchConfig
from .bench_request import BenchRequest
from .open_backends import BenchModel, open_contenders

if TYPE_CHECKING:
    from ..bench.measure.contenders import Contender
    from ..core.data.datasets import Dataset
    from ..infer.backend import Backend, BackendOptions


@dataclass(frozen=True)
class Contenders:
    """Open backends, and what else `run` and `run_speed` need of a request."""

    opened: "list[Contender]"
    config: BenchConfig
    unusable: dict[str, str]
    """Why others cannot run, by name; and under `ceiling` why no graph can be counted."""
    graph: Path | None
    """The graph whose operations are counted for the ceiling."""


def contenders_of(
    request: BenchRequest,
    model: BenchModel,
    reference: "Backend | None",
    *,
    options: "BackendOptions",
    dataset: "Dataset | None",
    stack: ExitStack,
) -> Contenders:
    """Open the contenders of a request; `stack` closes them. Raises the errors of open_contenders."""
    opened = open_contenders(
        model,
        reference,
        backends=request.backends,
        precisions=request.precisions,
        baselines=request.baselines,
        config=request.config,
        options=options,
        dataset=dataset,
        stack=stack,
    )
    graph, no_ceiling = model.counted_graph()
    timed = sum(one.timed for one in opened.contenders)
    return Contenders(
        opened.contenders,
        request.config.for_contenders(timed, seconds_given=request.seconds_given),
        opened.unusable | ({"ceiling": no_ceiling} if no_ceiling else {}),
        graph,
    )
