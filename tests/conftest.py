"""Shared fixtures: generated images, a small untrained model, its graph, a folder of images."""

import io
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rtk.core.card import Input, ModelCard, Preprocessing, Score, Training
from rtk.core.data.datasets import CIFAR10_CLASSES, Split
from rtk.core.data.synthetic_shapes import SHAPES_CLASSES, draw_shapes
from rtk.core.probe import probe_images

TORCH = find_spec("torch") is not None
"""In an environment without PyTorch, tests that need it skip; `make test-light` runs the others."""
NEEDS_TORCH = "needs PyTorch"
RUNS_WITHOUT_TORCH = (
    "test_trt_pipeline.py",
    "test_trt_backend.py",
    "test_sources.py",
    "test_archives.py",
    "test_output.py",
    "test_classify.py",
    "test_bench_commands.py",
    "test_help.py",
    "test_card.py",
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m gpu`, import only the files that name that marker.

    A GPU machine may lack what other files import, such as OpenVINO or Ray. Another expression, even "(gpu)", imports
    every file: so test_gpu_collection.py knows that no test is lost.
    """
    others = config.getoption("markexpr") == "gpu" and collection_path.match("test_*.py")
    return True if others and "mark.gpu" not in collection_path.read_text(encoding="utf-8") else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport]:
    """Without PyTorch, skip the files that import it."""
    report = yield
    if not TORCH and report.failed and "No module named 'torch'" in str(report.longrepr):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, NEEDS_TORCH)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Without PyTorch, skip the tests whose fixtures or code import it.

    With RTK_NO_SKIPS, as in continuous integration, only these and tests marked `gpu` may skip; other skips are
    failures.
    """
    report = yield
    if not TORCH and call.excinfo and _lacks_torch(call.excinfo.value):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, NEEDS_TORCH)
        return report
    allowed = any(map(item.get_closest_marker, ("gpu",) if TORCH else ("gpu", "torch")))
    strict = bool(os.environ.get("RTK_NO_SKIPS")) and not allowed
    if strict and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped, which RTK_NO_SKIPS forbids: {report.longrepr}"
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests marked `torch` without PyTorch."""
    if not TORCH and item.get_closest_marker("torch"):
        pytest.skip(NEEDS_TORCH)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In continuous integration without PyTorch, fail if a file that must not need it had nothing to run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if TORCH or reporter is None or not os.environ.get("RTK_NO_SKIPS") or hasattr(session.config, "workerinput"):
        return
    if session.config.getoption("markexpr") == "driver":  # make test-light runs these in a process of their own
        return
    ran = Counter(Path(report.nodeid.partition("::")[0]).name for report in reporter.stats.get("passed", ()))
    missing = [name for name in RUNS_WITHOUT_TORCH if ran[name] < 10]
    if missing:
        reporter.write_line(f"hardly a test ran without PyTorch in: {', '.join(missing)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _lacks_torch(error: BaseException | None) -> bool:
    """Whether this error, or one that it came from, is the import of PyTorch that failed."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            return True
        error = error.__cause__ or error.__context__
    return False


@pytest.fixture(scope="session")
def in_new_process() -> Callable[[str], str]:
    """A function that runs Python code in a new process and returns its standard output."""

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def pytest_configure() -> None:
    """Use one thread for PyTorch: more do not help small tensors, and wait for each other on a busy machine."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shapes64() -> Split:
    """64 synthetic images, 32 x 32 RGB, with their labels."""
    return Split(*draw_shapes(64, seed=7))


@pytest.fixture(scope="session")
def card() -> ModelCard:
    """The card of the smallest network: resnet8v1 for 32 x 32 RGB images of ten classes."""
    return ModelCard(
        name="resnet8v1-cifar10",
        arch="resnet8v1",
        dataset="cifar10",
        classes=CIFAR10_CLASSES,
        input=Input(32, 32, 3),
        preprocessing=Preprocessing((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        score=Score("test", correct=9, total=64, loss=2.25),
        training=Training("rtk", 1, 0, 1.5, "weights of the last epoch", "a machine", "0123456789ab", {"lr": 0.2}),
    )


@pytest.fixture(scope="session")
def randomise() -> Callable[..., None]:
    """A function that sets all weights and statistics of a network to random values: randomise(network, seed=0)."""
    return _randomise


@pytest.fixture(scope="session")
def run_in_onnxruntime() -> Callable[[bytes, NDArray[np.uint8]], NDArray[np.float32]]:
    """A function that runs a serialised graph in ONNX Runtime on the CPU: the run_graph of `onnx_from_checkpoint`."""
    return _run_in_onnxruntime


@pytest.fixture(scope="session")
def save_untrained(card: ModelCard) -> Callable[..., Path]:
    """A function that writes a checkpoint with random weights: save_untrained(path, arch="resnet8v1")."""

    def save(path: Path, *, arch: str = "resnet8v1", size: Input | None = None, seed: int = 0) -> Path:
        import torch
        from rtk.core.artifacts.checkpoint import save_checkpoint
        from rtk.core.models.model import build_model

        chosen = replace(card, arch=arch, name=f"{arch}-cifar10", input=size or card.input)
        if size is not None:
            chosen = replace(chosen, preprocessing=Preprocessing((0.5,) * size.channels, (0.25,) * size.channels))
        model = build_model(chosen)
        _randomise(model.network, seed=seed)
        images_NHWC = torch.from_numpy(probe_images(6, chosen.input))
        with torch.no_grad():  # largest logits: about 10 in trained networks, thousands in random ones
            scale = 10 / model.eval()(images_NHWC).abs().max()
            head = [layer for layer in model.network.modules() if isinstance(layer, torch.nn.Linear)][-1]
            head.weight.mul_(scale)
            head.bias.mul_(scale)
        save_checkpoint(path, chosen, model.state_dict())
        return path

    return save


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory, save_untrained: Callable[..., Path]) -> Path:
    """A checkpoint of resnet8v1 with random weights and random batch-norm statistics."""
    return save_untrained(tmp_path_factory.mktemp("checkpoint") / "tiny.pt")


@pytest.fixture
def shapes_model(tmp_path: Path, save_untrained: Callable[..., Path]) -> Path:
    """A checkpoint of an untrained model, shapes.pt, with the classes of `shapes`."""
    from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint

    loaded = load_checkpoint(save_untrained(tmp_path / "shapes.pt"))
    card = replace(loaded.card, dataset="shapes", classes=SHAPES_CLASSES, checkpoint_sha256="")
    save_checkpoint(tmp_path / "shapes.pt", card, loaded.weights)
    return tmp_path / "shapes.pt"


@pytest.fixture(scope="session")
def graph_path(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of that checkpoint."""
    from rtk.core.artifacts.checkpoint import load_checkpoint
    from rtk.export.to_onnx import onnx_from_checkpoint

    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    return onnx_from_checkpoint(load_checkpoint(checkpoint_path), path, run_graph=_run_in_onnxruntime).path


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set on disk: 24 training and 12 test images, 12 x 12 RGB PNGs, with the classes blue, green and red."""
    root = tmp_path_factory.mktemp("folders") / "colours"
    random = np.random.default_rng(3)
    for split, count in (("train", 8), ("test", 4)):
        for channel, name in enumerate(("red", "green", "blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 128, (12, 12, 3), dtype=np.uint8)
                pixels[..., channel] += 90
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the official data files for tests marked `data`; commands find it too. Skips without the folder."""
    configured = os.environ.get("RTK_DATA_DIR")
    folder = Path(configured) if configured else Path(__file__).parent.parent / ".data"
    if not (folder / "cifar-10-batches-bin").is_dir() or not (folder / "fashion-mnist").is_dir():
        pytest.skip(f"needs the official CIFAR-10 and Fashion-MNIST files in {folder}, or RTK_DATA_DIR set")
    monkeypatch.setenv("RTK_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """A function that runs rtk in tmp_path, in this process, and returns standard output and standard error.

    command_line("classify", "-", code=3, stdin="a.png"): `code` is the exit code that the command must have.
    """
    from rtk.cli import app

    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0, stdin: str = "") -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["rtk", *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        ended = 0
        try:
            app.main()
        except SystemExit as stop:
            ended = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
        printed = capsys.readouterr()
        assert ended == code, (ended, printed)
        return printed.out, printed.err

    return run


@pytest.fixture
def without_self_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks skip their self-check, which a busy machine can fail; test_self_check.py tests it."""
    monkeypatch.setattr("rtk.bench.run.early_return", lambda backend, batches: "")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a web server on this machine, and the folder that it serves."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/", folder
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests out of the user's cache folders."""
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("RTK_CACHE_DIR", str(base / "cache"))
    monkeypatch.setattr("rtk.core.paths.temporary_cache", lambda: base / "temporary-cache")


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests that run commands in this process do not make it the process of a command for other tests.

    A command keeps its settings, and so its number of threads, which rounding errors depend on.
    """
    from rtk.core import process_settings

    monkeypatch.setattr(process_settings._process, "owned", False)
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    yield
    assert process_settings._process.blocks == 0, "a block of settings_put_back is still open"
    if torch and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _randomise(network: object, *, seed: int) -> None:
    """NumPy draws the numbers: those of PyTorch depend on its version and on the processor."""
    import torch

    assert isinstance(network, torch.nn.Module)
    random = np.random.default_rng(seed)

    def fill(values: torch.Tensor, drawn: NDArray[np.float64]) -> None:
        values.copy_(torch.from_numpy(drawn))

    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                fill(layer.weight, random.uniform(0.5, 1.5, layer.weight.shape))
                fill(layer.bias, random.normal(0.0, 0.2, layer.bias.shape))
                fill(layer.running_mean, random.normal(0.0, 0.2, layer.running_mean.shape))
                fill(layer.running_var, random.uniform(0.5, 2.0, layer.running_var.shape))
            elif isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                inputs = layer.weight[0].numel()
                bound = (6 / inputs) ** 0.5  # He's variance, 2 / inputs, without large weights
                fill(layer.weight, random.uniform(-bound, bound, layer.weight.shape))
                if layer.bias is not None:
                    fill(layer.bias, random.normal(0.0, 0.1, layer.bias.shape))


def _run_in_onnxruntime(graph: bytes, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    logits_NK: NDArray[np.float32] = session.run(["logits"], {"images": images_NHWC})[0]
    return logits_NK
