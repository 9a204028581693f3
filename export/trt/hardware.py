"""The hardware that an engine is built for: the GPU of this machine, or named compute capabilities."""

from dataclasses import dataclass

from ...core.errors import UnavailableError, UsageError
from ...core.nvidia.driver import Gpu, gpu, gpu_count, no_gpu_reason
from ...core.nvidia.flavor import Flavor
from ..config import EngineConfig

DEFAULT_TARGETS = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""For a build without a GPU: all compute capabilities that TensorRT-RTX 1.7 knows, Ampere to Blackwell, except Turing
(7.5), for which it has no fp32 and no int8 matrix product. All five cost 0.1 s and 20 bytes more than one."""


@dataclass(frozen=True)
class Hardware:
    """What an engine is built for: the GPU that it is built on, or compute capabilities."""

    gpu: Gpu | None
    targets: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """Its part of the key in the engine cache."""
        return self.targets if self.gpu is None else (self.gpu.name, self.gpu.compute_capability)


def hardware_for(config: EngineConfig, flavor: Flavor) -> Hardware:
    """Return the hardware to build for.

    Raises UnavailableError if the flavour needs a GPU and there is none, UsageError for options that the flavour lacks.
    """
    if not flavor.has_compatibility_levels and config.hardware_compatibility != "none":
        raise UsageError(
            f"--hardware-compatibility: {flavor.name} has no compatibility levels; name compute capabilities with "
            "--target, or use --flavor tensorrt"
        )
    if flavor.builds_without_gpu and config.targets:
        return Hardware(None, config.targets)
    if config.targets:
        raise UsageError(f"--target: {flavor.name} builds for its GPU, not for named compute capabilities")
    if gpu_count():
        return Hardware(gpu(config.device), ())
    if flavor.builds_without_gpu:
        return Hardware(None, DEFAULT_TARGETS)
    raise UnavailableError(f"{flavor.name} builds only on a GPU: {no_gpu_reason()}; or use --flavor tensorrt-rtx")
