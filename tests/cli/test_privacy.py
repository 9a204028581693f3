"""No command looks up a name or writes into the home folder: the telemetry of libraries is off before they load."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rtk.core.data.datasets import CIFAR10_CLASSES
from rtk.core.environment import switch_off_telemetry, without_openvino_telemetry

WATCH = """
import os, sys
os.environ.pop("ORT_DISABLE_TELEMETRY", None)

def watch(event, arguments):
    if event.startswith("socket.get") or event in ("socket.connect", "socket.sendto"):
        print("LOOKED UP", event, arguments[-1], file=sys.stderr)
    if event == "import" and arguments[0] in ("onnxruntime", "openvino", "ray"):
        switches = [os.environ.get(name) for name in ("ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")]
        print("SWITCHES", arguments[0], *switches, file=sys.stderr)

sys.addaudithook(watch)
"""
"""Python's own lookups raise audit events (docs.python.org/3/library/audit_events.html); those of ONNX Runtime do not,
but it writes a data base into the home folder before it looks a name up."""
COMMAND = "sys.argv[0] = 'rtk'\nfrom rtk.cli.app import main\nmain()"
LOAD = """
import numpy as np, rtk
for backend in ("onnx", "openvino"):
    with rtk.load(sys.argv[1], backend=backend) as model:
        model.classify([np.zeros((32, 32, 3), np.uint8)])
"""
STRACE = ("strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o")


def strace_works(folder: Path) -> bool:
    """Whether strace is installed, and allowed in this container."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run([*STRACE, str(folder / "try"), "true"], capture_output=True, check=False).returncode == 0


def asked_and_home(code: str, words: list[str], folder: Path) -> tuple[list[str], list[str], str]:
    """Run code in a new process: return the addresses that it asked, the files in its home, and standard error."""
    home, trace = folder / "home", folder / "trace"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_", "RAY_"))}
    environment |= {"HOME": str(home), "RTK_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-c", WATCH + code, *words]
    if strace_works(folder):  # else the audit hook and the home folder have to do
        command = [*STRACE, str(trace), *command]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    calls = trace.read_text(errors="replace").splitlines() if trace.exists() else []
    lookups = [call for call in calls if re.search(r"sin6?_port=htons\(53\)", call)]
    elsewhere = [call for call in calls if re.search(r'inet_addr\("(?!127\.)', call)]
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    return [*lookups, *elsewhere], files, done.stderr


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    return tmp_path / "black.png"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (COMMAND, ["classify", "black.png", "--model", "mine.onnx", "--backend", "onnx"]),
        (COMMAND, ["classify", "black.png", "--model", "mine.onnx", "--backend", "openvino"]),
        (COMMAND, ["export", "mine.pt", "--out", "made"]),
        (LOAD, ["mine.onnx"]),
        pytest.param(
            COMMAND,
            ["bench", "mine.onnx", "--dataset", "few", "--batch", "4", "--seconds", "1", "--no-baselines"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["classify onnx", "classify openvino", "export", "load", "bench"],
)
@pytest.mark.usefixtures("photo")
def test_nothing_is_looked_up_and_nothing_is_written_into_the_home_folder(
    code: str, words: list[str], tmp_path: Path, checkpoint_path: Path, graph_path: Path
) -> None:
    for split, name in itertools.product(("train", "test"), CIFAR10_CLASSES):
        (tmp_path / "few" / split / name).mkdir(parents=True)
        shutil.copy(tmp_path / "black.png", tmp_path / "few" / split / name)
    shutil.copy(checkpoint_path, tmp_path / "mine.pt")
    shutil.copy(graph_path, tmp_path / "mine.onnx")
    asked, files, errors = asked_and_home(code, words, tmp_path)
    assert asked == []
    assert files == []
    assert "LOOKED UP" not in errors
    switches = re.findall(r"^SWITCHES (\w+) (\S+) (\S+)$", errors, re.MULTILINE)
    assert switches
    assert {(ort, ray) for _, ort, ray in switches} == {("1", "0")}


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    switch_off_telemetry()
    assert (os.environ["ORT_DISABLE_TELEMETRY"], os.environ["RAY_USAGE_STATS_ENABLED"]) == ("0", "1")


def test_every_process_that_imports_any_part_of_rtk_passes_the_switches(in_new_process: Callable[[str], str]) -> None:
    printed = in_new_process(
        "import os\nfor name in ('ORT_DISABLE_TELEMETRY', 'RAY_USAGE_STATS_ENABLED'): os.environ.pop(name, None)\n"
        "import rtk.core.data.decode\nprint(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['RAY_USAGE_STATS_ENABLED'])"
    )
    assert printed == "1 0\n"


def test_openvinos_telemetry_is_missing_only_while_openvino_is_imported() -> None:
    before = sys.modules.get("openvino_telemetry")
    with without_openvino_telemetry(), pytest.raises(ImportError):
        __import__("openvino_telemetry")
    assert sys.modules.get("openvino_telemetry") is before


def test_openvino_is_imported_in_one_place_only_without_its_telemetry() -> None:
    root = Path(__file__).parent.parent.parent
    rooms = ("core", "train", "export", "infer", "bench", "workflow", "cli")
    importing = [
        str(path.relative_to(root))
        for room in rooms
        for path in (root / room).rglob("*.py")
        if re.search(r"^\s*(import|from) openvino\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert importing == ["infer/openvino_backend.py"]
