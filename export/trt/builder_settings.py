"""The settings of TensorRT's builder: precision rules, limits, target hardware, batch sizes and the timing cache."""

from typing import Any

from ...core.artifacts.engine_cache import TIMINGS
from ...core.artifacts.graph_card import INPUT_NAME
from ...core.card import ModelCard
from ...core.errors import ArtifactError, UsageError
from ...core.nvidia.flavor import Flavor
from ...core.paths import only_a_cache
from ...core.sealed_files import read_sealed, write_sealed
from ..config import EngineConfig
from .hardware import Hardware

MIB = 2**20
TURING = "7.5"


def builder_settings(trt: Any, builder: Any, config: EngineConfig, hardware: Hardware, card: ModelCard) -> Any:
    """Return an IBuilderConfig with one optimization profile for batches of 1 to config.max_batch."""
    settings = builder.create_builder_config()
    settings.clear_flag(trt.BuilderFlag.TF32)
    settings.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if config.workspace_mib is not None:
        settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, config.workspace_mib * MIB)
    if config.hardware_compatibility != "none":
        level = config.hardware_compatibility.replace("-", "_").upper()
        settings.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if hasattr(trt, "ComputeCapability"):
        _set_targets(trt, settings, hardware)
    profile = builder.create_optimization_profile()
    size = card.input.shape
    profile.set_shape(INPUT_NAME, (1, *size), (config.optimal_batch, *size), (config.max_batch, *size))
    if settings.add_optimization_profile(profile) < 0:
        raise ArtifactError(f"{config.graph}: TensorRT refuses batches of 1 to {config.max_batch} images of {size}")
    return settings


def _set_targets(trt: Any, settings: Any, hardware: Hardware) -> None:
    """Name the compute capabilities to build for. Raises UsageError for one that this TensorRT-RTX lacks.

    For the GPU of this machine none is named: the engine then runs from Ampere on, also on GPUs that are newer than
    the library's list, and its kernels are compiled for the GPU that loads it. Turing has to be named.
    Source: docs.nvidia.com/deeplearning/tensorrt-rtx, "CPU-Only AOT and TensorRT-RTX Engines" (2026-11).
    """
    member_of = {_capability_of(name): name for name in trt.ComputeCapability.__members__ if name.startswith("SM")}
    targets = hardware.targets
    if hardware.gpu is not None and hardware.gpu.compute_capability == TURING:
        targets = (TURING,)
    settings.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        member = member_of.get(target)
        if member is None or not settings.set_compute_capability(getattr(trt.ComputeCapability, member), index):
            raise UsageError(f"--target {target}: TensorRT-RTX cannot build for it; known: {', '.join(member_of)}")


def _capability_of(member: str) -> str:
    """Convert the name of an enum member to a compute capability: SM89 to 8.9."""
    return f"{member[2:-1]}.{member[-1]}"


def use_timing_cache(settings: Any, flavor: Flavor, hardware: Hardware) -> str:
    """Let the builder reuse the timings of earlier builds on this GPU; return the name of the file for the new ones."""
    assert hardware.gpu is not None  # a flavour with a timing cache builds only on a GPU
    name = f"{flavor.name}-{flavor.version()}-{hardware.gpu.name}-{hardware.gpu.compute_capability}".replace(" ", "-")
    file = name.replace("/", "-")
    settings.set_timing_cache(settings.create_timing_cache(read_sealed(TIMINGS, file)), False)
    return file


def save_timing_cache(settings: Any, file: str) -> None:
    """Write the builder's timings for the next build, if the cache can be written."""
    with only_a_cache("the builder's timings are"):
        write_sealed(TIMINGS, file, bytes(settings.get_timing_cache().serialize()))
