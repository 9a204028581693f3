"""rtk import: a model of rtk from weights, or from a graph, that were made elsewhere."""

import logging
from pathlib import Path
from typing import Annotated, cast

import typer

from ..core.data.options import Fit
from ..core.errors import UsageError
from . import help as groups
from .network_options import NetArg, named_network
from .options import given

_log = logging.getLogger(__name__)

GRAPH_SUFFIX = ".onnx"
OF_WEIGHTS = ("arch", "net_arg", "ema")
"""The options that a graph does not need: it has its network in itself."""
OF_GRAPHS = ("output",)
"""The options that weights do not need."""


def import_model(
    context: typer.Context,
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            help="Weights (.pth, .pt, .ckpt, .bin, .safetensors) of a network that rtk knows, or a classifier in ONNX "
            "(.onnx).",
        ),
    ],
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Architecture, such as resnet50 (see rtk models), or package.module:function; default: recognised "
            "by the layers, if it is one of torchvision's ResNets.",
            show_default=False,
            rich_help_panel=groups.MODEL,
        ),
    ] = None,
    net_arg: NetArg = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|LIST",
            help="Classes in the order of the logits: a file with a name in each line, a JSON list or map, names with "
            "commas between them, cifar10, fashion-mnist or shapes.",
            show_default=False,
            rich_help_panel=groups.MODEL,
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW",
            help="Size of the images that the model takes, in pixels; default: the size that an ONNX graph fixes.",
            show_default=False,
            rich_help_panel=groups.MODEL,
        ),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            help="Preprocessing that the weights were trained with: imagenet, unit, samplewise or samplewise-center.",
            show_default=False,
            rich_help_panel=groups.MODEL,
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="M|R,G,B",
            help="Instead of --preprocess, with --std: what is subtracted from pixel / 255, for each channel or all.",
            show_default=False,
            rich_help_panel=groups.MODEL,
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            metavar="S|R,G,B",
            help="With --mean: the divisor after that.",
            show_default=False,
            rich_help_panel=groups.MODEL,
        ),
    ] = None,
    rgb: Annotated[
        bool,
        typer.Option("--rgb", help="The images are grey; repeat them to three channels.", rich_help_panel=groups.MODEL),
    ] = False,
    fit: Annotated[
        str,
        typer.Option(
            help="How to fit images of other proportions: crop, letterbox or stretch.", rich_help_panel=groups.MODEL
        ),
    ] = "crop",
    ema: Annotated[
        bool,
        typer.Option(
            help="Take the moving average (EMA) of the weights if the file has both.", rich_help_panel=groups.MODEL
        ),
    ] = True,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The output of an ONNX graph that has the logits; needed if several could have them.",
            show_default=False,
            rich_help_panel=groups.MODEL,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the model and of its files; default: that of the file.",
            show_default=False,
            rich_help_panel=groups.OUTPUT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the result; default: the folder of the file.",
            show_default=False,
            rich_help_panel=groups.OUTPUT,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file of that name.", rich_help_panel=groups.OUTPUT)
    ] = False,
) -> None:
    """Make a model of rtk from weights, or an ONNX graph, that were made elsewhere; nothing is trained."""
    from ..workflow.known_preprocessing import numbers_of

    options = set(given(context))
    graph = weights.suffix.lower() == GRAPH_SUFFIX
    if graph:
        _refuse(options, OF_WEIGHTS, f"{weights}: is a graph, which has its network in itself")
    else:
        _refuse(options, OF_GRAPHS, f"{weights}: is a weight file, not a graph")
        if net_arg and arch is None:
            raise UsageError(f"--net-arg {net_arg[0]}: needs --arch package.module:function")
    from ..workflow.import_request import ImportRequest

    request = ImportRequest(
        weights,
        classes=classes,
        image_size=image_size,
        preprocess=preprocess,
        mean=numbers_of("--mean", mean),
        std=numbers_of("--std", std),
        rgb=rgb,
        fit=cast(Fit, fit),  # ImportRequest checks it
        name=name,
        out=out,
        force=force,
    )
    if graph:
        from ..workflow.import_graph_file import GraphImport, import_graph_file

        print(import_graph_file(GraphImport(**vars(request), output=output)).path)
        return
    from ..workflow.import_weights import ImportConfig, import_weights, imported_text

    network = named_network(arch, net_arg) if arch is not None else None
    imported = import_weights(ImportConfig(**vars(request), arch=network, ema=ema))
    _log.info(imported_text(imported))
    print(imported.path)


def _refuse(options: set[str], others: tuple[str, ...], reason: str) -> None:
    """Raise UsageError for options that belong to the other kind of file."""
    for name in others:
        if name in options:
            raise UsageError(f"--{name.replace('_', '-')}: {reason}; leave it out")
