"""rtk models: the architectures, and the models of the zoo."""

from typing import Annotated

import typer

from ..core.errors import UsageError
from ..core.json_text import json_text
from ..core.text import fitting_table, text_table
from . import help as groups
from .network_options import NetArg, named_network


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Architecture to list the layers of; package.module:function for your own.", show_default=False
        ),
    ] = None,
    net_arg: NetArg = None,
    image_size: Annotated[
        int, typer.Option(min=1, help="Image side in pixels, for the output shapes.", rich_help_panel=groups.MODEL)
    ] = 32,
    channels: Annotated[
        int, typer.Option(min=1, max=3, help="Number of image channels.", rich_help_panel=groups.MODEL)
    ] = 3,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.", rich_help_panel=groups.MODEL)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=groups.OUTPUT)] = False,
) -> None:
    """List the architectures and the models of the zoo, or the layers of one architecture."""
    from ..core.models.names import known_architectures
    from ..core.models.summary import layer_table, parameter_count
    from ..core.zoo import zoo_card, zoo_names

    if name in zoo_names():
        raise UsageError(f"{name}: is a model of the zoo; run: rtk inspect {name}")
    if name is not None:
        name = named_network(name, net_arg)
        rows = layer_table(name, side=image_size, in_channels=channels, classes=classes)
        print(json_text(rows, indent=1) if as_json else fitting_table(rows))
        return
    architectures = [
        {"architecture": arch, "parameters": parameter_count(arch, in_channels=channels, classes=classes)}
        for arch in known_architectures()
    ]
    zoo = [
        {
            "model": card.name,
            "architecture": card.arch,
            "data set": card.dataset,
            "test accuracy": f"{card.score.accuracy:.2%}" if card.score else "unknown",
            "recipe": f"{card.training.recipe}, {card.training.epochs} epochs" if card.training else "unknown",
        }
        for card in map(zoo_card, zoo_names())
    ]
    if as_json:
        print(json_text({"architectures": architectures, "zoo": zoo}, indent=1))
    else:
        print(f"Architectures (parameters for {channels} channels and {classes:,} classes)\n")
        print(text_table(architectures))
        shown = [{name.removeprefix("test "): value for name, value in row.items()} for row in zoo]
        print("\nThe zoo: trained models, part of rtk (accuracy: checkpoint, test split)\n")
        print(fitting_table(shown))
