"""rtk.evaluate: an evaluation as `rtk eval` does it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from ..workflow.eval_options import EvalOptions, fit_first, prepare_outputs, run_evaluation
from ..workflow.eval_request import EvalRequest, Wanted
from .argument_types import checked
from .arguments import PathLike, allow, path_or_none, text, text_or_none
from .own_call import own_call

if TYPE_CHECKING:
    from ..bench.evaluation.result import Comparison, Evaluation


@overload
def evaluate(
    model: PathLike,
    model2: None = None,
    *,
    allow_code: str | Sequence[str] | None = None,
    dataset: PathLike | None = None,
    split: str | None = None,
    data_dir: PathLike | None = None,
    max_unreadable: float | None = None,
    backend: str = EvalRequest.backend,
    precision: str | None = None,
    batch_size: int = EvalRequest.batch_size,
    device: str = EvalRequest.device,
    report: PathLike | None = None,
    per_image: PathLike | None = None,
    fit_temperature: bool = False,
    held_out: PathLike | None = None,
    out: PathLike | None = None,
) -> "Evaluation": ...


@overload
def evaluate(
    model: PathLike,
    model2: PathLike,
    *,
    allow_code: str | Sequence[str] | None = None,
    dataset: PathLike | None = None,
    split: str | None = None,
    data_dir: PathLike | None = None,
    max_unreadable: float | None = None,
    backend: str = EvalRequest.backend,
    precision: str | None = None,
    batch_size: int = EvalRequest.batch_size,
    device: str = EvalRequest.device,
    report: PathLike | None = None,
    per_image: PathLike | None = None,
) -> "Comparison": ...


@checked
def evaluate(
    model: PathLike,
    model2: PathLike | None = None,
    *,
    allow_code: str | Sequence[str] | None = None,
    dataset: PathLike | None = None,
    split: str | None = None,
    data_dir: PathLike | None = None,
    max_unreadable: float | None = None,
    backend: str = EvalRequest.backend,
    precision: str | None = None,
    batch_size: int = EvalRequest.batch_size,
    device: str = EvalRequest.device,
    report: PathLike | None = None,
    per_image: PathLike | None = None,
    fit_temperature: bool = False,
    held_out: PathLike | None = None,
    out: PathLike | None = None,
) -> "Evaluation | Comparison":
    """Evaluate a model on labelled images; with two models, compare them on the same images.

    The options are those of `rtk eval`, which explains each. Returns an Evaluation, or with `model2` a Comparison. With
    `fit_temperature`, the evaluation is that of the file that has the temperature.

    Raises UsageError, ArtifactError, DataError, BackendError and OutputError; all of them are RtkError.
    """
    with own_call():
        allow(allow_code)
        options = EvalOptions(
            EvalRequest(
                model=text(model),
                wanted=Wanted(text_or_none(dataset), split, path_or_none(data_dir), max_unreadable),
                backend=backend,
                precision=precision,
                device=device,
                batch_size=batch_size,
            ),
            text_or_none(model2),
            path_or_none(report),
            path_or_none(per_image),
            fit_temperature,
            text_or_none(held_out),
            path_or_none(out),
        )
        prepare_outputs(options)
        options, _ = fit_first(options)
        return run_evaluation(options)[0]
