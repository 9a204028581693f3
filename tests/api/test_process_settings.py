"""The library leaves the settings of the user's process as they are; a command sets those of its own."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rtk.core import process_settings
from rtk.core.models.full_precision import use_full_precision
from rtk.core.process_settings import change_attribute, set_in_environment, settings_put_back

SNAPSHOT = """
import gc, locale, logging, os, random, signal, socket, sys, warnings
import numpy as np, torch
from pathlib import Path
from PIL import Image, ImageFile
from rtk.core.models.full_precision import OPERATIONS

def snapshot():
    backends = torch.backends
    loggers = [None, "PIL", "PIL.Image", "rtk", "matplotlib", "torch", "torch.onnx", "onnxscript", "onnx_ir"]
    return {
        "matmul": [torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32],
        "cudnn": [backends.cudnn.allow_tf32, backends.cudnn.benchmark, backends.cudnn.deterministic],
        "fp32": [one.fp32_precision for one in OPERATIONS],
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "torch": [torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()],
        "random": [hash(torch.get_rng_state().numpy().tobytes()), str(np.random.get_state()), hash(random.getstate())],
        "environment": sorted(os.environ.items()),
        "umask": [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask")],
        "warnings": [list(warnings.filters), warnings.showwarning],
        "logging": [(log.level, list(log.handlers), log.disabled) for log in map(logging.getLogger, loggers)],
        "logging at large": [logging.root.manager.disable, logging.raiseExceptions, logging.lastResort],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
        "pillow": [Image.MAX_IMAGE_PIXELS, sorted(Image.OPEN), ImageFile.LOAD_TRUNCATED_IMAGES],
        "numpy": [np.geterr(), np.get_printoptions()["threshold"]],
        "python": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled(), locale.setlocale(locale.LC_ALL)],
        "hooks": [sys.excepthook, sys.stdout, sys.stderr, sys.stdin, os.getcwd(), socket.getdefaulttimeout()],
    }

def difference(before, after):
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}

import onnx, onnxruntime, rtk, sympy  # libraries may set what they like when they are imported
Image.init()
torch.onnx, torch.export
torch.set_num_threads(3)
torch.set_float32_matmul_precision("medium")
torch.backends.cudnn.benchmark = True
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("error", "of the user")
np.random.seed(5); torch.manual_seed(6); random.seed(7)
"""
LOADS = """
import rtk.infer.torch_backend
def never(*arguments): raise AssertionError("a setting of the process")
rtk.infer.torch_backend.keep_freed_memory = never
real, os.umask = os.umask, never
images = [sys.argv_folder + "/" + name for name in ("a.png", "a.tif", "a.heic")]
if importlib.util.find_spec("openvino"):
    import openvino
before = snapshot()
for backend, file in (("torch", "tiny.pt"), ("onnx", "tiny.onnx"), ("openvino", "tiny.onnx")):
    if backend != "openvino" or importlib.util.find_spec("openvino"):
        with rtk.load(sys.argv_folder + "/" + file, backend=backend, device="cpu") as model:
            for answer in model.classify(images[: 3 if importlib.util.find_spec("pillow_heif") else 2]):
                assert not answer.error, answer
        for use in (model.classify, model.logits, model):
            try:
                use(np.zeros((1, 32, 32, 3), np.uint8))
            except rtk.BackendError as error:
                assert "the model is closed" in str(error)
            else:
                raise AssertionError("a closed model answers")
changed = difference(before, snapshot())
for name, (old, new) in changed.items():
    print(name, [(str(x)[:400], str(y)[:400]) for x, y in zip(old, new) if x != y])
print(sorted(changed))
"""
FUNCTIONS = """
os.chdir(sys.argv_folder)
import matplotlib.pyplot
before = snapshot()
done = rtk.train("resnet8v1", dataset="shapes", recipe="quick", epochs=1, train_images=128, deterministic=True)
rtk.evaluate(done.best, backend="torch", report="eval")
rtk.export(done.best)
rtk.bench(done.best, backend="onnx", batch=4, scope="sync", seconds=0.1, baselines=False)
changed = difference(before, snapshot())
for name, (old, new) in changed.items():
    print(name, [(str(x)[:400], str(y)[:400]) for x, y in zip(old, new) if x != y])
print(sorted(changed))
"""


@pytest.fixture
def folder(tmp_path: Path, checkpoint_path: Path, graph_path: Path) -> Path:
    """The model, and images in several formats."""
    (tmp_path / "tiny.pt").write_bytes(checkpoint_path.read_bytes())
    (tmp_path / "tiny.onnx").write_bytes(graph_path.read_bytes())
    picture = Image.fromarray(np.arange(40 * 32 * 3, dtype=np.uint8).reshape(40, 32, 3))
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "a.tif", compression="tiff_lzw")
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.from_pillow(picture).save(tmp_path / "a.heic")
    return tmp_path


def program(folder: Path, part: str) -> str:
    """A program that prints what a part of it has changed."""
    return f"import importlib.util, sys\nsys.argv_folder = {str(folder)!r}\n{SNAPSHOT}\n{part}"


def test_loading_and_classifying_leave_the_settings_of_the_process(
    folder: Path, in_new_process: Callable[[str], str]
) -> None:
    assert in_new_process(program(folder, LOADS)) == "[]\n"


@pytest.mark.slow
def test_the_functions_leave_the_settings_of_the_process(folder: Path, in_new_process: Callable[[str], str]) -> None:
    assert in_new_process(program(folder, FUNCTIONS)) == "[]\n"


def test_importing_rtk_sets_only_the_switches_of_telemetry(in_new_process: Callable[[str], str]) -> None:
    printed = in_new_process(
        "import os\nfor name in ('ORT_DISABLE_TELEMETRY', 'RAY_USAGE_STATS_ENABLED'): os.environ.pop(name, None)\n"
        "before = dict(os.environ)\nimport rtk, rtk.api\n"
        "print({name: os.environ[name] for name in os.environ if before.get(name) != os.environ[name]})"
    )
    assert printed == "{'ORT_DISABLE_TELEMETRY': '1', 'RAY_USAGE_STATS_ENABLED': '0'}\n"


@pytest.mark.parametrize(
    "setting",
    [
        "pass",
        "backends.cuda.matmul.allow_tf32 = True",
        "backends.cudnn.allow_tf32 = False",
        "backends.fp32_precision = 'tf32'",
        "backends.cudnn.conv.fp32_precision = 'ieee'",
        "backends.cuda.matmul.fp32_precision = 'tf32'",
        "backends.mkldnn.matmul.fp32_precision = 'bf16'",
        "torch.set_float32_matmul_precision('medium')",
    ],
)
def test_full_precision_ends_with_the_block_however_the_user_has_set_it(
    setting: str, in_new_process: Callable[[str], str]
) -> None:
    """PyTorch has two interfaces to it, and refuses to read the older one after the newer was used."""
    printed = in_new_process(
        f"""
import torch
from rtk.core.models.full_precision import OPERATIONS, use_full_precision
from rtk.core.process_settings import settings_put_back
backends = torch.backends
def read(function):
    try: return function()
    except RuntimeError as error: return type(error)
def state():
    matmul, cudnn = lambda: backends.cuda.matmul.allow_tf32, lambda: backends.cudnn.allow_tf32
    older = map(read, (torch.get_float32_matmul_precision, matmul, cudnn))
    return [*older, *(one.fp32_precision for one in OPERATIONS), backends.fp32_precision]
import warnings; warnings.simplefilter("ignore")
{setting}
before = state()
with settings_put_back():
    use_full_precision()
    print({{one.fp32_precision for one in OPERATIONS}} <= {{"none", "ieee"}})
print(before == state())
"""
    )
    assert printed.split() == ["True", "True"]


def test_the_last_of_several_blocks_puts_settings_back() -> None:
    class Owner:
        setting = "the user's"

    inside, leave = threading.Event(), threading.Event()

    def block() -> None:
        with settings_put_back():
            change_attribute(Owner, "setting", "rtk's")
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=block)
    thread.start()
    inside.wait(60)
    with settings_put_back():
        change_attribute(Owner, "setting", "rtk's")
    assert Owner.setting == "rtk's"  # the other block needs it
    leave.set()
    thread.join()
    assert Owner.setting == "the user's"


def test_settings_are_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RTK_TEST_SETTING", raising=False)
    threads = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), settings_put_back():
        set_in_environment("RTK_TEST_SETTING", "1")
        process_settings.change(torch.get_num_threads, torch.set_num_threads, threads + 1)
        1 / 0  # noqa: B018
    import os

    assert "RTK_TEST_SETTING" not in os.environ
    assert torch.get_num_threads() == threads


def test_a_command_keeps_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Owner:
        setting = 1

    monkeypatch.setattr(process_settings._process, "owned", True)
    with settings_put_back():
        change_attribute(Owner, "setting", 2)
    assert Owner.setting == 2


def test_the_command_line_owns_its_process(
    command_line: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not process_settings.process_is_owned()
    command_line("--version")
    assert process_settings.process_is_owned()
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    use_full_precision()
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (False, False)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = flags
