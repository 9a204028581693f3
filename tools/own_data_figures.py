"""Measure a large data set of the user's own: the first start, the second one, and the memory of a training.

    python -m rtk.tools.own_data_figures [IMAGES] [--folder DIR]

Draws IMAGES (50,000) pictures of 224 x 224 pixels as JPEG files, a fifth of them for testing, and takes a quarter, half
and all of them as data sets. For each it measures how long reading takes the first time, which decodes, and the second
time, and the largest memory of all processes while an epoch is trained, in which the network scales the images to 32
pixels. Writes bench/results/own-data/MACHINE_DATE.json; `python -m rtk.tools.readme_tables --tables` makes the table.
"""

import argparse
import datetime
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread

import numpy as np
from PIL import Image

from ..core.data.synthetic_shapes import SHAPES_CLASSES, draw_shapes
from ..core.files import make_folder, write_whole
from ..core.json_text import json_text
from ..core.machine import this_machine
from ..core.progress import progress_bar
from ..core.records import restored
from ..core.text import markdown_table

RECORDS = Path(__file__).parent.parent / "bench" / "results" / "own-data"
SIDE = 224
DRAWN_AT_ONCE = 500
QUALITY = 85
PARTS = (4, 2, 1)
"""The data sets are these parts of the images."""
SAMPLED_S = 0.1
MIB = 2**20
READ = (
    "import sys, time; start = time.perf_counter()\n"
    "from rtk.core.data.open_dataset import open_dataset\n"
    "from rtk.core.data.options import DataOptions\n"
    f"dataset = open_dataset(sys.argv[1], options=DataOptions(image_size=({SIDE}, {SIDE})))\n"
    "[dataset.split(name) for name in dataset.splits]\n"
    "print(time.perf_counter() - start)"
)


@dataclass(frozen=True)
class Row:
    """One data set."""

    images: int
    pixels_mib: float
    """Size of all decoded images."""
    first_start_s: float
    second_start_s: float
    own_memory_mib: float
    """The largest memory of the training's processes themselves (RssAnon)."""
    resident_mib: float
    """The same with pages of mapped files (RSS)."""


@dataclass
class Record:
    """What one run of this program measured."""

    machine: str
    date: str
    rows: list[Row] = field(default_factory=list)


def main() -> None:
    """Draw the images, measure, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("images", type=int, nargs="?", default=50_000)
    parser.add_argument("--folder", type=Path, help="Folder for the images and the cache (default: a temporary one).")
    parser.add_argument("--out", type=Path, default=RECORDS, help="Folder of the record.")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with tempfile.TemporaryDirectory(prefix="rtk-") as temporary:
        folder = make_folder(asked.folder or Path(temporary))
        pictures = folder / "pictures"
        draw_pictures(pictures, asked.images)
        now = datetime.datetime.now(datetime.UTC)
        record = Record(this_machine().summary, now.strftime("%Y-%m-%d %H:%M UTC"))
        for part in PARTS:
            record.rows.append(measured(linked(pictures, folder / f"part-{part}", part), folder))
            print(record.rows[-1])
    name = re.sub(r"\W+", "-", record.machine.lower()).strip("-")
    path = make_folder(asked.out) / f"{name}_{now:%Y-%m-%d}.json"
    write_whole(path, json_text(asdict(record), indent=1) + "\n")
    print(path)


def draw_pictures(folder: Path, count: int) -> None:
    """Draw `count` pictures into train/<class>/ and test/<class>/; what is there already stays."""
    with progress_bar("drawing", count, unit="images") as advance:
        for start in range(0, count, DRAWN_AT_ONCE):
            images_NHWC, labels_N = draw_shapes(min(DRAWN_AT_ONCE, count - start), seed=start)
            random = np.random.default_rng(start)
            for number, (image_HWC, label) in enumerate(zip(images_NHWC, labels_N, strict=True), start):
                target = folder / ("test" if number % 5 == 0 else "train") / SHAPES_CLASSES[label]
                target.mkdir(parents=True, exist_ok=True)
                path = target / f"{number:06}.jpg"
                if not path.exists():
                    large = Image.fromarray(image_HWC).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                    noise = random.integers(0, 24, (SIDE, SIDE, 1), dtype=np.uint8)
                    Image.fromarray(np.minimum(np.asarray(large), 231) + noise).save(path, quality=QUALITY)
            advance(len(labels_N))


def linked(pictures: Path, folder: Path, part: int) -> Path:
    """A data set of every `part`-th picture of each class, as links."""
    for source in sorted(pictures.glob("*/*")):
        target = make_folder(folder / source.relative_to(pictures))
        for path in sorted(source.iterdir())[::part]:
            if not (target / path.name).exists():
                (target / path.name).symlink_to(path.absolute())
    return folder


def measured(dataset: Path, folder: Path) -> Row:
    """Measure one data set; its decoded images are removed afterwards."""
    images = sum(1 for _ in dataset.glob("*/*/*"))
    with tempfile.TemporaryDirectory(prefix="cache-", dir=folder) as cache:
        environment = {**os.environ, "RTK_CACHE_DIR": cache}
        first_s, second_s = _read_s(dataset, environment), _read_s(dataset, environment)
        words = ["train", "resnet8v1", "--dataset", str(dataset), "--image-size", str(SIDE), "--resize", "32"]
        words += ["--recipe", "quick", "--epochs", "1", "--compile", "off", "--out", f"{cache}/run"]
        command = [sys.executable, "-m", "rtk", *words]
        own_mib, resident_mib = _largest_memory(command, environment)
    return Row(images, images * SIDE * SIDE * 3 / MIB, first_s, second_s, own_mib, resident_mib)


def _read_s(dataset: Path, environment: dict[str, str]) -> float:
    """Seconds that a new process takes to open the data set and to have all of its images."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(dataset)], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _largest_memory(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """The largest sums over the processes of a command: memory of their own, and resident memory, in MiB."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    largest, ended = [0.0, 0.0], Event()

    def sample() -> None:
        while not ended.wait(SAMPLED_S):
            found = [_memory_mib(one) for one in _with_children(process.pid)]
            for index in range(2):
                largest[index] = max(largest[index], sum(one[index] for one in found))

    sampler = Thread(target=sample)
    sampler.start()
    _, text = process.communicate()
    ended.set()
    sampler.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}: {text}")
    return largest[0], largest[1]


def _with_children(process: int) -> list[int]:
    """A process and all that it started."""
    found = [process]
    for one in found:
        try:
            text = "".join(path.read_text() for path in Path(f"/proc/{one}/task").glob("*/children"))
        except OSError:  # it has just ended
            continue
        found += map(int, text.split())
    return found


def _memory_mib(process: int) -> tuple[float, float]:
    """RssAnon and VmRSS of a process, in MiB; 0 after its end."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0, 0.0
    own, resident = (re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE) for name in ("RssAnon", "VmRSS"))
    return (int(own[1]) / 1024 if own else 0.0), (int(resident[1]) / 1024 if resident else 0.0)


def own_data_block(folder: Path) -> str:
    """The table of the newest record for the documentation; empty without one."""
    paths = sorted(folder.glob("*.json"), key=lambda path: path.stem.rpartition("_")[2])
    if not paths:
        return ""
    record: Record = restored(Record, json.loads(paths[-1].read_text()))
    rows = [
        {
            "images of 224 x 224": f"{row.images:,}",
            "decoded": f"{row.pixels_mib / 1024:.1f} GiB",
            "first start": f"{row.first_start_s:.0f} s",
            "second start": f"{row.second_start_s:.1f} s",
            "memory of training": f"{row.own_memory_mib:,.0f} MiB",
            "with mapped pages": f"{row.resident_mib:,.0f} MiB",
        }
        for row in record.rows
    ]
    return f"{markdown_table(rows)}\n\nMeasured on {record.machine}, {record.date}."


if __name__ == "__main__":
    main()
