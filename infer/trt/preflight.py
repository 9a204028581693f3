"""Checks whether an engine can run on this machine, before anything heavy is loaded.

These checks import neither TensorRT nor PyCUDA and create no CUDA context; they take milliseconds.
"""

from dataclasses import dataclass
from pathlib import Path

from ...core.artifacts.engine import EngineInfo, other_model, read_engine_info, read_plan, rebuild_command
from ...core.errors import ArtifactError, BackendError
from ...core.nvidia.driver import PROHIBITED, Gpu, device_index, driver_cuda, gpu, gpu_count, no_gpu_reason
from ...core.nvidia.flavor import AUTO, FLAVORS, Flavor, choose_flavor, flavor_named
from .pycuda_driver import pycuda_installed

AMPERE = 8
"""Lowest major compute capability for an engine built with `ampere-plus`."""


@dataclass(frozen=True)
class Loadable:
    """An engine that passed the checks, and the TensorRT and GPU that will run it."""

    path: Path
    info: EngineInfo
    plan: bytes
    flavor: Flavor
    gpu: Gpu


def check_machine(
    *, device: str = "auto", flavor: str = AUTO, instead: str = "use --backend onnx"
) -> tuple[Gpu, Flavor]:
    """Return the GPU and the TensorRT that the trt backend would use on this machine, without an engine.

    `instead`: what a user can do without a GPU, for the message.

    Raises BackendError if the driver, the GPU, TensorRT or PyCUDA is missing, or if the driver is too old; UsageError
    if the device is not a GPU.
    """
    if device == "cpu":
        raise BackendError(f"trt: --device cpu: TensorRT runs on NVIDIA GPUs only; {instead}")
    index = device_index(device)
    if not gpu_count():
        raise BackendError(f"trt: {no_gpu_reason()}; without a GPU {instead}")
    found = gpu(index)
    if found.compute_mode == PROHIBITED:
        raise BackendError(
            f"trt: cuda:{index}: {found.name} is in prohibited compute mode; to change it: sudo nvidia-smi -c 0"
        )
    chosen = choose_flavor() if flavor == AUTO else flavor_named(flavor)
    if not chosen.installed:
        raise BackendError(f"trt: the engine needs {chosen.name}, which is not installed; {chosen.install_hint()}")
    cuda, needed = driver_cuda(), chosen.cuda_major
    if cuda is not None and needed is not None and cuda[0] < needed:
        raise BackendError(
            f"trt: the NVIDIA driver supports CUDA {cuda[0]}.{cuda[1]}, {chosen.name} {chosen.version()} needs "
            f"CUDA {needed}; update the driver, or: {chosen.install_hint()}"
        )
    if not pycuda_installed():
        raise BackendError("trt: PyCUDA is not installed; pip install pycuda (it compiles: nvcc must be on the PATH)")
    return found, chosen


def check_engine(engine: Path, *, device: str = "auto") -> Loadable:
    """Check an engine against this machine without loading it.

    Raises ArtifactError if the engine is missing, damaged, or built for another machine; BackendError as check_machine
    does.
    """
    info = read_engine_info(engine)
    if info.flavor not in FLAVORS:
        raise ArtifactError(
            f"{engine}: built by {info.flavor!r}, expected {' or '.join(FLAVORS)}; "
            f"build it again: {rebuild_command(engine)}"
        )
    plan = read_plan(engine, info)
    without_gpu = device == "cpu" or not gpu_count()
    instead = other_model(engine, info) if without_gpu else ""  # it reads files
    found, flavor = check_machine(device=device, flavor=info.flavor, instead=instead)
    problem = "" if flavor.checks_engines else mismatch(info, flavor, found)
    if problem:
        raise ArtifactError(f"{engine}: {problem}; build it again: {rebuild_command(engine)}")
    return Loadable(engine, info, plan, flavor, found)


def mismatch(info: EngineInfo, flavor: Flavor, found: Gpu) -> str:
    """Why an engine of the regular TensorRT does not run on this GPU and version; empty if it does."""
    version = flavor.version()
    if info.version != version:
        return f"built by {info.flavor} {info.version}, this machine has {version}"
    level = info.options.get("hardware_compatibility", "none")
    if level == "ampere-plus" and int(found.compute_capability.split(".")[0]) >= AMPERE:
        return ""
    if level == "same-compute-capability" and found.compute_capability == info.compute_capability:
        return ""
    if (info.gpu, info.compute_capability) != (found.name, found.compute_capability):
        return (
            f"built for {info.built_for}, this machine has {found.name} (compute capability {found.compute_capability})"
        )
    return ""
