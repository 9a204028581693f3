"""rtk models: the architectures and the zoo."""

import json
from typing import Annotated

import typer

from ..core.text import text_table


def models(
    name: Annotated[str | None, typer.Argument(help="Show this architecture's layers.", show_default=False)] = None,
    image_size: Annotated[int, typer.Option(min=1, help="Side of the images, for the shapes of the layers.")] = 32,
    channels: Annotated[int, typer.Option(min=1, max=3, help="Channels of the images.")] = 3,
    classes: Annotated[int, typer.Option(min=1, help="How many classes.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List architectures and the zoo; or the layers of one architecture with their output shapes."""
    from ..core.models.names import known_architectures
    from ..core.models.summary import layer_table, parameter_count
    from ..core.zoo import zoo_card, zoo_names

    if name is not None:
        rows = layer_table(name, side=image_size, in_channels=channels, classes=classes)
        print(json.dumps(rows, indent=1) if as_json else text_table(rows))
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
        print(json.dumps({"architectures": architectures, "zoo": zoo}, indent=1))
    else:
        print(f"Architectures (parameters for {channels} channels and {classes:,} classes)\n")
        print(text_table(architectures))
        print(f"\nThe zoo: models that ship with rtk\n\n{text_table(zoo)}")
