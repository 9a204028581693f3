"""Put a trained model into the zoo: python -m rtk.tools.add_to_zoo RUN/best.pt [--note TEXT].

Writes NAME.pt, NAME.onnx and NAME.json, NAME being the card's. Without a note the checkpoint is copied byte for byte.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..cli.options import run_module
from ..core.artifacts.checkpoint import load_checkpoint, save_checkpoint
from ..core.errors import UsageError
from ..core.files import temporary_folder, write_whole
from ..core.zoo import zoo_file
from ..workflow.artifacts import export_graph


def publish(
    checkpoint: Annotated[Path, typer.Argument(help="The best.pt of a run.")],
    note: Annotated[str, typer.Option(help="What one should know about how it was trained.")] = "",
) -> None:
    """Put a trained model into the zoo."""
    loaded = load_checkpoint(checkpoint)
    if loaded.training is not None or loaded.card.training is None or loaded.card.score is None:
        raise UsageError(f"{checkpoint}: not a finished training's best.pt")
    if loaded.card.training.used_test_split:
        raise UsageError(
            f"{checkpoint}: {loaded.card.training.selection}; the zoo takes the last epoch's weights or those chosen "
            "by held-out images: train with --select last, --holdout or --validation-split"
        )
    name = loaded.card.name
    with temporary_folder(None) as made:
        if note:
            card = replace(loaded.card, notes={**loaded.card.notes, "training": note}, checkpoint_sha256="")
            save_checkpoint(made / f"{name}.pt", card, loaded.weights)
        else:
            write_whole(made / f"{name}.pt", checkpoint.read_bytes())
        published = load_checkpoint(made / f"{name}.pt")
        export_graph(published, made / f"{name}.onnx")
        for suffix in (".pt", ".onnx"):
            write_whole(zoo_file(name, suffix), (made / f"{name}{suffix}").read_bytes())
    write_whole(zoo_file(name, ".json"), published.card.to_json(indent=1) + "\n")
    print(published.card.to_text())


if __name__ == "__main__":
    run_module(publish)
