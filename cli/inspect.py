"""rtk inspect: the card of a model."""

from typing import Annotated

import typer

from ..core.errors import ArtifactError
from . import help as groups


def inspect(
    file: Annotated[str, typer.Argument(help="Checkpoint, graph or engine file, or the name of a model in the zoo.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the complete card as JSON.", rich_help_panel=groups.OUTPUT)
    ] = False,
) -> None:
    """Show the card of a model: architecture, data set, training and accuracy."""
    from ..core.artifacts.engine import engine_problem, read_engine_info
    from ..workflow.models import find_model, read_card

    found = find_model(file)
    if found.engine:
        info = read_engine_info(found.engine)
        print(info.to_json().rstrip() if as_json else info.to_text())
        problem = engine_problem(found.engine)
        if problem:
            raise ArtifactError(f"{found.engine}: {problem}")
        return
    card = read_card(found)
    if as_json:
        print(card.to_json(indent=2))
    elif found.checkpoint:
        print(card.to_text(is_checkpoint=True))
    else:
        from ..core.artifacts.graph import load_graph, sha256_without_card

        print(card.to_text(file_sha256=sha256_without_card(load_graph(found.given)[0])))
