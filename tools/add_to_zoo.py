"""Add a trained model to the zoo: python -m rtk.tools.add_to_zoo RUN/best.pt [--note TEXT].

Writes NAME.pt, NAME.onnx and NAME.json into core/zoo/, where NAME is the card's. Without a note and without a fitted
temperature the checkpoint is copied byte for byte.
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
    note: Annotated[str, typer.Option(help="Remark on how the model was trained.")] = "",
) -> None:
    """Add a trained model to the zoo."""
    loaded = load_checkpoint(checkpoint)
    if loaded.training is not None or loaded.card.training is None or loaded.card.score is None:
        raise UsageError(f"{checkpoint}: not a finished training's best.pt")
    if loaded.card.training.used_test_split:
        raise UsageError(
            f"{checkpoint}: {loaded.card.training.selection}; the zoo takes the weights of the last epoch, or those "
            "selected on held-out images: train with --select last, --holdout or --validation-split"
        )
    name = loaded.card.name
    with temporary_folder(None) as folder:
        if note or loaded.card.temperature_fit:  # the zoo finds a checkpoint by the SHA-256 of its file alone
            notes = loaded.card.notes | ({"training": note} if note else {})
            card = replace(loaded.card, notes=notes, checkpoint_sha256="")
            save_checkpoint(folder / f"{name}.pt", card, loaded.weights)
        else:
            write_whole(folder / f"{name}.pt", checkpoint.read_bytes())
        added = load_checkpoint(folder / f"{name}.pt")
        export_graph(added, folder / f"{name}.onnx")
        for suffix in (".pt", ".onnx"):
            write_whole(zoo_file(name, suffix), (folder / f"{name}{suffix}").read_bytes())
    write_whole(zoo_file(name, ".json"), added.card.to_json(indent=1) + "\n")
    print(added.card.to_text(is_checkpoint=True))


if __name__ == "__main__":
    run_module(publish)
