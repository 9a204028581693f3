"""The demo: the whole road on drawn shapes, by the same commands that users type."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .core.datasets import open_dataset
from .core.files import make_folder

ARCH = "resnet8v1"
EPOCHS = 6
IMAGES_SHOWN = 12


def run_demo(out: Path, *, command: Callable[..., None]) -> None:
    """Train, export, classify and bench below `out`; `command` runs one line of rtk's. Raises as the commands do."""
    from PIL import Image

    run, images = out / "run", out / "images"
    if not (run / "last.pt").exists():
        command("train", ARCH, "--dataset", "shapes", "--recipe", "quick", "--epochs", str(EPOCHS), "--out", str(run))
    else:
        command("train", "--resume", str(run))
    command("export", str(run / "best.pt"))
    split = open_dataset("shapes").split("test")
    make_folder(images)
    for index in range(IMAGES_SHOWN):
        label = open_dataset("shapes").classes[split.labels_N[index]]
        Image.fromarray(split.images_NHWC[index]).resize((96, 96), Image.Resampling.BICUBIC).save(
            images / f"{index:02}-{label}.png"
        )
    assert np.ptp(split.labels_N) > 0
    graph = str(run / "best.onnx")
    command("classify", str(images), "--model", graph, "--top-k", "2")
    command("bench", graph, "--batch", "1,64", "--seconds", "4", "--report", str(out / "report"))
    print(f"\nAll of it lies in {out}: the run with its curves, the graph, the images, the report.")
