"""Many processes that find the cache empty at the same time: one makes each file, and all get it whole."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from rtk.core.files import write_whole

PROCESSES = 6

START = """
import os, sys, time
from pathlib import Path

def meet(folder):  # all processes go on at the same time
    (Path(folder) / str(os.getpid())).touch()
    until = time.monotonic() + 120
    while len(list(Path(folder).iterdir())) < int(sys.argv[1]) and time.monotonic() < until:
        time.sleep(0.005)
"""

ENGINE = """
import dataclasses, hashlib, json
from types import SimpleNamespace
from fakes.engine_files import INFO
from rtk.core.artifacts.engine import Profile, read_engine_info, read_plan
from rtk.export.config import EngineConfig
from rtk.export.trt import build

def build_engine(request):  # plans are never byte-reproducible
    (Path("built") / str(os.getpid())).touch()
    time.sleep(0.3)
    plan = os.urandom(1 << 20)
    return plan, dataclasses.replace(
        INFO,
        card=request.card,
        profile=Profile(16, 16),
        graph_sha256=request.graph_sha256,
        options=request.options,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
    )

build._build_engine = build_engine
build.choose_flavor = lambda name: SimpleNamespace(name="tensorrt", version=lambda: "11.4.0.106")
build.hardware_for = lambda config, flavor: SimpleNamespace(key=("NVIDIA H100", "9.0"))
meet("started")
engine = build.engine_in_cache(EngineConfig(Path("small.onnx"), max_batch=16, precision="fp16"))
plan = read_plan(engine.path, read_engine_info(engine.path))
print(json.dumps([str(engine.path), hashlib.sha256(plan).hexdigest()]))
"""

GRAPH = """
import hashlib, json
from types import SimpleNamespace
from rtk.core.artifacts import checkpoint
from rtk.core.files import write_whole
from rtk.workflow import artifacts

def export(loaded, path, *, precision):
    (Path("built") / str(os.getpid())).touch()
    time.sleep(0.3)
    write_whole(path, os.urandom(1 << 20))

checkpoint.load_checkpoint = lambda path: SimpleNamespace(card=SimpleNamespace(arch="resnet8v1"))
artifacts.export_graph = export
meet("started")
graph = artifacts.cached_graph(Path("small.pt"))
print(json.dumps([str(graph), hashlib.sha256(graph.read_bytes()).hexdigest()]))
"""

DATA = """
import json
from rtk.core.data import datasets

datasets.CIFAR10_ROWS = 200
unpack = datasets._unpack
def noted(archive, folder):
    (Path("built") / str(os.getpid())).touch()
    unpack(archive, folder)
datasets._unpack = noted
meet("started")
split = datasets.open_named("cifar10", data_dir=Path("data")).split("train")
print(json.dumps([len(split), int(split.images_NHWC.sum())]))
"""


def answers_of(code: str, folder: Path) -> list[object]:
    """Run the code in PROCESSES processes at once, with an empty cache; return what each prints."""
    for name in ("started", "built"):
        (folder / name).mkdir()
    tests = Path(__file__).parent.parent
    paths = os.pathsep.join([str(tests), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    environment = os.environ | {"RTK_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": paths}
    command = [sys.executable, "-c", START + code, str(PROCESSES)]
    running = [
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    printed = [process.communicate() for process in running]
    assert [(process.returncode, error) for process, (_, error) in zip(running, printed, strict=True)] == [
        (0, "")
    ] * PROCESSES
    return [json.loads(out) for out, _ in printed]


@pytest.mark.parametrize("code", [ENGINE, GRAPH], ids=["engine", "graph"])
def test_many_processes_on_a_cold_cache_get_one_whole_artifact(code: str, tmp_path: Path, graph_path: Path) -> None:
    write_whole(tmp_path / "small.onnx", graph_path.read_bytes())
    write_whole(tmp_path / "small.pt", b"any content")
    answers = answers_of(code, tmp_path)
    assert answers == [answers[0]] * PROCESSES
    assert len(list((tmp_path / "built").iterdir())) == 1
    assert list((tmp_path / "cache").rglob(".*")) == []


def test_many_processes_unpack_a_downloaded_data_set_once(tmp_path: Path) -> None:
    files = tmp_path / "cifar-10-batches-bin"
    files.mkdir()
    rows = bytes([3, *([7] * 3072)]) * 200
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        (files / name).write_bytes(rows)
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(files, arcname=files.name)
    answers = answers_of(DATA, tmp_path)
    assert answers == [[1000, 1000 * 3072 * 7]] * PROCESSES
    assert len(list((tmp_path / "built").iterdir())) == 1


def test_a_process_that_dies_while_it_builds_does_not_block_the_others(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from rtk.core.files import made_by_one
with made_by_one(Path("thing")):
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 9
    again = code.replace("os._exit(9)", "print('free')")
    done = subprocess.run([sys.executable, "-c", again], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "free\n"
    assert list(tmp_path.iterdir()) == []
