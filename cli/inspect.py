"""rtk inspect: the card of a model."""

from typing import Annotated

import typer

from ..core.errors import ArtifactError


def inspect(
    file: Annotated[str, typer.Argument(help="A checkpoint, graph or engine, or a model of the zoo.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole card as JSON.")] = False,
) -> None:
    """Show the card of a model: what it is, what it was trained on, how well it does."""
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
    print(card.to_json(indent=2) if as_json else card.to_text())
