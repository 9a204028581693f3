"""The demo: the whole road on drawn shapes, by the same commands that users type."""

from collections.abc import Callable
from pathlib import Path

from ..core.data.datasets import open_dataset
from ..core.files import make_folder

ARCH = "resnet8v1"
IMAGES_SHOWN = 12


def run_demo(out: Path, *, command: Callable[..., None]) -> None:
    """Train, export, classify and bench below `out`; `command` runs one line of rtk's. Raises as the commands do."""
    from PIL import Image

    run, images = out / "run", out / "images"
    if not (run / "last.pt").exists():
        command("train", ARCH, "--dataset", "shapes", "--recipe", "quick", "--out", str(run))
    else:
        command("train", "--resume", str(run))
    command("export", str(run / "best.pt"))
    shapes = open_dataset("shapes")
    split = shapes.split("test").head(IMAGES_SHOWN)
    make_folder(images)
    for number, (image_HWC, label) in enumerate(zip(split.images_NHWC, split.labels_N, strict=True), 1):
        Image.fromarray(image_HWC).save(images / f"{number:02}-{shapes.classes[label]}.png")
    graph = str(run / "best.onnx")
    command("classify", str(images), "--model", graph, "--top-k", "2")
    command("bench", graph, "--batch", "1,64", "--seconds", "4", "--no-baselines", "--report", str(out / "report"))
    print(f"\nAll of it lies in {out}: the run with its curves, the graph, the images, the report.")
