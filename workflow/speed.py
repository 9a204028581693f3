"""rtk bench --no-parity: speed alone, on random images, without a data set and without a reference."""

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..core.card import ModelCard
from ..core.errors import ArtifactError, UsageError, noted
from ..core.files import temporary_folder
from ..core.text import wrapped
from .bench_contenders import contenders_of
from .bench_request import BenchRequest
from .models import NO_NETWORK
from .open_backends import BenchModel
from .speed_model import speed_model

if TYPE_CHECKING:
    from ..bench.report.report import Report
    from ..core.data.datasets import Dataset
    from ..infer.backend import Backend, BackendOptions

_log = logging.getLogger(__name__)


def run_speed_alone(request: BenchRequest, options: "BackendOptions") -> "Report":
    """Measure the speed of a model on every backend. Raises what speed_model and opening a named backend raise."""
    from ..bench.run import run_speed

    with ExitStack() as stack:
        named = speed_model(request.model, stack.enter_context(temporary_folder(None)), image_size=request.image_size)
        for remark in named.remarks:
            _log.info(wrapped(remark))
        model = BenchModel(named.found)
        reference, reason = _torch(model, request.backends, options, stack)
        contenders = contenders_of(
            request, model, reference, options=options, dataset=_calibration(request, model.card), stack=stack
        )
        if reason and request.baselines and not request.backends:
            contenders.unusable["torch"] = reason
        return run_speed(
            contenders.opened,
            model.card,
            contenders.config,
            unusable=contenders.unusable,
            graph=contenders.graph,
            remarks=named.remarks,
        )


def _torch(
    model: BenchModel, backends: tuple[str, ...], options: "BackendOptions", stack: ExitStack
) -> "tuple[Backend | None, str]":
    """PyTorch on the model's checkpoint; or None and the reason, if it is neither given nor beside the file."""
    from ..infer.open_backend import open_backend

    if model.card.from_graph:
        return None, NO_NETWORK
    try:
        checkpoint = model.checkpoint
    except ArtifactError as error:
        if backends == ("torch",):
            raise
        return None, noted(error)
    return stack.enter_context(open_backend("torch", checkpoint, options)), ""


def _calibration(request: BenchRequest, card: ModelCard) -> "Dataset | None":
    """The data set that calibrates int8, if a graph must be made in int8 and there is one. Raises UsageError."""
    from .model_data import dataset_of

    quantises = "int8" in request.precisions and card.precision != "int8"
    if request.dataset is not None and not quantises:
        raise UsageError("--dataset: without parity no images are answered; it goes with --precision int8 alone")
    if not quantises or not (request.dataset or card.dataset):
        return None
    return dataset_of(card, request.dataset, data_dir=request.data_dir)
