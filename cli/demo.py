"""rtk demo: the full workflow on synthetic images, by the same commands that users type."""

from pathlib import Path
from typing import Annotated

import typer

ARCH = "resnet8v1"
NAME = "demo"
IMAGES_SHOWN = 12
MARGIN_PP = "0.5"
"""The 2,000 test images can show a loss below 0.2 points if no answer changes, below 0.5 points if three are lost."""


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo writes.")] = Path("demo"),
) -> None:
    """Run the full workflow on synthetic images: train, export, classify, bench. About a minute on two CPU cores."""
    run, images = out / "run", out / "images"
    if not (run / "last.pt").exists():
        _run(context, "train", ARCH, "--dataset", "shapes", "--recipe", "quick", "--out", str(run))
    else:
        _run(context, "train", "--resume", str(run))
    _run(context, "export", str(run / "best.pt"), "--name", NAME)
    _write_images(images)
    graph = str(run / f"{NAME}.onnx")
    _run(context, "classify", str(images), "--model", graph, "--top-k", "2")
    report = str(out / "report")
    options = ("--batch", "1,64", "--seconds", "4", "--no-baselines", "--require-parity", MARGIN_PP)
    _run(context, "bench", graph, *options, "--report", report)
    print(f"\noutput: {out}: the run with its curves and evaluation, graph, images, report")
    print(f"success: parity on every backend: under {MARGIN_PP} points of accuracy are lost")


def _run(context: typer.Context, *words: str) -> None:
    """Run a command line of rtk in this process, shown as a user would type it.

    Ends the demo with the exit code of a command that fails or that Ctrl-C stops.
    """
    print(f"\n$ rtk {' '.join(words)}", flush=True)
    code = context.find_root().command.main(list(words), prog_name="rtk", standalone_mode=False)
    print(end="", flush=True)
    if code:
        raise typer.Exit(code)


def _write_images(folder: Path) -> None:
    """Some test images of the synthetic data set as PNG files, each named by its label."""
    from ..core.data.images import encoded_image
    from ..core.data.open_dataset import open_dataset
    from ..core.files import make_folder, write_whole

    shapes = open_dataset("shapes")
    split = shapes.split("test").head(IMAGES_SHOWN)
    make_folder(folder)
    for number, (image_HWC, label) in enumerate(zip(split.images_NHWC, split.labels_N, strict=True), 1):
        write_whole(folder / f"{number:02}-{shapes.classes[label]}.png", encoded_image(image_HWC))
