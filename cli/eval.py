"""rtk eval."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import UsageError
from ..core.files import check_local, make_writable_folder
from ..core.text import wrapped
from ..workflow.eval_request import EvalRequest, Wanted
from . import help as groups
from .network_options import AllowCode
from .options import DataDir

if TYPE_CHECKING:
    from ..bench.evaluation.result import Comparison, Evaluation

_log = logging.getLogger(__name__)


def evaluate(
    model: Annotated[str, typer.Argument(help="Checkpoint, graph, engine, or model of the zoo.")],
    model2: Annotated[
        str | None,
        typer.Argument(help="Second model, to compare with the first on the same images.", show_default=False),
    ] = None,
    allow_code: AllowCode = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="Data set, or folder or archive of labelled images; all images of a folder without splits count, "
            "except of the one that the model was trained on; default: the data set that it was trained on.",
            rich_help_panel=groups.DATA,
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split: train, validation, test or all; default: test, or validation if there is no test split.",
            rich_help_panel=groups.DATA,
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    max_unreadable: Annotated[
        float | None,
        typer.Option(
            help="Largest share of unreadable images in --dataset DIR that are left out; default: as in the training.",
            rich_help_panel=groups.DATA,
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="Backend: auto, torch, onnx, openvino or trt; auto: the best one here for this model.",
            rich_help_panel=groups.BACKEND,
        ),
    ] = EvalRequest.backend,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precision: fp32, fp16, bf16 or int8; default: the model's.",
            rich_help_panel=groups.BACKEND,
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images in a batch.", rich_help_panel=groups.MACHINE)
    ] = EvalRequest.batch_size,
    device: Annotated[
        str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.", rich_help_panel=groups.MACHINE)
    ] = EvalRequest.device,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for eval.json and eval.html.", rich_help_panel=groups.OUTPUT, show_default=False
        ),
    ] = None,
    per_image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File for one row per image, .csv or .parquet: label, prediction, confidence.",
            rich_help_panel=groups.OUTPUT,
            show_default=False,
        ),
    ] = None,
    fit_temperature: Annotated[
        bool,
        typer.Option(
            "--fit-temperature",
            help="Fit the temperature of the probabilities on images that the training held out, and write it into the "
            "model's file and its exports beside it. No prediction changes.",
            rich_help_panel=groups.TEMPERATURE,
        ),
    ] = False,
    held_out: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="Labelled images for --fit-temperature that the model was not trained on, instead of those that its "
            "training held out.",
            rich_help_panel=groups.TEMPERATURE,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File for a copy of the model with the temperature; default: the model's own file.",
            rich_help_panel=groups.TEMPERATURE,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Evaluate a model on labelled images: accuracy, figures of each class, confusion matrix, calibration.

    With two models, compare them on the same images.
    """
    from ..bench.evaluation.text import comparison_text, evaluation_text
    from ..workflow.evaluation import compare_models, evaluated, write_images

    request = EvalRequest(
        model=model,
        wanted=Wanted(dataset, split, data_dir, max_unreadable),
        backend=backend,
        precision=precision,
        device=device,
        batch_size=batch_size,
    )
    _check_outputs(report, per_image)
    if fit_temperature:
        if model2 is not None:
            raise UsageError(f"--fit-temperature fits one model; leave out {model2}, or compare without the option")
        request = _with_temperature(request, held_out=held_out, out=out)
    elif held_out is not None or out is not None:
        raise UsageError(f"{'--held-out' if held_out is not None else '--out'} goes with --fit-temperature")
    if model2 is None:
        done = evaluated(request)
        print(evaluation_text(done.evaluation))
        models = {"": done}
        _write_report(done.evaluation, report)
    else:
        compared = compare_models(request, model2)
        print(comparison_text(compared.comparison))
        models = {"a_": compared.first, "b_": compared.second}
        _write_report(compared.comparison, report)
    if per_image is not None:
        write_images(per_image, models)
        _log.info(f"output: {per_image}")


def _with_temperature(request: EvalRequest, *, held_out: str | None, out: Path | None) -> EvalRequest:
    """Fit the temperature, print it, log the files, and return the request for the file that has it."""
    from ..workflow.fit_temperature import FitConfig, fit_temperature

    fitted = fit_temperature(FitConfig(request, held_out, out))
    print(f"{wrapped(fitted.to_text())}\n")
    for path in fitted.written:
        _log.info(f"output: {path}")
    return replace(request, model=str(fitted.written[0]))


def _check_outputs(report: Path | None, per_image: Path | None) -> None:
    """Make the folders of the outputs. Raise UsageError or OutputError for outputs that cannot be written here."""
    if report is not None:
        make_writable_folder(report)
    if per_image is not None:
        from ..bench.evaluation.per_image import check_suffix

        check_suffix(per_image)
        check_local(per_image)
        make_writable_folder(per_image.parent)


def _write_report(result: "Evaluation | Comparison", folder: Path | None) -> None:
    from ..workflow.evaluation import write_evaluation

    if folder is not None:
        print(f"\n{write_evaluation(result, folder)[-1]}")
