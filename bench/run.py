"""One benchmark from beginning to end: measure, then compare answers, then report."""

import datetime
from collections.abc import Mapping

from ..core.datasets import Dataset
from ..core.errors import RtkError
from ..core.machine import this_machine
from ..core.progress import progress_bar
from ..infer.backend import Backend
from .config import BenchConfig
from .measure import measure
from .parity import all_logits, compare, labelled_as
from .report import Report
from .verdict import Requirement, judge


def run(
    backends: Mapping[str, Backend],
    reference: Backend,
    dataset: Dataset,
    config: BenchConfig,
    *,
    unusable: Mapping[str, str],
    required: Requirement | None = None,
) -> Report:
    """Measure `backends` and compare each with `reference` on the data set's test split. Raises DataError."""
    split = dataset.split("test")
    card = reference.card
    labelled_as(card.classes, split, dataset.classes, name=dataset.name)
    unusable = dict(unusable)
    parity = []
    with progress_bar("comparing answers", len(split) * len({*backends, reference.name}), unit="images") as advance:
        reference_NK = all_logits(reference, split.images_NHWC, advance=advance)
        for name, backend in backends.items():
            try:
                same = backend is reference
                logits_NK = reference_NK if same else all_logits(backend, split.images_NHWC, advance=advance)
            except RtkError as error:
                unusable[name] = str(error)
                continue
            parity.append(compare(name, reference_NK, logits_NK, split.labels_N))
    with progress_bar("measuring", None, unit="rounds") as advance:
        cells = measure({name: b for name, b in backends.items() if name not in unusable}, config, advance=advance)
    return Report(
        model=next((backend.card for backend in backends.values() if backend is not reference), card),
        machine=this_machine(),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        config=config,
        backends={name: backend.runs_on for name, backend in backends.items()},
        unusable=unusable,
        cells=cells,
        dataset=f"{dataset.name} (test split, {len(split):,} images)",
        parity=parity,
        verdicts=[
            judge(
                one,
                precision=backends[one.candidate].precision or backends[one.candidate].card.precision,
                required=required,
            )
            for one in parity
            if backends[one.candidate] is not reference
        ],
    )
