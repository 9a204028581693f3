"""rtk eval from its options to the result: reads the images, runs the models, computes and writes the figures."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.card import ModelCard
from .eval_request import EvalRequest
from .evaluation_data import Labelled, labelled_images
from .models import ModelFiles, find_model, read_card

if TYPE_CHECKING:
    from ..bench.evaluation.answers import Answers
    from ..bench.evaluation.result import Comparison, Evaluation
    from ..core.data.datasets import Dataset
    from ..infer.backend import Backend


PAGE = "eval.html"
"""The page beside eval.json."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation with what it was computed from."""

    evaluation: "Evaluation"
    answers: "Answers"
    labelled: Labelled


@dataclass(frozen=True)
class Compared:
    """A comparison with the two evaluations."""

    comparison: "Comparison"
    first: Evaluated
    second: Evaluated


def evaluate(request: EvalRequest) -> "Evaluation":
    """Evaluate a model on labelled images. Raises the errors of `evaluated`."""
    return evaluated(request).evaluation


def evaluated(request: EvalRequest, *, splits_of: ModelCard | None = None) -> Evaluated:
    """Evaluate a model, and keep its answers. `splits_of`: see labelled_images.

    Raises DataError, and the errors of finding and opening a model.
    """
    from .model_data import report_other_score

    found = find_model(request.model)
    _check_machine(request, found)
    card = read_card(found)
    labelled = labelled_images(card, request.wanted, splits_of=splits_of)
    done = _run(request, found, labelled)
    data, result = labelled.dataset, done.evaluation
    if result.precision == "fp32" and result.data.split == data.scored_split:
        report_other_score(card, data, correct=result.correct, total=result.images)
    return done


def compare_models(request: EvalRequest, second: str) -> Compared:
    """Evaluate two models on the same images, which are the first one's; each reads them at its own size.

    Raises DataError for models of other classes, and what `evaluated` raises.
    """
    from ..bench.evaluation.compare import check_comparable, comparison_of

    cards = [read_card(find_model(name)) for name in (request.model, second)]
    check_comparable(cards[0].classes, cards[1].classes, names=(request.model, second))
    one = evaluated(request)
    other = evaluated(replace(request, model=second), splits_of=cards[0])
    compared = comparison_of(one.evaluation, one.answers, other.evaluation, other.answers, one.labelled.split)
    return Compared(compared, one, other)


def write_evaluation(result: "Evaluation | Comparison", folder: Path) -> list[Path]:
    """Write eval.json and eval.html, without the paths of the user's home and of rtk itself; return the two files.

    Raises OutputError.
    """
    from ..bench.evaluation.file import FILE, json_of
    from ..bench.evaluation.page import comparison_page_of, page_of
    from ..bench.evaluation.result import Comparison
    from ..core.files import make_folder, write_whole
    from ..core.paths import as_published

    make_folder(folder)
    page = comparison_page_of(result) if isinstance(result, Comparison) else page_of(result)
    texts = {FILE: json_of(result), PAGE: page}
    for name, text in texts.items():
        write_whole(folder / name, as_published(text))
    return [folder / name for name in texts]


def write_images(path: Path, models: Mapping[str, Evaluated]) -> None:
    """Write one row for each image. `models`: a prefix for the columns of each model. Raises OutputError."""
    from ..bench.evaluation.per_image import write_per_image

    first = next(iter(models.values())).evaluation
    write_per_image(
        path,
        first.card.classes,
        {name: (one.answers, one.evaluation.calibration.temperature) for name, one in models.items()},
    )


def _check_machine(request: EvalRequest, found: ModelFiles) -> None:
    """Raise BackendError, before the images are read, if trt is requested and cannot run here."""
    if request.backend != "trt":
        return
    from ..infer.trt.preflight import check_engine, check_machine

    if found.engine:
        check_engine(found.engine, device=request.device)
    else:
        check_machine(device=request.device)


def _run(request: EvalRequest, found: ModelFiles, labelled: Labelled) -> Evaluated:
    from ..bench.evaluation.answers import answers_of
    from ..bench.evaluation.evaluate import evaluation_of
    from ..bench.measure.contenders import RanFile

    with ExitStack() as stack:
        backend, file = _opened(request, found, labelled.dataset)
        stack.enter_context(backend)
        ran = RanFile.of(file)
        answers = answers_of(backend, labelled.split, names=labelled.names, batch=request.batch_size)
        result = evaluation_of(backend, answers, labelled.split, file=ran, data=labelled.data)
    return Evaluated(replace(result, given=request.model), answers, labelled)


def _opened(request: EvalRequest, found: ModelFiles, dataset: "Dataset") -> "tuple[Backend, Path]":
    """The model on the requested backend, or on the best one, and the file that it runs."""
    from ..infer.backend import BackendOptions
    from ..infer.open_backend import open_backend
    from .artifacts import artifact_for
    from .model_data import dataset_of
    from .open_backends import BenchModel, artifact_and_hint
    from .select import backends_for, first_that_opens

    model = BenchModel(found)
    options = BackendOptions(device=request.device, steady=True)
    if request.precision == "int8" and model.card.precision != "int8":  # the training images calibrate it
        dataset = dataset_of(model.card, data_dir=request.wanted.data_dir)

    def open_on(name: str) -> "tuple[Backend, Path]":
        if request.precision in (None, model.card.precision):
            artifact, hint = artifact_for(name, found, max_batch=request.batch_size, device=request.device), None
        else:
            artifact, hint = artifact_and_hint(
                name, request.precision, model, dataset=dataset, max_batch=request.batch_size, options=options
            )
        return open_backend(name, artifact, replace(options, hint=hint)), artifact

    names = backends_for(found, device=request.device) if request.backend == "auto" else [request.backend]
    return first_that_opens(names, open_on)
