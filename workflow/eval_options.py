"""The options of rtk eval beside those of one evaluation, and all that they ask for."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UsageError
from ..core.files import check_local, make_writable_folder
from .eval_request import EvalRequest

if TYPE_CHECKING:
    from ..bench.evaluation.result import Comparison, Evaluation
    from .fit_temperature import Fitted


@dataclass(frozen=True)
class EvalOptions:
    """One evaluation, or a comparison, with its files. Raises UsageError for options that do not fit together."""

    request: EvalRequest
    model2: str | None = None
    report: Path | None = None
    """Folder for eval.json and eval.html."""
    per_image: Path | None = None
    """File for one row for each image."""
    fit_temperature: bool = False
    held_out: str | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.fit_temperature and self.model2 is not None:
            raise UsageError(
                f"--fit-temperature fits one model; leave out {self.model2}, or compare without the option"
            )
        if not self.fit_temperature and (self.held_out is not None or self.out is not None):
            raise UsageError(f"{'--held-out' if self.held_out is not None else '--out'} goes with --fit-temperature")


def prepare_outputs(options: EvalOptions) -> None:
    """Make the folders of the outputs. Raise UsageError or OutputError for outputs that cannot be written here."""
    if options.report is not None:
        make_writable_folder(options.report)
    if options.per_image is not None:
        from ..bench.evaluation.per_image import check_suffix

        check_suffix(options.per_image)
        check_local(options.per_image)
        make_writable_folder(options.per_image.parent)


def fit_first(options: EvalOptions) -> "tuple[EvalOptions, Fitted | None]":
    """Fit the temperature if that is asked for, and return the options for the file that has it."""
    if not options.fit_temperature:
        return options, None
    from .fit_temperature import FitConfig, fit_temperature

    fitted = fit_temperature(FitConfig(options.request, options.held_out, options.out))
    return replace(options, request=replace(options.request, model=str(fitted.written[0]))), fitted


def run_evaluation(options: EvalOptions) -> "tuple[Evaluation | Comparison, Path | None]":
    """Evaluate or compare, and write the files; return the result, and the page if there is one."""
    from .evaluation import compare_models, evaluated, write_evaluation, write_images

    result: Evaluation | Comparison
    if options.model2 is None:
        done = evaluated(options.request)
        result, models = done.evaluation, {"": done}
    else:
        compared = compare_models(options.request, options.model2)
        result, models = compared.comparison, {"a_": compared.first, "b_": compared.second}
    page = write_evaluation(result, options.report)[-1] if options.report is not None else None
    if options.per_image is not None:
        write_images(options.per_image, models)
    return result, page
