"""rtk eval."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from ..core.text import wrapped
from ..workflow.eval_request import EvalRequest, Wanted
from . import help as groups
from .network_options import AllowCode
from .options import DataDir

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
    from ..bench.evaluation.result import Comparison
    from ..bench.evaluation.text import comparison_text, evaluation_text
    from ..workflow.eval_options import EvalOptions, fit_first, prepare_outputs, run_evaluation

    request = EvalRequest(
        model=model,
        wanted=Wanted(dataset, split, data_dir, max_unreadable),
        backend=backend,
        precision=precision,
        device=device,
        batch_size=batch_size,
    )
    options = EvalOptions(request, model2, report, per_image, fit_temperature, held_out, out)
    prepare_outputs(options)
    options, fitted = fit_first(options)
    if fitted is not None:
        print(f"{wrapped(fitted.to_text())}\n")
        for path in fitted.written:
            _log.info(f"output: {path}")
    result, page = run_evaluation(options)
    print(comparison_text(result) if isinstance(result, Comparison) else evaluation_text(result))
    if page is not None:
        print(f"\n{page}")
    if per_image is not None:
        _log.info(f"output: {per_image}")
