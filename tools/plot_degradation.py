"""Plot the training error of plain and residual networks, shallow and deep: python -m rtk.tools.plot_degradation.

Writes docs/degradation.png from a short training on CIFAR-10. A deeper network can represent everything that a
shallower one can, yet without shortcuts it does worse even on its own training images (arXiv 1512.03385, figures 1
and 6). With shortcuts it does not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..cli.options import run_module
from ..core.card import Input, ModelCard, Preprocessing
from ..core.data.datasets import Split
from ..core.data.open_dataset import open_dataset
from ..core.environment import use_writable_matplotlib_folder
from ..core.files import make_folder, whole_file
from ..core.plot_colours import BLUE, ORANGE
from ..train.augment.options import Augmentation
from ..train.data.splits import shuffled_indices
from ..train.device import choose_arithmetic
from ..train.recipes import Recipe
from ..train.trainer import Trainer, new_model

ARCHITECTURES = ("plain20", "plain56", "resnet20v1", "resnet56v1")
LR, WEIGHT_DECAY = 0.1, 1e-4  # the paper's
BATCH = 64  # half of the paper's: more steps from few images
OUT = Path(__file__).parent.parent / "docs" / "degradation.png"


def training_errors(arch: str, split: Split, *, epochs: int, seed: int = 0, device: str = "auto") -> list[float]:
    """Train a network and return the share of wrongly answered training images of every epoch.

    All networks are trained in the same way: SGD with momentum, a learning rate that falls to zero by half a cosine,
    random crops and random flips.
    """
    classes = tuple(str(label) for label in range(int(split.labels_N.max()) + 1))
    size = Input(*split.images_NHWC.shape[1:])
    card = ModelCard(arch, arch, "", classes, size, Preprocessing(*split.statistics()))
    augmentation = Augmentation(crop=0.125, flip="random")
    recipe = Recipe("degradation", epochs, LR, batch_size=BATCH, weight_decay=WEIGHT_DECAY, augmentation=augmentation)
    arithmetic = choose_arithmetic(device, "auto")
    trainer = Trainer(new_model(card, seed, arithmetic), recipe, arithmetic, split, seed=seed)
    return [1 - trainer.run_epoch(lambda count: None)["train_accuracy"] for _ in range(epochs)]


def picture(errors: Mapping[str, Sequence[float]], path: Path, *, title: str) -> None:
    """Draw the errors over the epochs: one colour per depth, dashed lines for networks without shortcuts."""
    use_writable_matplotlib_folder()
    from matplotlib.figure import Figure  # without pyplot: no display, no global state
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for arch, shares in errors.items():
        percent = [100 * share for share in shares]
        axes.plot(
            range(1, len(percent) + 1),
            percent,
            color=ORANGE if "56" in arch else BLUE,
            linestyle="dashed" if arch.startswith("plain") else "solid",
            label=f"{arch}, {percent[-1]:.1f} % at the end",
        )
    axes.set(title=title, xlabel="epoch", ylabel="wrong answers on training images (%)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    make_folder(path.parent)
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=130)


def plot_degradation(
    dataset: Annotated[str, typer.Option(help="Data set, as for rtk train.")] = "cifar10",
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs of each network.")] = 20,
    train_images: Annotated[int, typer.Option(min=2, help="Number of training images.")] = 5_000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = OUT,
) -> None:
    """Train plain and residual networks of 20 and 56 layers in the same way, and plot their training errors."""
    split = open_dataset(dataset).split("train")
    split = split.take(np.sort(shuffled_indices(split, train_images, seed=0, name=dataset)))
    errors: dict[str, list[float]] = {}
    for arch in ARCHITECTURES:
        errors[arch] = training_errors(arch, split, epochs=epochs, device=device)
        print(f"{arch}: " + " ".join(f"{share:.1%}" for share in errors[arch]), flush=True)
        picture(errors, out, title=f"{len(split):,} images of {dataset}")
    print(out)


if __name__ == "__main__":
    run_module(plot_degradation)
