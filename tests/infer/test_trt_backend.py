"""The whole trt backend on stand-ins for TensorRT, PyCUDA and the driver; each obstacle has a message of its own."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.lazy_cuda import CudaError, CudaMemoryError, LazyCuda, LazyDevice, LazyGraphs, fake_logits
from fakes.tensorrt_stand_in import (
    CLASSES,
    H100,
    RTX4090,
    SIZE,
    VERSIONS,
    Script,
    Stage,
    small_card,
    staged,
    write_graph,
)
from numpy.typing import NDArray
from rtk.core.artifacts.engine import EngineInfo, PrecisionAsBuilt, Profile, json_path, write_engine
from rtk.core.errors import (
    ArtifactError,
    BackendError,
    OtherGpuError,
    OutputError,
    RtkError,
    UnavailableError,
    UsageError,
)
from rtk.core.nvidia import driver as cuda
from rtk.core.nvidia.flavor import FLAVORS
from rtk.core.probe import probe_images
from rtk.infer.backend import BACKENDS, Backend, BackendOptions
from rtk.infer.open_backend import open_backend
from rtk.infer.trt import backend as trt_backend
from rtk.infer.trt.backend import TrtBackend
from rtk.infer.trt.preflight import check_engine, check_machine
from rtk.infer.trt.pycuda_driver import CurrentGpu, pycuda_driver
from rtk.workflow.select import open_model

PLAN = b"a plan"
PLAN_SHA256 = "a27fa2bacd5796b82680016a6b8865a616a9e4f6b6a198d3776ddc07536e3158"
REGULAR = EngineInfo(
    card=small_card(),
    flavor="tensorrt",
    version="11.4.0.106",
    cuda="13",
    gpu="NVIDIA H100",
    compute_capability="9.0",
    targets=(),
    profile=Profile(4, 16),
    precision=PrecisionAsBuilt("fp32", {"fp32": 2}, {"fp32": 4}),
    graph_sha256="a" * 64,
    plan_sha256=PLAN_SHA256,
    plan_bytes=len(PLAN),
    build_s=1.0,
    options={"hardware_compatibility": "none"},
)
RTX = replace(
    REGULAR, flavor="tensorrt-rtx", version="1.7.1.116", gpu="", compute_capability="", targets=("8.0", "8.9")
)
ENGINES = {"tensorrt 10": replace(REGULAR, version="10.16.1.11"), "tensorrt 11": REGULAR, "tensorrt-rtx": RTX}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    yield from staged(monkeypatch)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))


@dataclass
class Bench:
    """A machine with everything that one version of TensorRT needs, and an engine for it."""

    stage: Stage
    trt: Any
    machine: LazyCuda
    engine: Path
    library: Any

    def open(self, **options: Any) -> Backend:
        return open_backend("trt", self.engine, BackendOptions(**options))

    def load(self, **arguments: Any) -> Backend:
        """Open with arguments that only the class itself has."""
        return TrtBackend(self.engine, BackendOptions(), **arguments)


def bench_for(stage: Stage, kind: str, folder: Path, *, gpus: int = 1, **script: Any) -> Bench:
    machine = stage.pycuda(LazyCuda(devices=gpus))
    gpu = RTX4090 if "rtx" in kind else H100
    library = stage.libcuda(*(replace(gpu, index=index) for index in range(gpus)))
    trt = stage.tensorrt(kind, Script(machine=machine, **script))
    write_engine(folder / "small.engine", PLAN, ENGINES[kind])
    return Bench(stage, trt, machine, folder / "small.engine", library)


@pytest.fixture(params=list(VERSIONS))
def bench(request: pytest.FixtureRequest, stage: Stage, tmp_path: Path) -> Bench:
    return bench_for(stage, request.param, tmp_path)


def images(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE.shape), dtype=np.uint8)


# Running.


def test_a_loaded_engine_computes_calls_and_streams(bench: Bench) -> None:
    with bench.open() as backend:
        for count in (16, 1, 5, 16, 0):
            assert np.array_equal(backend(images(count)), fake_logits(images(count), CLASSES))
        batches = [images(count, seed=count) for count in (16, 16, 3, 0, 16, 7)]
        for batch, logits_NK in zip(batches, backend.stream(batches), strict=True):
            assert np.array_equal(logits_NK, fake_logits(batch, CLASSES))


def test_the_backend_describes_itself(bench: Bench) -> None:
    backend = bench.open()
    assert (backend.name, backend.device, backend.max_batch) == ("trt", "cuda:0", 16)
    assert backend.card == small_card()
    for message in (bench.trt.__version__, "fp32"):
        assert message in backend.runs_on
    assert "trt" in BACKENDS


def test_close_frees_everything_and_leaves_the_context_stack_empty(bench: Bench) -> None:
    backend = bench.open()
    backend(images(3))
    backend.close()
    backend.close()
    assert set(bench.machine.live().values()) == {0}
    assert bench.machine.stack == []
    with pytest.raises(BackendError, match="closed"):
        backend(images(1))


def test_host_code_stays_disabled(bench: Bench) -> None:
    bench.open()
    assert ("Runtime.engine_host_code_allowed=", False) in bench.trt.calls
    assert ("Runtime.engine_host_code_allowed=", True) not in bench.trt.calls


def test_the_shape_is_set_only_when_it_changes(bench: Bench) -> None:
    backend = bench.open()
    for count in (4, 4, 4, 2, 2, 4):
        backend(images(count))
    shapes = [call[2][0] for call in bench.trt.calls if call[0] == "IExecutionContext.set_input_shape"]
    assert shapes == [4, 2, 4]


@pytest.mark.parametrize("wrong", [images(17), images(1).astype(np.float32), images(1)[..., :1], images(1)[0]])
def test_a_batch_that_does_not_fit_is_rejected_in_calls_and_streams(bench: Bench, wrong: Any) -> None:
    backend = bench.open()
    with pytest.raises(BackendError, match="expected"):
        backend(wrong)
    with pytest.raises(BackendError, match="expected"):
        list(backend.stream([images(16), wrong]))
    assert bench.machine.pending() == 0
    assert np.array_equal(backend(images(2)), fake_logits(images(2), CLASSES))


def test_arrays_may_be_non_contiguous(bench: Bench) -> None:
    backend = bench.open()
    strided = images(8)[::2, :, ::-1]
    assert np.array_equal(backend(strided), fake_logits(strided, CLASSES))
    assert np.array_equal(next(iter(backend.stream([strided]))), fake_logits(strided, CLASSES))


def test_a_run_that_tensorrt_rejects_is_one_error_and_the_next_call_works(bench: Bench) -> None:
    backend = bench.open()
    bench.trt.script.runs, bench.trt.script.log = False, ["a kernel\nis missing"]
    with pytest.raises(BackendError, match="a batch of 2 does not run: a kernel is missing"):
        backend(images(2))
    bench.trt.script.runs = True
    assert np.array_equal(backend(images(2)), fake_logits(images(2), CLASSES))


def test_the_inspector_counts_layers_on_the_gpu(stage: Stage, tmp_path: Path) -> None:
    layers = '{"Layers": [{"Outputs": [{"DataType": "Float"}]}]}'
    backend: Any = bench_for(stage, "tensorrt 11", tmp_path, inspector=layers).open()
    assert backend.info.precision.inspected
    assert backend.info.precision.layers == {"fp32": 1}


def test_a_second_gpu_is_used_if_requested(stage: Stage, tmp_path: Path) -> None:
    bench = bench_for(stage, "tensorrt 11", tmp_path, gpus=2)
    first, second = bench.open(), bench.open(device="cuda:1")
    assert (first.device, second.device) == ("cuda:0", "cuda:1")
    assert {device for device, _ in bench.machine.device_memory.values()} == {0, 1}
    assert np.array_equal(second(images(3)), first(images(3)))


@pytest.mark.parametrize("kind", ["tensorrt 10", "tensorrt 11"])
def test_recorded_runs_have_their_own_contexts_which_share_memory(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    bench = bench_for(stage, kind, tmp_path)
    graphs = LazyGraphs(bench.machine)
    monkeypatch.setattr(trt_backend, "CudaGraphs", lambda: graphs)
    backend = bench.open(cuda_graphs=True)
    for count in (16, 5, 16, 5, 16):
        assert np.array_equal(backend(images(count)), fake_logits(images(count), CLASSES))
    assert (len(graphs.live), graphs.launches) == (2, 3)
    managed = bench.trt.ExecutionContextAllocationStrategy.USER_MANAGED
    assert bench.trt.calls.count(("ICudaEngine.create_execution_context", managed)) == 2
    addresses = {call[1:] for call in bench.trt.calls if call[0] == "IExecutionContext.set_device_memory"}
    assert len(addresses) == 1
    backend.close()
    assert graphs.live == []
    assert set(bench.machine.live().values()) == {0}


def test_too_little_memory_for_cuda_graphs_is_reported_as_such(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_for(stage, "tensorrt 11", tmp_path)
    monkeypatch.setattr(trt_backend, "CudaGraphs", lambda: LazyGraphs(bench.machine))
    with bench.open(cuda_graphs=True) as backend:
        bench.machine.memory_bytes = bench.machine.live()["device_bytes"] + 100
        with pytest.raises(
            BackendError, match=r"^trt: small\.engine: CUDA graphs need 1 MiB of working memory of their "
        ):
            backend(images(3))


def test_images_on_the_gpu_are_run_by_a_cuda_graph_too(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_for(stage, "tensorrt 11", tmp_path)
    graphs = LazyGraphs(bench.machine)
    monkeypatch.setattr(trt_backend, "CudaGraphs", lambda: graphs)
    with bench.open(cuda_graphs=True) as backend, contextlib.closing(backend.resident(images(40))) as there:
        assert there.places == 1  # a graph reads one address
        for _ in range(5):
            there.run(0, 16)
        assert (len(graphs.live), graphs.launches) == (1, 4)
    with bench.open() as backend, contextlib.closing(backend.resident(images(40))) as there:
        assert there.places is None


def test_cuda_graphs_need_cuda_python(stage: Stage, tmp_path: Path) -> None:
    bench = bench_for(stage, "tensorrt 11", tmp_path)
    stage.without("cuda")
    with pytest.raises(BackendError, match="CUDA graphs need cuda-python; pip install cuda-bindings"):
        bench.open(cuda_graphs=True)


# RTX.


@pytest.mark.parametrize(("steady", "strategy"), [(True, "EAGER"), (False, "LAZY")])
def test_kernels_of_rtx_change_in_the_background_only_where_nothing_is_compared_or_timed(
    stage: Stage, tmp_path: Path, steady: bool, strategy: str
) -> None:
    bench = bench_for(stage, "tensorrt-rtx", tmp_path)
    bench.open(steady=steady).close()
    chosen = getattr(bench.trt.DynamicShapesKernelSpecializationStrategy, strategy)
    name = "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy="
    assert [call[1] for call in bench.trt.calls if call[0] == name] == [chosen]


def test_rtx_options_reach_the_runtime_and_kernels_are_kept(stage: Stage, tmp_path: Path) -> None:
    bench = bench_for(stage, "tensorrt-rtx", tmp_path)
    TrtBackend(bench.engine, BackendOptions(cuda_graphs=True), specialization="eager").close()
    config = "IRuntimeConfig."
    trt = bench.trt
    assert (f"{config}cuda_graph_strategy=", trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE) in trt.calls
    eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    assert (f"{config}dynamic_shapes_kernel_specialization_strategy=", eager) in trt.calls
    (kept,) = (tmp_path / "cache" / "rtx").iterdir()
    assert kept.read_bytes()[32:] == b"kernels"  # after the checksum
    bench.open().close()
    assert ("IRuntimeCache.deserialize", b"kernels") in trt.calls


def test_kernels_that_cannot_be_kept_cost_one_line(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OutputError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr("rtk.core.sealed_files.write_whole", full)
    bench_for(stage, "tensorrt-rtx", tmp_path).open().close()
    (line,) = [message for message in caplog.messages if "No space left" in message]
    assert "compiled kernels are not kept for the next time; set RTK_CACHE_DIR" in line


def test_rtx_works_without_a_kernel_cache(stage: Stage, tmp_path: Path) -> None:
    bench = bench_for(stage, "tensorrt-rtx", tmp_path)
    bench.load(runtime_cache=False).close()
    assert not (tmp_path / "cache" / "rtx").exists()


def test_an_unknown_specialization_lists_the_known_ones(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="known: lazy, eager, none"):
        bench_for(stage, "tensorrt-rtx", tmp_path).load(specialization="later")


@pytest.mark.parametrize(
    ("bits", "kind", "message"),
    [
        (1, ArtifactError, r"VERSION_MISMATCH\): built by tensorrt-rtx 1\.7\.1\.116 for compute capability 8\.0, 8\.9"),
        (
            2,
            OtherGpuError,
            r"UNSUPPORTED_CC\): .*RTX 4090 \(compute capability 8\.9\); build it again here: rtk export",
        ),
        (4, BackendError, r"OLD_CUDA_DRIVER\); update the NVIDIA driver"),
        (16, BackendError, r"INSUFFICIENT_GPU_MEMORY\): .*smaller --max-batch"),
        (32, ArtifactError, "MALFORMED_ENGINE"),
        (3, ArtifactError, "UNSUPPORTED_CC, VERSION_MISMATCH"),
        (0, BackendError, r"no diagnostics\); CUDA does not work here: see nvidia-smi"),
        (64, BackendError, r"CUDA_ERROR\); CUDA does not work here: see nvidia-smi"),
    ],
)
def test_an_engine_that_rtx_calls_invalid_is_not_loaded(
    stage: Stage, tmp_path: Path, bits: int, kind: type[RtkError], message: str
) -> None:
    bench = bench_for(stage, "tensorrt-rtx", tmp_path, validity=("INVALID", bits))
    with pytest.raises(kind, match=message) as caught:
        bench.open()
    assert "\n" not in str(caught.value)
    assert ("Runtime.deserialize_cuda_engine",) not in bench.trt.calls
    assert bench.machine.stack == []


def test_a_suboptimal_engine_runs(stage: Stage, tmp_path: Path) -> None:
    backend = bench_for(stage, "tensorrt-rtx", tmp_path, validity=("SUBOPTIMAL", 0)).open()
    assert len(backend(images(1))) == 1


def test_zero_slots_are_rejected_before_anything_is_loaded(bench: Bench) -> None:
    with pytest.raises(UsageError, match="0 slots: expected at least 1"):
        bench.load(slots=0)
    assert bench.trt.calls == []


# Obstacles, in the order of the checks.


def rewrite(bench: Bench, **changes: Any) -> None:
    """Change values in the engine's JSON."""
    info = next(info for info in ENGINES.values() if info.version == bench.trt.__version__)
    json_path(bench.engine).write_text(replace(info, **changes).to_json())


def test_a_missing_engine_or_json_is_reported_first(stage: Stage, tmp_path: Path) -> None:
    bench = bench_for(stage, "tensorrt 11", tmp_path)
    json_path(bench.engine).unlink()
    with pytest.raises(ArtifactError, match=r"small\.engine\.json is missing"):
        bench.open()
    bench.engine.unlink()
    with pytest.raises(ArtifactError, match="no such engine"):
        bench.open()


def test_a_truncated_engine_is_never_loaded(bench: Bench) -> None:
    bench.engine.write_bytes(PLAN[:-1])
    with pytest.raises(
        ArtifactError, match=r"truncated: 5 bytes, expected 6; build it again: rtk export --trt .*small\.onnx"
    ):
        bench.open()
    bench.engine.write_bytes(b"b" + PLAN[1:])
    with pytest.raises(ArtifactError, match="altered"):
        bench.open()
    assert bench.trt.calls == []


def test_an_unknown_flavor_is_rejected(bench: Bench) -> None:
    rewrite(bench, flavor="tensorrt-lite")
    with pytest.raises(ArtifactError, match="'tensorrt-lite', expected tensorrt or tensorrt-rtx"):
        bench.open()


def test_a_missing_driver_is_a_one_line_error(bench: Bench) -> None:
    bench.stage.monkeypatch.setattr(cuda, "_libcuda", lambda: None)
    bench.stage.forget()
    with pytest.raises(BackendError, match=r"^trt: no NVIDIA driver .*; without a GPU name the graph or checkpoint "):
        bench.open()


def test_the_cpu_is_rejected_as_a_device(bench: Bench) -> None:
    with pytest.raises(BackendError, match=r"--device cpu: .*; name the graph or checkpoint that it was made from$"):
        bench.open(device="cpu")


def test_a_missing_gpu_is_reported_with_the_number_of_gpus(bench: Bench) -> None:
    with pytest.raises(BackendError, match="cuda:7: this machine has 1 CUDA GPU"):
        bench.open(device="cuda:7")


def test_prohibited_compute_mode_is_reported(stage: Stage) -> None:
    stage.libcuda(replace(H100, compute_mode=2))
    with pytest.raises(BackendError, match="prohibited compute mode"):
        check_machine()


@pytest.mark.skipif(FLAVORS["tensorrt-rtx"].cuda_major != 13, reason="needs the package tensorrt-rtx for CUDA 13")
def test_a_driver_that_is_too_old_is_reported_with_both_versions(stage: Stage) -> None:
    stage.libcuda(RTX4090, driver=12040)
    with pytest.raises(
        BackendError, match=r"supports CUDA 12\.4, tensorrt-rtx .* needs CUDA 13; update the driver, or"
    ):
        check_machine(flavor="tensorrt-rtx")


def test_a_missing_tensorrt_is_reported_with_its_install_command(stage: Stage, tmp_path: Path) -> None:
    bench = bench_for(stage, "tensorrt 11", tmp_path)
    stage.monkeypatch.delitem(sys.modules, "tensorrt")
    stage.without("tensorrt")
    with pytest.raises(BackendError, match=r"the engine needs tensorrt, which is not installed; pip install tensorrt"):
        bench.open()


def test_a_missing_pycuda_is_reported_with_its_install_command(stage: Stage) -> None:
    stage.libcuda(H100)
    stage.tensorrt("tensorrt 11")
    stage.without("pycuda")
    with pytest.raises(BackendError, match="PyCUDA is not installed; pip install pycuda"):
        check_machine()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "11.1.0.3"}, r"built by tensorrt 11\.1\.0\.3, this machine has 11\.4\.0\.106"),
        (
            {"version": "11.1.0.3", "options": {"version_compatible": True}},  # as earlier versions of rtk wrote it
            r"built by tensorrt 11\.1\.0\.3, this machine has 11\.4\.0\.106",
        ),
        (
            {"gpu": "NVIDIA L4", "compute_capability": "8.9"},
            r"NVIDIA L4 \(.* 8\.9\), this machine has NVIDIA H100 \(.* 9\.0",
        ),
        ({"gpu": "NVIDIA H200"}, "built for NVIDIA H200"),
        ({"gpu": "", "compute_capability": "", "targets": ("9.0",)}, "built for compute capability 9.0"),
    ],
)
def test_an_engine_for_another_machine_is_reported_with_both_and_the_command(
    stage: Stage, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    bench = bench_for(stage, "tensorrt 11", tmp_path)
    rewrite(bench, **changes)
    with pytest.raises(ArtifactError, match=message + r".*; build it again: rtk export --trt .*small\.onnx"):
        bench.open()
    assert bench.trt.calls == []


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({"options": {"version_compatible": True}}, True),  # an option of earlier versions of rtk
        ({"gpu": "A10", "compute_capability": "8.6", "options": {"hardware_compatibility": "ampere-plus"}}, True),
        ({"gpu": "NVIDIA H200", "options": {"hardware_compatibility": "same-compute-capability"}}, True),
        (
            {
                "gpu": "A10",
                "compute_capability": "8.6",
                "options": {"hardware_compatibility": "same-compute-capability"},
            },
            False,
        ),
    ],
)
def test_compatible_engines_are_accepted(stage: Stage, tmp_path: Path, changes: dict[str, Any], runs: bool) -> None:
    bench = bench_for(stage, "tensorrt 11", tmp_path)
    rewrite(bench, **changes)
    if runs:
        assert check_engine(bench.engine).plan == PLAN
    else:
        with pytest.raises(ArtifactError, match="build it again"):
            check_engine(bench.engine)


def test_an_engine_that_tensorrt_does_not_load_is_reported_with_its_reason(bench: Bench) -> None:
    bench.trt.script.loads, bench.trt.script.log = False, ["magic tag\ndoes not match"]
    with pytest.raises(
        ArtifactError, match=r"TensorRT does not load it: magic tag does not match; build it again: rtk"
    ):
        bench.open()
    assert bench.machine.stack == []
    assert set(bench.machine.live().values()) == {0}


def test_an_engine_whose_profile_differs_from_its_json_is_rejected(bench: Bench) -> None:
    bench.trt.script.max_batch = 8
    with pytest.raises(ArtifactError, match="differ from those in its JSON"):
        bench.open()


def test_too_little_memory_for_the_context_is_reported_in_mib(bench: Bench) -> None:
    bench.trt.script.has_context, bench.trt.script.log = False, ["out of memory"]
    with pytest.raises(
        BackendError, match=r"out of memory; it needs 1 MiB .* batches of up to 16, .* smaller --max-batch"
    ):
        bench.open()
    assert bench.machine.stack == []


def test_too_little_memory_for_the_buffers_is_reported_in_mib(stage: Stage, tmp_path: Path) -> None:
    bench = bench_for(stage, "tensorrt 11", tmp_path)
    bench.machine.memory_bytes = 4000
    with pytest.raises(BackendError, match=r"out of GPU memory: .* for a slot of up to 16 images"):
        bench.open()
    assert set(bench.machine.live().values()) == {0}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (CudaError("cuDevicePrimaryCtxRetain failed: CUDA-capable device(s) is/are busy or unavailable"), "exclusive"),
        (CudaMemoryError("cuDevicePrimaryCtxRetain failed: out of memory"), "out of GPU memory"),
        (CudaError("cuDevicePrimaryCtxRetain failed: unknown"), "see nvidia-smi"),
    ],
)
def test_a_gpu_without_a_context_is_reported_with_the_reason(bench: Bench, error: Exception, message: str) -> None:
    def refuse(self: LazyDevice) -> None:
        raise error

    bench.stage.monkeypatch.setattr(LazyDevice, "retain_primary_context", refuse)
    with pytest.raises(BackendError, match=rf"cuda:0: .*{message}"):
        bench.open()
    assert bench.machine.stack == []


@pytest.mark.skipif(cuda.gpu_count() > 0, reason="this machine has a GPU")
def test_without_a_gpu_opening_fails_with_one_line(tmp_path: Path) -> None:
    write_engine(tmp_path / "small.engine", PLAN, RTX)
    with pytest.raises(BackendError) as caught:
        open_backend("trt", tmp_path / "small.engine")
    assert str(caught.value).startswith("trt: ")
    assert "\n" not in str(caught.value)


def test_importing_the_backend_loads_neither_torch_nor_onnx_nor_tensorrt() -> None:
    script = (
        "import sys, rtk.infer.trt.backend; "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'pycuda') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_auto_leaves_a_gpu_that_tensorrt_does_not_support_to_onnx(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtk.infer.onnx_backend.gpu_count", lambda: 0)  # ONNX Runtime would try to use it
    bench_for(stage, "tensorrt-rtx", tmp_path, validity=("INVALID", 2))
    graph = write_graph(tmp_path / "small.onnx")
    with open_model(str(graph)) as backend:
        assert backend.name == "onnx"
        assert backend(images(3)).shape == (3, CLASSES)
    (line,) = [" ".join(record.message.split()) for record in caplog.records if record.levelname == "WARNING"]
    assert "tensorrt-rtx 1.7.1.116 does not support this GPU (UNSUPPORTED_CC)" in line
    assert line.endswith("onnx is used instead")
    with pytest.raises(BackendError, match="does not support this GPU"):
        open_model(str(graph), backend="trt")


def test_an_rtx_engine_for_this_very_gpu_that_rtx_does_not_support_is_not_to_be_built_again(
    stage: Stage, tmp_path: Path
) -> None:
    bench = bench_for(stage, "tensorrt-rtx", tmp_path, validity=("INVALID", 2))
    write_engine(bench.engine, PLAN, replace(RTX, gpu=RTX4090.name, compute_capability="8.9", targets=()))
    with pytest.raises(BackendError, match=r"this TensorRT-RTX does not support this GPU: .*, or use --backend onnx$"):
        bench.open()


# On a GPU.

on_gpu = pytest.mark.skipif(cuda.gpu_count() == 0, reason="needs an NVIDIA GPU")


@pytest.fixture
def real_engine(graph_path: Path, tmp_path: Path) -> Path:
    """The engine of a small network, built on this GPU. Skips where no TensorRT is installed that supports the GPU."""
    from rtk.export.config import EngineConfig
    from rtk.export.trt.build import engine_from_onnx

    try:
        check_machine()
    except BackendError as error:
        pytest.skip(str(error))
    try:
        return engine_from_onnx(EngineConfig(graph_path, out=tmp_path, max_batch=64, opt_batch=16)).path
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@on_gpu
def test_an_engine_built_here_gives_the_logits_of_the_graph(
    graph_path: Path, real_engine: Path, run_in_onnxruntime: Callable[..., NDArray[np.float32]]
) -> None:
    with open_backend("trt", real_engine) as backend:
        pictures = probe_images(150, backend.card.input)
        batches = [pictures[:64], pictures[64:128], pictures[128:]]
        streamed_NK = np.concatenate(list(backend.stream(batches)))
        called_NK = np.concatenate([backend(batch) for batch in batches])
    expected_NK = run_in_onnxruntime(graph_path.read_bytes(), pictures)
    assert np.abs(streamed_NK - expected_NK).max() <= 1e-4
    assert np.array_equal(streamed_NK, called_NK)


@pytest.mark.gpu
@on_gpu
def test_cuda_graphs_give_the_same_logits(real_engine: Path) -> None:
    try:
        recorded = open_backend("trt", real_engine, BackendOptions(cuda_graphs=True))
    except BackendError as error:
        pytest.skip(str(error))  # the regular TensorRT without cuda-python
    with recorded, open_backend("trt", real_engine) as backend:
        for seed, count in enumerate([64, 1, 64, 37, 1, 64]):
            pictures = probe_images(count, backend.card.input, seed=seed)
            assert np.array_equal(recorded(pictures), backend(pictures))


@pytest.mark.gpu
@on_gpu
def test_opening_and_closing_many_times_leaks_no_gpu_memory(real_engine: Path) -> None:
    def free_bytes() -> int:
        with open_backend("trt", real_engine) as backend:
            backend(probe_images(64, backend.card.input))
        with CurrentGpu(pycuda_driver(), 0):
            return pycuda_driver().mem_get_info()[0]

    before = min(free_bytes() for _ in range(5))
    assert min(free_bytes() for _ in range(50)) >= before - 2 * 2**20


@pytest.mark.gpu
@on_gpu
def test_torch_and_trt_work_in_one_process(checkpoint_path: Path, real_engine: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a PyTorch with CUDA")
    options = BackendOptions(device="cuda:0")
    with open_backend("torch", checkpoint_path, options) as reference, open_backend("trt", real_engine) as backend:
        for seed in range(5):
            pictures = probe_images(64, backend.card.input, seed=seed)
            assert np.abs(backend(pictures) - reference(pictures)).max() <= 1e-4
    assert float(torch.ones(3, device="cuda").sum()) == 3.0
