"""The backend that is chosen on a CPU: openvino only if this graph passed the parity gate with it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes.cuda_session import CudaSession
from fakes.tensorrt_stand_in import H100
from rtk.bench.measure.cell import Cell
from rtk.bench.parity.verdict import Check, Verdict
from rtk.core.artifacts import parity_cache
from rtk.core.artifacts.graph import load_graph, set_card
from rtk.core.artifacts.parity_cache import forget_parity, parity_is_known, remember_parity
from rtk.core.data.open_dataset import open_dataset
from rtk.core.errors import ArtifactError, BackendError, OutputError, RtkError
from rtk.core.nvidia.driver import Gpu, device_index
from rtk.core.nvidia.flavor import FLAVORS, Flavor
from rtk.export.config import EngineConfig
from rtk.export.trt.build import BuiltEngine
from rtk.infer.backend import BackendOptions
from rtk.infer.trt import preflight as trt_preflight
from rtk.workflow import artifacts, select
from rtk.workflow.benchmark import is_faster, note_openvino
from rtk.workflow.models import ModelFiles, find_model
from rtk.workflow.open_backends import BenchModel, artifact_and_hint
from rtk.workflow.select import backends_for, choose_backend, open_model


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**options: object) -> None:
        raise BackendError("trt: no GPU")

    monkeypatch.setattr(trt_preflight, "check_machine", refuse)
    monkeypatch.setattr(select, "gpu_count", lambda: 0)
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))


def test_openvino_is_chosen_once_its_parity_is_known(graph_path: Path) -> None:
    found = find_model(str(graph_path))
    assert choose_backend(found) == "onnx"
    remember_parity(graph_path, "openvino")
    assert choose_backend(found) == "openvino"
    assert choose_backend(found, device="cpu") == "openvino"


def test_a_forgotten_parity_is_not_known(graph_path: Path) -> None:
    remember_parity(graph_path, "openvino")
    forget_parity(graph_path, "openvino")
    forget_parity(graph_path, "openvino")
    forget_parity(graph_path, "a-package-that-nobody-has")
    assert not parity_is_known(graph_path, "openvino")


def test_the_faster_of_two_backends_is_decided_at_the_largest_common_batch() -> None:
    cells = [
        Cell(name, batch, rounds=[[seconds]] if seconds else [])
        for name, batch, seconds in [("a", 1, 0.1), ("b", 1, 0.2), ("a", 64, 0.4), ("b", 64, 0.3), ("a", 256, 0.1)]
    ]
    assert is_faster(cells, "a", "b") is False
    assert is_faster(cells, "b", "a") is True
    assert is_faster(cells[:2], "a", "b") is True
    assert is_faster(cells[:1], "a", "b") is None
    for cell in cells:
        cell.cores, cell.other_cores = 2, [1.0] * len(cell.rounds)
    assert is_faster(cells, "a", "b") is None  # other processes disturbed them


@pytest.mark.parametrize(
    ("passed", "requirement", "openvino_s", "before", "after"),
    [
        (True, "default", 0.1, False, True),  # parity, and not slower
        (True, "default", 0.3, True, False),  # slower than onnx
        (False, "default", 0.1, True, False),  # no parity
        (True, "5", 0.1, False, False),  # the user's margin proves too little
        (True, "default", None, False, False),  # only onnx was measured
        (True, "default", None, True, True),
    ],
)
def test_bench_notes_openvino_only_after_parity_and_a_comparison_with_onnx(
    graph_path: Path, passed: bool, requirement: str, openvino_s: float | None, before: bool, after: bool
) -> None:
    if before:
        remember_parity(graph_path, "openvino")
    cells = [Cell("onnx", 64, rounds=[[0.2]])]
    if openvino_s is not None:
        cells.append(Cell("openvino", 64, rounds=[[openvino_s]]))
    verdict = Verdict(
        "openvino", "fp32", (Check("accuracy kept", "passed" if passed else "inconclusive", ""),), 0.0, 0.0, 0.05
    )
    report = SimpleNamespace(cells=cells, verdicts=[verdict])
    note_openvino(report, BenchModel(find_model(str(graph_path))), requirement=requirement)  # type: ignore[arg-type]
    assert parity_is_known(graph_path, "openvino") == after


def test_the_parity_of_another_graph_is_not_known(graph_path: Path, tmp_path: Path) -> None:
    remember_parity(graph_path, "openvino")
    changed = Path(shutil.copy(graph_path, tmp_path / "changed.onnx"))
    changed.write_bytes(changed.read_bytes() + b"\0")
    assert not parity_is_known(changed, "openvino")


def test_the_parity_of_another_version_is_not_known(graph_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_parity(graph_path, "openvino")
    monkeypatch.setattr(metadata, "version", lambda package: "2099.1")
    assert not parity_is_known(graph_path, "openvino")


def test_the_parity_of_a_package_that_is_not_installed_is_not_known(graph_path: Path) -> None:
    assert not parity_is_known(graph_path, "a-package-that-nobody-has")


def test_onnx_is_chosen_on_a_machine_with_a_gpu(graph_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_parity(graph_path, "openvino")
    monkeypatch.setattr(select, "gpu_count", lambda: 1)
    assert choose_backend(find_model(str(graph_path))) == "onnx"
    assert choose_backend(find_model(str(graph_path)), device="cpu") == "openvino"


def test_a_parity_that_cannot_be_recorded_costs_one_line(
    graph_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: str) -> None:
        raise OutputError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(parity_cache, "write_whole", full)
    remember_parity(graph_path, "openvino")
    assert not parity_is_known(graph_path, "openvino")
    (line,) = caplog.messages
    assert "No space left on device; " in line
    assert "parity gate is not kept for the next time; set RTK_CACHE_DIR" in line


def test_a_parity_is_recorded_where_the_cache_cannot_be_written(
    graph_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "file"))
    remember_parity(graph_path, "openvino")
    assert parity_is_known(graph_path, "openvino")
    forget_parity(graph_path, "openvino")
    assert not parity_is_known(graph_path, "openvino")


# A backend that the machine seems to have, and that does not run.


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the checks for trt pass."""
    monkeypatch.setattr(trt_preflight, "check_machine", lambda **options: None)
    monkeypatch.setattr(select, "gpu_count", lambda: 1)


def graph_for(precision: str, flavor: str, source: Path, path: Path) -> ModelFiles:
    """A copy of the graph whose card says that it has this precision and flavour."""
    graph, card = load_graph(source)
    set_card(graph, replace(card, precision=precision, notes={"export": {"flavor": flavor}}))
    path.write_bytes(graph.SerializeToString())
    return find_model(str(path))


@pytest.mark.usefixtures("_gpu")
def test_trt_is_chosen_for_graphs_that_tensorrt_takes(graph_path: Path, tmp_path: Path) -> None:
    assert backends_for(find_model(str(graph_path))) == ["trt", "onnx"]
    for_gpus = graph_for("int8", "tensorrt", graph_path, tmp_path / "a.onnx")
    assert choose_backend(for_gpus) == "trt"
    for_cpus = graph_for("int8", "cpu", graph_path, tmp_path / "b.onnx")
    assert backends_for(for_cpus) == ["onnx"]


def test_openvino_is_not_chosen_for_a_gpu_that_the_user_named(graph_path: Path) -> None:
    remember_parity(graph_path, "openvino")
    assert backends_for(find_model(str(graph_path)), device="cuda") == ["onnx"]
    assert backends_for(find_model(str(graph_path))) == ["openvino", "onnx"]


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize(
    "error",
    [
        BackendError("trt: PyCUDA cannot be loaded (libcurand.so.10: not found); pip install pycuda"),
        ArtifactError("a.onnx: refused by TensorRT's parser: no plugin"),
    ],
)
def test_auto_continues_with_the_next_backend_and_says_why(
    error: RtkError, graph_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(found: ModelFiles, **options: object) -> Path:
        raise error

    monkeypatch.setattr(artifacts, "built_engine", refuse)
    with open_model(str(graph_path)) as opened:
        assert opened.name == "onnx"
    (line,) = [record for record in caplog.records if "--backend auto" in record.message]
    assert " ".join(line.message.split()) == f"--backend auto: {error}; onnx is used instead"


@pytest.mark.usefixtures("_gpu")
def test_a_backend_that_the_user_named_is_not_replaced(graph_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(found: ModelFiles, **options: object) -> Path:
        raise BackendError("trt: no")

    monkeypatch.setattr(artifacts, "built_engine", refuse)
    with pytest.raises(BackendError, match="^trt: no$"):
        open_model(str(graph_path), backend="trt")


def test_a_gpu_without_usable_cuda_libraries_leaves_onnx_on_the_cpu_and_says_why(
    graph_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """ONNX Runtime prints on standard output if its CUDA provider does not start."""
    import onnxruntime
    from rtk.infer import onnx_backend

    class Broken:
        """ONNX Runtime as it is without CUDA's libraries: it has a provider for CUDA, which does not start."""

        def __init__(
            self,
            graph: object,
            settings: onnxruntime.SessionOptions,
            *,
            providers: list[object],
            enable_fallback: bool = True,
        ) -> None:
            if providers != ["CPUExecutionProvider"]:
                if enable_fallback:
                    print("EP Error: falling back to CPUExecutionProvider and retrying")
                elif settings.get_session_config_entry("session.disable_cpu_ep_fallback") == "1":
                    raise RuntimeError("This session contains graph nodes that are assigned to the default CPU EP")
            self.session = session(graph, settings, providers=["CPUExecutionProvider"])

        def __getattr__(self, name: str) -> object:
            return getattr(self.session, name)

    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", Broken)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcublas.so.13"), raising=False)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnx_backend, "gpu_count", lambda: 1)
    monkeypatch.setattr(onnx_backend, "_missing_library", lambda: "libcudnn.so.9: cannot open shared object file")
    with open_model(str(graph_path)) as opened:
        assert (opened.name, opened.device) == ("onnx", "cpu")
    (line,) = [
        " ".join(record.message.split())
        for record in caplog.records
        if record.name.startswith("rtk") and record.levelname == "WARNING"
    ]
    assert line.startswith("onnx: the GPU is not used: ONNX Runtime ")
    assert "--device" not in line
    assert line.endswith("pip install 'onnxruntime-gpu[cuda,cudnn]'; the CPU is used instead")
    assert capfd.readouterr().out == ""
    reason = (
        r"ONNX Runtime .* could not start its CUDA provider: libcudnn\.so\.9: cannot open shared object file; it needs"
    )
    with pytest.raises(BackendError, match=f"onnx: --device cuda: {reason}"):
        open_model(str(graph_path), backend="onnx", options=BackendOptions(device="cuda"))


@pytest.mark.usefixtures("_gpu")
def test_an_engine_is_built_for_the_batches_that_are_requested(
    graph_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []

    def build(found: ModelFiles, *, max_batch: int, device: str) -> Path:
        built.append(max_batch)
        raise BackendError("trt: not here")

    monkeypatch.setattr(artifacts, "built_engine", build)
    open_model(str(graph_path), max_batch=4096).close()
    assert built == [4096]


def test_on_a_gpu_no_node_may_run_on_the_cpu_and_no_other_provider_is_there(
    graph_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = CudaSession(gpus=2).use(monkeypatch)
    with pytest.raises(BackendError, match="^onnx: --device cuda:1: .*: not here$"):
        open_model(str(graph_path), backend="onnx", options=BackendOptions(device="cuda:1"))
    assert session.arguments == {
        "providers": [
            ("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
        ],
        "enable_fallback": 0,
    }
    assert session.entries["disable_cpu_ep_fallback"] == "1"


def opened_by_name(graph: Path, options: BackendOptions) -> None:
    open_model(str(graph), backend="trt", options=options)


def opened_by_a_benchmark(graph: Path, options: BackendOptions) -> None:
    model = BenchModel(find_model(str(graph)), reference=None)
    artifact_and_hint("trt", None, model, dataset=open_dataset("shapes"), max_batch=1, options=options)


@pytest.mark.parametrize("opened", [opened_by_name, opened_by_a_benchmark])
@pytest.mark.parametrize(("device", "index"), [("auto", 0), ("cuda:1", 1)])
def test_an_engine_is_built_on_the_gpu_that_is_named(
    graph_path: Path,
    device: str,
    index: int,
    opened: Callable[[Path, BackendOptions], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs: list[EngineConfig] = []

    def build(config: EngineConfig) -> BuiltEngine:
        configs.append(config)
        raise BackendError("trt: not here")

    def check_machine(*, device: str) -> tuple[Gpu, Flavor]:
        return replace(H100, index=device_index(device)), FLAVORS["tensorrt"]

    monkeypatch.setattr("rtk.export.trt.build.engine_in_cache", build)
    monkeypatch.setattr(trt_preflight, "check_machine", check_machine)
    with pytest.raises(BackendError, match="not here"):
        opened(graph_path, BackendOptions(device=device))
    assert [config.device for config in configs] == [index]
