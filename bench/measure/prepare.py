"""The cells of a benchmark with their runners: every contender at every batch size in every scope that it has."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BackendError, noted
from ...infer.backend import Resident
from ..config import BenchConfig
from ..files.image_files import PngFiles
from .cell import Cell
from .contenders import Contender, coincidences
from .runners import rotating_images, runner_of
from .timing import Runner


@dataclass(frozen=True)
class Prepared:
    """Cells with their runners, and the device memory that the caller must free."""

    cells: list[Cell]
    runners: list[Runner]
    notes: list[str]
    """Which scopes are the same measurement, as text."""
    residents: list[Resident]


def prepare(contenders: Sequence[Contender], config: BenchConfig, *, files: PngFiles | None) -> Prepared:
    """The cells of all contenders; cells of one batch size are neighbours.

    Where a backend does not accept a batch size, or a device has too little memory, the cell has an error that says so.
    """
    images_NHWC = rotating_images(contenders[0].backend.card.input, max(config.batches))
    residents, errors = _residents(contenders, config, images_NHWC)
    prepared = Prepared([], [], coincidences(contenders, config.scopes), list(residents.values()))
    for batch in config.batches:
        for contender in contenders:
            for scope in dict.fromkeys(contender.scope_measured(scope) for scope in config.scopes):
                if (scope == "files" and contender.for_files is None) or (
                    scope == "compute" and contender.label not in {**residents, **errors}
                ):
                    continue
                cell = Cell(contender.shown_name, batch, contender.computes_in, scope)
                cell.error = errors.get(contender.label, "") if scope == "compute" else ""
                largest = contender.backend.max_batch
                if largest is not None and batch > largest:
                    cell.error = f"a batch of {batch:,}, expected at most {largest:,}, for which it was built"
                prepared.cells.append(cell)
                prepared.runners.append(
                    runner_of(
                        contender, scope, batch, images_NHWC, resident=residents.get(contender.label), files=files
                    )
                )
    return prepared


def _residents(
    contenders: Sequence[Contender], config: BenchConfig, images_NHWC: NDArray[np.uint8]
) -> tuple[dict[str, Resident], dict[str, str]]:
    """The images on the device of every contender that has the scope compute; and why that failed; by label."""
    residents: dict[str, Resident] = {}
    errors: dict[str, str] = {}
    for contender in contenders:
        has_compute = any(contender.scope_measured(scope) == "compute" for scope in config.scopes)
        if has_compute and contender.label not in residents:
            try:
                resident = contender.backend.resident(images_NHWC)
            except BackendError as error:
                errors[contender.label] = noted(error)
                continue
            if resident is not None:
                residents[contender.label] = resident
    return residents, errors
